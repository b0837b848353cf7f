//! Reads TOML key by key and collects every mistake with its place.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::quoted::quoted;

/// `2027-01-31`.
const DATE_LEN: usize = 10;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The file, as it was named.
    pub(crate) file: String,
    /// The line, from 1.
    pub(crate) line: usize,
    /// The key with its sections; empty for a syntax error.
    pub(crate) key: String,
    /// What is wrong and what was expected.
    pub(crate) message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A text and what was found wrong with it so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, mistakes: RefCell::default() }
    }

    /// The top of the document; a syntax error ends everything.
    pub(super) fn root(&self) -> Result<Section<'_>, Vec<Mistake>> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Section::new(self, String::new(), 0..0, table.into_inner())),
            Err(error) => {
                let message = error.message().lines().collect::<Vec<_>>().join("; ");
                self.add(error.span().unwrap_or(0..0), String::new(), message);
                Err(self.mistakes())
            }
        }
    }

    /// What was found wrong, in the order of the lines.
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.borrow().clone();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }

    fn add(&self, span: Range<usize>, key: String, message: String) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        self.mistakes.borrow_mut().push(Mistake { file: self.file.to_owned(), line, key, message });
    }
}

/// One table. What is not asked for by the time of [`Section::finish`] is a mistake.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    /// Its own key with a dot, or nothing for the root.
    prefix: String,
    span: Range<usize>,
    table: DeTable<'a>,
    known: Vec<&'static str>,
    spans: Vec<(&'static str, Range<usize>)>,
}

impl<'a> Section<'a> {
    fn new(reader: &'a Reader<'a>, prefix: String, span: Range<usize>, table: DeTable<'a>) -> Self {
        Self { reader, prefix, span, table, known: Vec::new(), spans: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        self.spans.push((key, value.span()));
        Some(value)
    }

    fn wrong(&self, span: Range<usize>, key: &str, expected: &str, got: &str) {
        self.reader.add(span, self.path_of(key), format!("expected {expected}, {got}"));
    }

    /// A key with its sections.
    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A mistake about a key's value as a whole.
    pub(super) fn mistake(&self, key: &str, message: &str) {
        let span =
            self.spans.iter().find(|(known, _)| *known == key).map_or(self.span.clone(), |(_, span)| span.clone());
        self.reader.add(span, self.path_of(key), message.to_owned());
    }

    /// Whether a key that was asked for stands there, be it right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.spans.iter().any(|(known, _)| *known == key)
    }

    /// A whole section that must not be there.
    pub(super) fn unused(self, message: &str) {
        if !self.table.is_empty() {
            self.reader.add(self.span.clone(), self.prefix.trim_end_matches('.').to_owned(), message.to_owned());
        }
    }

    /// Reports a path that leads nowhere.
    pub(super) fn no_file(&self, key: &str, path: &Path) {
        self.mistake(key, &format!("there is no file {}", path.display().to_string().escape_debug()));
    }

    /// A string that must be there and that `parse` must accept.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.wrong(self.span.clone(), key, expected, "but the key is missing");
            return None;
        }
        self.optional(key, expected, parse)
    }

    /// A string that `parse` must accept if it is there.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let span = value.span();
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            other => Err(describe(other)),
        };
        parsed.map_err(|got| self.wrong(span, key, expected, &got)).ok()
    }

    /// A path.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, "a path", parse_path)
    }

    /// A path that must be there.
    pub(super) fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.required(key, "a path", parse_path)
    }

    /// A path to a file that exists.
    pub(super) fn existing_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if !path.is_file() {
            self.no_file(key, &path);
        }
        Some(path)
    }

    /// A path to a secret. A relative one may name a credential of the service, which only the service can see.
    pub(super) fn secret_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if path.is_absolute() && !path.is_file() {
            self.no_file(key, &path);
        }
        Some(path)
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else { return default };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        self.wrong(value.span(), key, "true or false", &describe(value.get_ref()));
        default
    }

    /// A moment, as text or as TOML's own date; `None` if the key is not there.
    pub(super) fn moment(&mut self, key: &'static str) -> Option<SystemTime> {
        let value = self.take(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Datetime(date) => Some(date.to_string()),
            _ => None,
        };
        let parse = |text: String| {
            // A date alone is its first moment.
            let text = if text.len() == DATE_LEN { text + "T00:00:00Z" } else { text };
            humantime::parse_rfc3339(&text).ok()
        };
        let moment = text.and_then(parse);
        if moment.is_none() {
            let expected = "a date such as \"2027-01-31\" or \"2027-01-31T00:00:00Z\" (UTC)";
            self.wrong(value.span(), key, expected, &describe(value.get_ref()));
        }
        moment
    }

    /// An array of strings; `None` if the key is not there or one of them is wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(value.span(), key, &format!("an array of strings, each {expected}"), &describe(value.get_ref()));
            return None;
        };
        let mut parsed = Vec::new();
        for item in items {
            let value = match item.get_ref() {
                DeValue::String(text) => parse(text),
                _ => None,
            };
            if value.is_none() {
                self.wrong(item.span(), key, expected, &describe(item.get_ref()));
            }
            parsed.push(value);
        }
        parsed.into_iter().collect()
    }

    /// A whole number between two bounds.
    pub(super) fn whole(&mut self, key: &'static str, least: u64, most: u64, default: u64) -> u64 {
        let Some(value) = self.take(key) else { return default };
        let number = match value.get_ref() {
            DeValue::Integer(number) => integer(number),
            _ => None,
        };
        self.bounded(&value, key, number, least, most, default, &format!("a whole number from {least} to {most}"))
    }

    /// A number of bytes: a whole number, or text with a unit such as `"256KiB"`.
    pub(super) fn bytes(&mut self, key: &'static str, least: u64, most: u64, default: u64) -> u64 {
        let Some(value) = self.take(key) else { return default };
        let number = match value.get_ref() {
            DeValue::Integer(number) => integer(number),
            DeValue::String(text) => parse_bytes(text),
            _ => None,
        };
        let expected = format!("bytes, such as 65536 or \"64KiB\", from {least} to {most}");
        self.bounded(&value, key, number, least, most, default, &expected)
    }

    /// A duration such as `"10s"`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        least: Duration,
        most: Duration,
        default: Duration,
    ) -> Duration {
        let Some(value) = self.take(key) else { return default };
        let duration = match value.get_ref() {
            DeValue::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let expected = format!(
            "a duration such as \"10s\", from {} to {}",
            humantime::format_duration(least),
            humantime::format_duration(most)
        );
        self.bounded(&value, key, duration, least, most, default, &expected)
    }

    #[expect(clippy::too_many_arguments, reason = "private, and a struct for it would be longer")]
    fn bounded<T: PartialOrd + Copy>(
        &self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        found: Option<T>,
        least: T,
        most: T,
        default: T,
        expected: &str,
    ) -> T {
        match found {
            Some(found) if found >= least && found <= most => found,
            _ => {
                self.wrong(value.span(), key, expected, &describe(value.get_ref()));
                default
            }
        }
    }

    /// A table of its own; empty if it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let prefix = format!("{}{key}.", self.prefix);
        let Some(value) = self.take(key) else { return Section::new(self.reader, prefix, 0..0, DeTable::new()) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Section::new(self.reader, prefix, span, table),
            other => {
                self.wrong(span.clone(), key, &format!("a section [{key}]"), &describe(&other));
                Section::new(self.reader, prefix, span, DeTable::new())
            }
        }
    }

    /// An array of tables; empty if it is not there.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        let items = match value.into_inner() {
            DeValue::Array(items) => items,
            other => {
                self.wrong(span, key, &format!("sections [[{key}]]"), &describe(&other));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    sections.push(Section::new(self.reader, format!("{}{key}[{index}].", self.prefix), span, table));
                }
                other => self.wrong(span, key, &format!("sections [[{key}]]"), &describe(&other)),
            }
        }
        sections
    }

    /// Whatever is left was never asked for.
    pub(super) fn finish(self) {
        for (key, _) in &self.table {
            let name = key.get_ref();
            let nearest = self.known.iter().map(|known| (distance(name, known), known)).min();
            let hint = match nearest {
                // Nearer than half of the name: else short names resemble everything.
                Some((distance, known)) if distance <= 3 && distance * 2 <= name.len() => {
                    format!("unknown key; did you mean \"{known}\"?")
                }
                _ => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.reader.add(key.span(), self.path_of(&name.escape_debug().to_string()), hint);
        }
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("got nothing".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// What was found.
pub(super) fn got(text: &str) -> String {
    format!("got {}", quoted(text))
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => got(text),
        DeValue::Integer(number) => format!("got {number}"),
        DeValue::Float(number) => format!("got {number}"),
        DeValue::Boolean(value) => format!("got {value}"),
        DeValue::Datetime(date) => format!("got {date}"),
        DeValue::Array(_) => "got an array".to_owned(),
        DeValue::Table(_) => "got a section".to_owned(),
    }
}

fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let digits = digits.trim_end();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// How many single-character edits lie between two keys (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
