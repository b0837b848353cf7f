//! One table of a file of settings: a method for each kind of value.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use super::values::{describe, distance, integer, parse_bytes};

/// `2027-01-31`.
const DATE_LEN: usize = 10;

/// One table of a file. [`Section::finish`] reports every key that the program has not asked for.
#[derive(Debug)]
#[must_use = "`finish` reports unknown keys"]
pub struct Section<'a> {
    reader: &'a Reader<'a>,
    /// Its own key with a dot, or nothing for the root.
    prefix: String,
    span: Range<usize>,
    table: DeTable<'a>,
    known: Vec<&'static str>,
    spans: Vec<(&'static str, Range<usize>)>,
}

impl<'a> Section<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, prefix: String, span: Range<usize>, table: DeTable<'a>) -> Self {
        Self { reader, prefix, span, table, known: Vec::new(), spans: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.reader.asked(self.path_of(key));
        let value = self.table.remove(key)?;
        self.spans.push((key, value.span()));
        Some(value)
    }

    fn wrong(&self, span: Range<usize>, key: &str, expected: &str, got: &str) {
        self.reader.add(span, self.path_of(key), &format!("expected {expected}, {got}"));
    }

    /// A key with its sections.
    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A mistake about a key's value as a whole.
    pub fn mistake(&self, key: &str, message: &str) {
        let span =
            self.spans.iter().find(|(known, _)| *known == key).map_or(self.span.clone(), |(_, span)| span.clone());
        self.reader.add(span, self.path_of(key), message);
    }

    /// A mistake about the name of the section itself.
    pub fn misnamed(&self, message: &str) {
        self.reader.add(self.span.clone(), self.prefix.trim_end_matches('.').to_owned(), message);
    }

    /// Whether a key that was asked for stands there, be it right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.spans.iter().any(|(known, _)| *known == key)
    }

    /// A key that must not be there. Messages do not name it among the known ones, and do not quote its value.
    pub fn forbid(&mut self, key: &str, why: &str) {
        if let Some(value) = self.table.remove(key) {
            self.reader.add(value.span(), self.path_of(key), why);
        }
    }

    /// A whole section that must not be there.
    pub fn unused(self, message: &str) {
        if !self.table.is_empty() {
            self.reader.add(self.span.clone(), self.prefix.trim_end_matches('.').to_owned(), message);
        }
    }

    /// Reports a path that leads nowhere, or where this user may not look.
    pub fn no_file(&self, key: &str, path: &Path) {
        let shown = path.display().to_string();
        let shown = shown.escape_debug();
        let denied = std::fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        self.mistake(
            key,
            &if denied { format!("{shown} may not be read by this user") } else { format!("there is no file {shown}") },
        );
    }

    /// A string that must be there and that `parse` must accept.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.reader.asked(self.path_of(key));
            self.wrong(self.span.clone(), key, expected, "but the key is missing");
            return None;
        }
        self.optional(key, expected, parse)
    }

    /// A string that `parse` must accept if it is there.
    pub fn optional<T>(
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

    /// A string that `parse` must accept if it is there. The error of `parse` is the whole message.
    pub fn text<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::String(text) => parse(text).map_err(|error| self.mistake(key, &error)).ok(),
            other => {
                self.wrong(value.span(), key, "a string", &describe(other));
                None
            }
        }
    }

    /// A string as [`Section::text`] reads it, or a whole number, which `parse` gets in decimal digits.
    pub fn text_or_whole<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => integer(number).map(|number| number.to_string()),
            _ => None,
        };
        let Some(text) = text else {
            self.wrong(value.span(), key, "a string or a whole number", &describe(value.get_ref()));
            return None;
        };
        parse(&text).map_err(|error| self.mistake(key, &error)).ok()
    }

    /// A path.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, "a path", parse_path)
    }

    /// A path that must be there.
    pub fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.required(key, "a path", parse_path)
    }

    /// A path to a file that exists.
    pub fn existing_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if !path.is_file() {
            self.no_file(key, &path);
        }
        Some(path)
    }

    /// A path to a secret. A relative one may name a credential of the service, which only the service can see.
    pub fn secret_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if path.is_absolute() && !path.is_file() {
            self.no_file(key, &path);
        }
        Some(path)
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else { return default };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        self.wrong(value.span(), key, "true or false", &describe(value.get_ref()));
        default
    }

    /// A moment, as text or as TOML's own date; `None` if the key is not there.
    pub fn moment(&mut self, key: &'static str) -> Option<SystemTime> {
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
    pub fn list<T>(&mut self, key: &'static str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
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
    pub fn whole(&mut self, key: &'static str, least: u64, most: u64, default: u64) -> u64 {
        let Some(value) = self.take(key) else { return default };
        let number = match value.get_ref() {
            DeValue::Integer(number) => integer(number),
            _ => None,
        };
        self.bounded(&value, key, number, least, most, default, &format!("a whole number from {least} to {most}"))
    }

    /// A number of bytes: a whole number, or text with a unit such as `"256KiB"`.
    pub fn bytes(&mut self, key: &'static str, least: u64, most: u64, default: u64) -> u64 {
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
    pub fn duration(&mut self, key: &'static str, least: Duration, most: Duration, default: Duration) -> Duration {
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

    /// A table in this table; empty if it is not there.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
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

    /// The tables in a table, with the names that the user has given them; empty if it is not there. `placeholder` stands for
    /// such a name in mistakes.
    pub fn sections(&mut self, key: &'static str, placeholder: &str) -> Vec<(String, Section<'a>)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        let items = match value.into_inner() {
            DeValue::Table(items) => items,
            other => {
                self.wrong(span, key, &format!("sections [{key}.{placeholder}]"), &describe(&other));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (name, item) in items {
            let path = format!("{}{key}.{}", self.prefix, name.get_ref().escape_debug());
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    let section = Section::new(self.reader, format!("{path}."), span, table);
                    sections.push((name.into_inner().into_owned(), section));
                }
                other => {
                    let message = format!("expected a section [{path}], {}", describe(&other));
                    self.reader.add(span, path, &message);
                }
            }
        }
        sections
    }

    /// An array of tables; empty if it is not there.
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
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

    /// Reports the keys that were not asked for.
    pub fn finish(self) {
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
            self.reader.add(key.span(), self.path_of(&name.escape_debug().to_string()), &hint);
        }
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("got nothing".to_owned()) } else { Ok(PathBuf::from(text)) }
}
