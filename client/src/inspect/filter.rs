//! Which requests a viewer wants to see. The page, scripts and the command line use the same words.

use std::time::Duration;

/// The names of all filters, for messages.
const NAMES: &str = "path, method, status, tunnel, text, min_ms, max_ms";

/// The requests that a viewer wants to see: those that meet all conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// A part of the path.
    pub(super) path: Option<String>,
    /// One of these methods.
    pub(super) methods: Vec<String>,
    /// One of these statuses.
    pub(super) statuses: Vec<Status>,
    /// A tunnel's name, or a part of its address.
    pub(super) tunnel: Option<String>,
    /// A text anywhere in it, in lower case.
    pub(super) text: Option<String>,
    /// How long it takes at least, and at most.
    pub(super) min: Option<Duration>,
    pub(super) max: Option<Duration>,
}

/// A status that a viewer wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// This one.
    Code(u16),
    /// Those that begin with this digit.
    Class(u16),
    /// No end yet.
    Open,
    /// No response, or an incomplete one.
    Failed,
}

impl Filter {
    /// Adds a condition. Returns `false` if there is no such one.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "path" => self.path = Some(value.to_owned()),
            "method" => self.methods = value.split(',').map(|method| method.trim().to_ascii_uppercase()).collect(),
            "status" => self.statuses = value.split(',').map(Status::parse).collect::<Result<_, _>>()?,
            "tunnel" => self.tunnel = Some(value.to_ascii_lowercase()),
            "text" => self.text = Some(value.to_lowercase()),
            "min_ms" => self.min = Some(milliseconds(name, value)?),
            "max_ms" => self.max = Some(milliseconds(name, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The condition of a word on the command line, as a name and a value: `status=5xx`. A word without `=` is a text.
    pub(crate) fn condition(word: &str) -> Result<(String, String), String> {
        let (name, value) = word.split_once('=').unwrap_or(("text", word));
        let name = name.replace('-', "_");
        if Self::default().set(&name, value)? {
            return Ok((name, value.to_owned()));
        }
        Err(format!("\"{name}\" is no filter; there are {NAMES}, and any other text goes behind text="))
    }
}

impl Status {
    fn parse(text: &str) -> Result<Self, String> {
        let class = text.strip_suffix("xx").and_then(|digit| digit.parse().ok());
        match (text.trim(), class) {
            ("open", _) => Ok(Self::Open),
            ("failed", _) => Ok(Self::Failed),
            (_, Some(class @ 1..=9)) => Ok(Self::Class(class)),
            (code, _) => match code.parse() {
                Ok(code @ 100..=999) => Ok(Self::Code(code)),
                _ => Err(format!("\"{text}\" is no status such as 404, 5xx, open or failed")),
            },
        }
    }
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, String> {
    value.parse().map(Duration::from_millis).map_err(|_| format!("{name}: \"{value}\" is no number of milliseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_mistakes_named() {
        let mut filter = Filter::default();
        for (name, value) in [("status", "404,5xx,open"), ("method", "get, Put"), ("min_ms", "20"), ("text", "ÄB")] {
            assert_eq!(filter.set(name, value), Ok(true));
        }
        assert_eq!(filter.statuses, [Status::Code(404), Status::Class(5), Status::Open]);
        assert_eq!(
            (filter.methods.as_slice(), filter.min),
            (&["GET", "PUT"].map(str::to_owned)[..], Some(Duration::from_millis(20)))
        );
        assert_eq!(filter.text.as_deref(), Some("äb"));
        assert_eq!(filter.set("limit", "1"), Ok(false));
        for (name, value) in [("status", "ok"), ("status", "0xx"), ("max_ms", "1s")] {
            assert!(filter.set(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn a_word_is_a_condition_or_a_text() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(Filter::condition("min-ms=5"), pair("min_ms", "5"));
        assert_eq!(Filter::condition("alice"), pair("text", "alice"));
        assert!(Filter::condition("pth=/x").unwrap_err().contains("min_ms"));
    }
}
