//! Lays JSON out for reading. Numbers, strings, and the order of members stay as they are, because the text is never parsed
//! into values.

/// The deepest nesting. Deeper text is shown as it is.
const DEEPEST: usize = 200;
/// One level of indentation.
const INDENT: &str = "  ";
/// How much longer the result may be. Real JSON becomes twice as long.
const LONGEST: usize = 4;

/// The text with line breaks and indentation. `None` if it is not JSON or too deep. If it was cut off (`is_whole` is false),
/// it may end anywhere.
pub(crate) fn pretty(text: &str, is_whole: bool) -> Option<String> {
    let mut layout = Layout {
        rest: text.trim_start_matches('\u{feff}'),
        out: String::with_capacity(text.len() + text.len() / 2),
        open: Vec::new(),
        longest: text.len().saturating_mul(LONGEST).saturating_add(1 << 10),
    };
    match layout.value_and_rest() {
        Ok(()) => Some(layout.out),
        Err(Stop::AtEnd) if !is_whole => Some(layout.out),
        Err(_) => None,
    }
}

/// Why the layout stops.
enum Stop {
    /// The text ends before the value does.
    AtEnd,
    /// It is not JSON, or too deep, or too long.
    Invalid,
}

/// An object or an array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    Array,
}

struct Layout<'a> {
    rest: &'a str,
    out: String,
    open: Vec<Open>,
    longest: usize,
}

impl Layout<'_> {
    /// The outermost value, behind which nothing may come.
    fn value_and_rest(&mut self) -> Result<(), Stop> {
        loop {
            self.value_begin()?;
            // A value is complete: close what ends here, up to the next member or element.
            loop {
                let Some(open) = self.open.last().copied() else {
                    self.skip_spaces();
                    return if self.rest.is_empty() { Ok(()) } else { Err(Stop::Invalid) };
                };
                match (self.next()?, open) {
                    (b',', _) => {
                        self.take(1)?;
                        self.new_line()?;
                        if open == Open::Object {
                            self.name()?;
                        }
                        break;
                    }
                    (b'}', Open::Object) | (b']', Open::Array) => {
                        self.open.pop();
                        self.new_line()?;
                        self.take(1)?;
                    }
                    _ => return Err(Stop::Invalid),
                }
            }
        }
    }

    /// Takes a scalar or an empty container, or opens containers down to one of these.
    fn value_begin(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                b'{' => {
                    self.take(1)?;
                    if self.next()? == b'}' {
                        return self.take(1);
                    }
                    self.enter(Open::Object)?;
                    self.name()?;
                }
                b'[' => {
                    self.take(1)?;
                    if self.next()? == b']' {
                        return self.take(1);
                    }
                    self.enter(Open::Array)?;
                }
                b'"' => return self.string(),
                b'-' | b'0'..=b'9' => return self.number(),
                b't' => return self.word("true"),
                b'f' => return self.word("false"),
                b'n' => return self.word("null"),
                _ => return Err(Stop::Invalid),
            }
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), Stop> {
        if self.open.len() == DEEPEST {
            return Err(Stop::Invalid);
        }
        self.open.push(open);
        self.new_line()
    }

    /// Takes a member's name and the colon.
    fn name(&mut self) -> Result<(), Stop> {
        if self.next()? != b'"' {
            return Err(Stop::Invalid);
        }
        self.string()?;
        if self.next()? != b':' {
            return Err(Stop::Invalid);
        }
        self.take(1)?;
        self.out.push(' ');
        Ok(())
    }

    fn string(&mut self) -> Result<(), Stop> {
        let bytes = self.rest.as_bytes();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => return self.take(at + 1),
                Some(b'\\') => match bytes.get(at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                    Some(b'u') => {
                        let digits = &bytes[at + 2..bytes.len().min(at + 6)];
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return Err(Stop::Invalid);
                        }
                        at += 2 + digits.len();
                    }
                    Some(_) => return Err(Stop::Invalid),
                    None => at += 1,
                },
                Some(..0x20) => return Err(Stop::Invalid),
                Some(_) => at += 1,
                None => return self.take_to_end(),
            }
        }
    }

    fn number(&mut self) -> Result<(), Stop> {
        let bytes = self.rest.as_bytes();
        let length =
            bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        if length == bytes.len() && !self.open.is_empty() {
            return self.take_to_end();
        }
        if is_number(&bytes[..length]) { self.take(length) } else { Err(Stop::Invalid) }
    }

    fn word(&mut self, word: &str) -> Result<(), Stop> {
        if self.rest.starts_with(word) {
            return self.take(word.len());
        }
        if word.starts_with(self.rest) { self.take_to_end() } else { Err(Stop::Invalid) }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Result<u8, Stop> {
        self.skip_spaces();
        self.rest.as_bytes().first().copied().ok_or(Stop::AtEnd)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// Copies the next bytes.
    fn take(&mut self, length: usize) -> Result<(), Stop> {
        let (piece, rest) = self.rest.split_at(length);
        self.out.push_str(piece);
        self.rest = rest;
        if self.out.len() > self.longest { Err(Stop::Invalid) } else { Ok(()) }
    }

    /// Copies what is left of a text that was cut off within a value.
    fn take_to_end(&mut self) -> Result<(), Stop> {
        self.take(self.rest.len())?;
        Err(Stop::AtEnd)
    }

    fn new_line(&mut self) -> Result<(), Stop> {
        self.out.push('\n');
        for _ in &self.open {
            self.out.push_str(INDENT);
        }
        if self.out.len() > self.longest { Err(Stop::Invalid) } else { Ok(()) }
    }
}

/// Whether it is a number of JSON (RFC 8259, section 6).
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || rest[0] == b'0' && whole > 1 {
        return false;
    }
    rest = &rest[whole..];
    if let [b'.', fraction @ ..] = rest {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = &exponent[length..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
