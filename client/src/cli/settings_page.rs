//! The manual page of a configuration file. Its one source is the example file, which names every key with its meaning.
//!
//! The example is TOML in this form: a line `key = value` with a comment behind it, which goes on in lines with only a comment
//! behind space. A line that begins with `# key = ` is a key without a default. All other comments are paragraphs about what
//! follows them.

use std::fs;
use std::io;
use std::path::Path;

use clap_mangen::roff::{Roff, bold, roman};

use super::man_pages::entry;

/// What the page says besides the example.
#[derive(Debug)]
pub struct SettingsPage {
    /// The page's name, such as `client.toml`.
    pub name: &'static str,
    /// What it is, in half a line.
    pub what: &'static str,
    /// Where the file is.
    pub path: &'static str,
    /// Paragraphs before the keys.
    pub description: &'static [&'static str],
    /// The example file.
    pub example: &'static str,
    /// Other pages.
    pub see_also: &'static str,
}

/// A part of the example.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A paragraph.
    Text(String),
    /// The beginning of a section, with its brackets.
    Section(String),
    /// A key.
    Key {
        key: String,
        value: String,
        /// Whether the value is the default.
        is_set: bool,
        text: String,
    },
}

impl SettingsPage {
    /// Writes the page into a folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(format!("{}.5", self.name)), self.render())
    }

    fn render(&self) -> String {
        let mut roff = Roff::new();
        let version = concat!("cok ", env!("CARGO_PKG_VERSION"));
        roff.control("TH", [self.name, "5", "", version, ""]);
        roff.control("SH", ["NAME"]).text([roman(format!("{} - {}", self.name, self.what))]);
        roff.control("SH", ["SYNOPSIS"]).text([bold(self.path)]);
        roff.control("SH", ["DESCRIPTION"]);
        for paragraph in self.description {
            roff.control("PP", []).text([roman(*paragraph)]);
        }
        roff.control("SH", ["KEYS"]);
        for part in parts(self.example) {
            match part {
                Part::Text(text) => drop(roff.control("PP", []).text([roman(text)])),
                Part::Section(section) => drop(roff.control("SH", [section.as_str()])),
                Part::Key { key, value, is_set, text } => {
                    let note = if is_set { "" } else { " (Not set by default.)" };
                    entry(&mut roff, &format!("{key} = {value}"), &[roman(format!("{text}{note}").trim_start())]);
                }
            }
        }
        roff.control("SH", ["SEE ALSO"]).text([roman(self.see_also)]);
        roff.render()
    }

    /// The keys that the page describes, with their sections, such as `tunnels.NAME.target`.
    pub fn keys(&self) -> Vec<String> {
        let mut prefix = String::new();
        let mut keys = Vec::new();
        for part in parts(self.example) {
            match part {
                Part::Section(section) => prefix = format!("{}.", section.trim_matches(['[', ']'])),
                Part::Key { key, .. } => keys.push(format!("{prefix}{key}")),
                Part::Text(_) => {}
            }
        }
        keys
    }
}

/// Takes an example apart. Text before a section's line stands in that section.
fn parts(example: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut paragraph = String::new();
    for line in example.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, rest)) = bare.split_once(" = ")
            && !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            finish(&mut paragraph, &mut parts);
            let (value, text) = rest.split_once("  #").unwrap_or((rest, ""));
            let (value, text) = (value.trim().to_owned(), text.trim().to_owned());
            parts.push(Part::Key { key: key.to_owned(), value, is_set: bare == line, text });
        } else if bare.starts_with('[') {
            let text = std::mem::take(&mut paragraph);
            parts.push(Part::Section(bare.split_once("  #").map_or(bare, |(section, _)| section).trim().to_owned()));
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
        } else if let (true, Some(Part::Key { text, .. })) = (line.starts_with(' '), parts.last_mut()) {
            append(text, line);
        } else if line.trim().is_empty() {
            finish(&mut paragraph, &mut parts);
        } else {
            append(&mut paragraph, line);
        }
    }
    finish(&mut paragraph, &mut parts);
    parts
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(line.trim_start_matches([' ', '#']).trim_end());
}

fn finish(paragraph: &mut String, parts: &mut Vec<Part>) {
    if !paragraph.is_empty() {
        parts.push(Part::Text(std::mem::take(paragraph)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_taken_apart() {
        let example = "# First.\n\na = 1    # one,\n         # and on\n# b = \"#x\"   # two\n\n# About s:\n# more.\n[s]\nc = [] # no\n";
        let key = |key: &str, value: &str, is_set, text: &str| Part::Key {
            key: key.to_owned(),
            value: value.to_owned(),
            is_set,
            text: text.to_owned(),
        };
        assert_eq!(
            parts(example),
            [
                Part::Text("First.".to_owned()),
                key("a", "1", true, "one, and on"),
                key("b", "\"#x\"", false, "two"),
                Part::Section("[s]".to_owned()),
                Part::Text("About s: more.".to_owned()),
                key("c", "[] # no", true, ""),
            ]
        );
    }
}
