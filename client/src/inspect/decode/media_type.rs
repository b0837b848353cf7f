//! Types of content, as `Content-Type` names them (RFC 9110, section 8.3).

/// The longest value that is read. Real ones are a tenth of it.
const LONGEST: usize = 1024;

/// A `Content-Type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaType {
    /// Type and subtype in lower case, such as `text/html`. Empty if there is none.
    pub(crate) essence: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads a value. What makes no sense is left out.
    pub(crate) fn new(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&value[..value.len().min(LONGEST)]);
        let (essence, parameters) = text.split_once(';').unwrap_or((&text, ""));
        Self { essence: essence.trim().to_ascii_lowercase(), parameters: parameters_of(parameters) }
    }

    /// The value of a parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is JSON, such as `application/problem+json`.
    pub(crate) fn is_json(&self) -> bool {
        matches!(&*self.essence, "application/json" | "text/json") || self.essence.ends_with("+json")
    }

    /// Whether it is XML, but not what has a language of its own.
    pub(crate) fn is_xml(&self) -> bool {
        matches!(&*self.essence, "application/xml" | "text/xml") || self.essence.ends_with("+xml")
    }
}

/// Reads `name=value; name="quoted value"`, with names in lower case.
pub(super) fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.trim_matches([' ', '\t', ';']).to_ascii_lowercase();
        let value = value.trim_start();
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            unquoted(quoted)
        } else {
            let (value, after) = value.split_once(';').unwrap_or((value, ""));
            (value.trim_end().to_owned(), after)
        };
        parameters.push((name, value));
        rest = after;
    }
    parameters
}

/// A quoted string behind its first quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            // Browsers escape quotes in names of files; a backslash before anything else is one of the name.
            '\\' if chars.as_str().starts_with(['"', '\\']) => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    let rest = chars.as_str();
    (value, rest.split_once(';').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read() {
        let html = MediaType::new(b"Text/HTML ; Charset=\"utf-8\"; x = y");
        assert_eq!(html.essence, "text/html");
        assert_eq!(
            (html.parameter("charset"), html.parameter("x"), html.parameter("z")),
            (Some("utf-8"), Some("y"), None)
        );
        assert!(MediaType::new(b"application/problem+json").is_json());
        assert!(MediaType::new(b"application/json;charset=utf-8").is_json());
        assert!(MediaType::new(b"application/atom+xml").is_xml());
        assert_eq!(MediaType::new(b""), MediaType::default());
    }

    #[test]
    fn quoted_values_hold_anything() {
        let read = |text| parameters_of(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read(r#"name="a;b=\"c\\"; FileName="C:\x.txt""#),
            [pair("name", r#"a;b="c\"#), pair("filename", r"C:\x.txt")]
        );
        assert_eq!(read(r#"boundary="open"#), [pair("boundary", "open")]);
        assert_eq!(read("a=; ;b"), [pair("a", "")]);
    }
}
