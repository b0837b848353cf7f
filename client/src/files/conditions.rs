//! Conditional requests and ranges (RFC 9110, sections 13 and 14).

use std::fs::Metadata;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    AsHeaderName, HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    RANGE,
};

/// The first second that an HTTP date cannot have: that of the year 10000.
const END_OF_DATES: u64 = 253_402_300_800;

/// Which content a file has: its time of change and its length tell one content from another.
#[derive(Debug)]
pub(super) struct Version {
    tag: Option<String>,
    /// In whole seconds, as HTTP dates are.
    modified: Option<SystemTime>,
    /// The second of its change is over, so its date names this content alone (RFC 9110, section 8.8.2.2).
    is_settled: bool,
}

impl Version {
    /// Without a time of change before `now` there is nothing to compare.
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let tag =
            modified.map(|since| format!("\"{:x}.{:x}-{:x}\"", since.as_secs(), since.subsec_nanos(), metadata.len()));
        let seconds = modified.map(|since| since.as_secs()).filter(|seconds| *seconds < END_OF_DATES);
        let modified = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)).filter(|time| *time <= now);
        let is_settled = modified.is_some_and(|time| time + Duration::from_secs(1) <= now);
        Self { tag, modified, is_settled }
    }

    /// ETag.
    pub(super) fn tag(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.tag.as_deref()?).ok()
    }

    /// Last-Modified.
    pub(super) fn date(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(httpdate::fmt_http_date(self.modified?)).ok()
    }

    /// Whether a list of tags has this one. Only the weak comparison accepts a weak tag.
    fn is_among(&self, tags: &[&str], weak: bool) -> bool {
        tags.iter().flat_map(|list| list.split(',')).map(str::trim).any(|tag| {
            let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || Some(tag) == self.tag.as_deref()
        })
    }
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole file.
    Whole,
    /// These bytes of it; never none.
    Part(Range<u64>),
    /// What the visitor has already: 304.
    NotModified,
    /// It asked for another content: 412.
    Failed,
    /// The file has no such bytes: 416.
    Unsatisfiable,
}

/// Judges a GET or HEAD in the order of RFC 9110, section 13.2.2. A field that makes no sense does not count.
pub(super) fn judge(headers: &HeaderMap, version: &Version, length: u64, is_head: bool) -> Outcome {
    let tags = texts(headers, IF_MATCH);
    let is_unchanged = |since: SystemTime| version.modified.is_some_and(|modified| modified <= since);
    // Without a date of the file, the visitor's says nothing.
    let is_changed = |since: SystemTime| version.modified.is_some_and(|modified| modified > since);
    if !tags.is_empty() {
        if !version.is_among(&tags, false) {
            return Outcome::Failed;
        }
    } else if date(headers, IF_UNMODIFIED_SINCE).is_some_and(is_changed) {
        return Outcome::Failed;
    }
    let tags = texts(headers, IF_NONE_MATCH);
    if !tags.is_empty() {
        if version.is_among(&tags, true) {
            return Outcome::NotModified;
        }
    } else if date(headers, IF_MODIFIED_SINCE).is_some_and(is_unchanged) {
        return Outcome::NotModified;
    }
    match texts(headers, RANGE)[..] {
        [range] if !is_head && is_current(headers, version) => part(range, length),
        _ => Outcome::Whole,
    }
}

/// Whether the visitor's other part is of this content: If-Range has its tag or its exact date.
fn is_current(headers: &HeaderMap, version: &Version) -> bool {
    match texts(headers, IF_RANGE)[..] {
        [] => !headers.contains_key(IF_RANGE),
        [text] if text.starts_with('"') => Some(text) == version.tag.as_deref(),
        [text] => version.is_settled && httpdate::parse_http_date(text).ok() == version.modified,
        _ => false,
    }
}

/// One range of bytes. A list of several gets the whole file, as RFC 9110, section 14.2, allows.
fn part(text: &str, length: u64) -> Outcome {
    let Some(Some((first, last))) = text.strip_prefix("bytes=").map(|set| set.trim().split_once('-')) else {
        return Outcome::Whole;
    };
    let number = |text: &str| match text {
        "" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    let range = match (number(first), number(last)) {
        (Some(Some(first)), Some(None)) => first..length,
        (Some(Some(first)), Some(Some(last))) if first <= last => first..last.saturating_add(1).min(length),
        // An empty file is shorter than any part that is asked for, so all of it is what was meant.
        (Some(None), Some(Some(1..))) if length == 0 => return Outcome::Whole,
        (Some(None), Some(Some(count))) => length.saturating_sub(count)..length,
        _ => return Outcome::Whole,
    };
    if range.is_empty() { Outcome::Unsatisfiable } else { Outcome::Part(range) }
}

fn texts(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<&str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
}

fn date(headers: &HeaderMap, name: impl AsHeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn judged(fields: &[(&str, &str)], length: u64) -> Outcome {
        let modified = httpdate::parse_http_date(DATE).ok();
        judged_as(&Version { tag: Some("\"a\"".to_owned()), modified, is_settled: true }, fields, length)
    }

    fn judged_as(version: &Version, fields: &[(&str, &str)], length: u64) -> Outcome {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        judge(&headers, version, length, false)
    }

    #[test]
    fn a_date_counts_only_if_it_tells_contents_apart() {
        let range = ("range", "bytes=0-1");
        let modified = httpdate::parse_http_date(DATE).ok();
        let fresh = Version { tag: None, modified, is_settled: false };
        assert_eq!(judged_as(&fresh, &[("if-range", DATE), range], 10), Outcome::Whole);
        let undated = Version { tag: None, modified: None, is_settled: false };
        assert_eq!(judged_as(&undated, &[("if-unmodified-since", EARLIER)], 10), Outcome::Whole);
        assert_eq!(judged_as(&undated, &[("if-modified-since", LATER)], 10), Outcome::Whole);
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (range, expected) in [
            ("bytes=0-0", Outcome::Part(0..1)),
            ("bytes=2-", Outcome::Part(2..10)),
            ("bytes=2-100", Outcome::Part(2..10)),
            ("bytes=2-99999999999999999999999", Outcome::Part(2..10)),
            ("bytes=-3", Outcome::Part(7..10)),
            ("bytes=-100", Outcome::Part(0..10)),
            ("bytes=10-", Outcome::Unsatisfiable),
            ("bytes=99999999999999999999999-", Outcome::Unsatisfiable),
            ("bytes=-0", Outcome::Unsatisfiable),
            ("bytes=3-2", Outcome::Whole),
            ("bytes=0-1,4-5", Outcome::Whole),
            ("bytes=-", Outcome::Whole),
            ("bytes=+1-2", Outcome::Whole),
            ("bytes=a-b", Outcome::Whole),
            ("bytes=", Outcome::Whole),
            ("lines=0-1", Outcome::Whole),
            ("", Outcome::Whole),
        ] {
            assert_eq!(judged(&[("range", range)], 10), expected, "{range}");
        }
        assert_eq!(judged(&[("range", "bytes=0-")], 0), Outcome::Unsatisfiable);
        assert_eq!(judged(&[("range", "bytes=-1")], 0), Outcome::Whole);
        assert_eq!(judged(&[("range", "bytes=-0")], 0), Outcome::Unsatisfiable);
        assert_eq!(judged(&[("range", "bytes=0-1"), ("range", "bytes=2-3")], 10), Outcome::Whole);
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        let range = ("range", "bytes=0-1");
        for (fields, expected) in [
            (&[("if-none-match", "\"a\"")][..], Outcome::NotModified),
            (&[("if-none-match", "\"b\", W/\"a\"")], Outcome::NotModified),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], Outcome::NotModified),
            (&[("if-none-match", "*")], Outcome::NotModified),
            (&[("if-none-match", "\"b\"")], Outcome::Whole),
            (&[("if-none-match", "\"b\""), ("if-modified-since", LATER)], Outcome::Whole),
            (&[("if-modified-since", DATE)], Outcome::NotModified),
            (&[("if-modified-since", EARLIER)], Outcome::Whole),
            (&[("if-modified-since", "soon")], Outcome::Whole),
            (&[("if-match", "\"a\"")], Outcome::Whole),
            (&[("if-match", "W/\"a\"")], Outcome::Failed),
            (&[("if-match", "\"b\"")], Outcome::Failed),
            (&[("if-unmodified-since", EARLIER)], Outcome::Failed),
            (&[("if-unmodified-since", DATE)], Outcome::Whole),
            (&[("if-none-match", "\"a\""), range], Outcome::NotModified),
            (&[("if-range", "\"a\""), range], Outcome::Part(0..2)),
            (&[("if-range", "\"b\""), range], Outcome::Whole),
            (&[("if-range", "W/\"a\""), range], Outcome::Whole),
            (&[("if-range", DATE), range], Outcome::Part(0..2)),
            (&[("if-range", LATER), range], Outcome::Whole),
            (&[("if-range", "never"), range], Outcome::Whole),
        ] {
            assert_eq!(judged(fields, 10), expected, "{fields:?}");
        }
    }

    #[test]
    fn odd_times_of_change_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("f")).unwrap();
        let version = |time| {
            file.set_modified(time).unwrap();
            Version::of(&file.metadata().unwrap(), SystemTime::now())
        };
        let future = version(SystemTime::now() + Duration::from_secs(1000));
        assert!(future.date().is_none() && future.tag().is_some());
        assert!(version(UNIX_EPOCH - Duration::from_secs(1000)).tag().is_none());
        let now = version(SystemTime::now());
        assert!(now.date().is_some() && now.tag().is_some() && !now.is_settled);
        assert!(version(SystemTime::now() - Duration::from_secs(2)).is_settled);
    }
}
