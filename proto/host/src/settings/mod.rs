//! Reads a TOML file of settings key by key, and collects every mistake with its file, line and key.
//!
//! It knows no keys of its own: a program asks for each, says what it expects, and then looks at the mistakes.

mod section;
mod values;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;

use toml::de::DeTable;

pub use self::section::Section;
pub use self::values::{got, parse_bytes};

/// One thing that is wrong in a file of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the caller names it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key with its sections; empty for a syntax error.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
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

/// Whether a file that could not be read is its user's mistake: it is missing, unreadable or no text. Other failures, such as
/// those of a disk, may pass.
pub fn is_mistake(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | InvalidData | IsADirectory | NotADirectory)
}

/// A text and the mistakes found in it so far.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
    /// Every key that was asked for, with its sections.
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    /// Takes the text; `file` names it in mistakes.
    pub fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, mistakes: RefCell::default(), asked: RefCell::default() }
    }

    /// The top of the document. A syntax error is the only mistake of its file.
    pub fn root(&self) -> Result<Section<'_>, Vec<Mistake>> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Section::new(self, String::new(), 0..0, table.into_inner())),
            Err(error) => {
                self.add(error.span().unwrap_or(0..0), String::new(), error.message());
                Err(self.mistakes())
            }
        }
    }

    /// The mistakes so far, in the order of their lines.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.borrow().clone();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }

    /// The keys that the program has asked for so far, with their sections, be they in the text or not. Of tables with a name
    /// or a number of the user's, as in `keys[0].name`, there are only those in the text. For tests of documentation.
    pub fn known(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    fn asked(&self, key: String) {
        self.asked.borrow_mut().insert(key);
    }

    fn add(&self, span: Range<usize>, key: String, message: &str) {
        // A mistake is one line. TOML's own messages have several, and a program's may quote a value that has.
        let message = message.lines().collect::<Vec<_>>().join("; ");
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        self.mistakes.borrow_mut().push(Mistake { file: self.file.to_owned(), line, key, message });
    }
}

#[cfg(test)]
mod tests;
