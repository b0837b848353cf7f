//! The queries of requests to the inspector.

use percent_encoding::percent_decode_str;

use crate::inspect::filter::Filter;
use crate::inspect::secrets::Secrets;

/// The results of a list, unless the query says otherwise, and the most that it may ask for.
const USUAL_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// What a query asks for.
#[derive(Debug)]
pub(super) struct Query {
    /// The requests that are meant.
    pub(super) filter: Filter,
    /// The most results.
    pub(super) limit: usize,
    /// Only requests with smaller numbers.
    pub(super) before: Option<u64>,
    /// Only what is behind this number.
    pub(super) after: Option<u64>,
    /// Whether secrets are shown.
    pub(super) secrets: Secrets,
    /// Wait until it has ended.
    pub(super) waits: bool,
    /// Without content codings.
    pub(super) decoded: bool,
}

impl Query {
    /// Reads a query.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self {
            filter: Filter::default(),
            limit: USUAL_LIMIT,
            before: None,
            after: None,
            secrets: Secrets::Masked,
            waits: false,
            decoded: false,
        };
        for (name, value) in pairs(text) {
            let number = || value.parse().map_err(|_| format!("{name}: \"{value}\" is no whole number"));
            let flag = || match value.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("{name}: \"{value}\" is neither true nor false")),
            };
            match name.as_str() {
                "limit" => query.limit = usize::try_from(number()?).unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT),
                "before" => query.before = Some(number()?),
                "after" => query.after = Some(number()?),
                "reveal" => query.secrets = if flag()? { Secrets::Revealed } else { Secrets::Masked },
                "wait" => query.waits = flag()?,
                "decoded" => query.decoded = flag()?,
                _ if value.is_empty() => {}
                _ => {
                    if !query.filter.set(&name, &value)? {
                        return Err(format!("\"{name}\" is not a parameter here"));
                    }
                }
            }
        }
        Ok(query)
    }
}

/// The parameters of a query (WHATWG URL, section 5.1).
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_mistakes_named() {
        let query = Query::parse("path=%2Fa+b&limit=5&before=9&reveal&status=&text=x%26y").unwrap();
        assert_eq!((query.filter.path.as_deref(), query.filter.text.as_deref()), (Some("/a b"), Some("x&y")));
        assert_eq!((query.limit, query.before, query.secrets), (5, Some(9), Secrets::Revealed));
        assert_eq!(Query::parse("limit=999999").unwrap().limit, MAX_LIMIT);
        for wrong in ["limit=-1", "colour=red", "status=ok", "wait=maybe"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
