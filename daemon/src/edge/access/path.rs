//! Which paths a rule allows, whatever the service makes of a path.
//!
//! Services read one path in several ways: they decode it once or twice, resolve dot segments, merge slashes, drop `;` with
//! parameters, or take a backslash for a slash. A request passes only if its path is allowed in all these readings:
//!
//! - The *plain* reading splits at `/` and decodes each segment once. It begins with the segments of the allowed path. These
//!   have no character with a second meaning, so every other reading begins with them too.
//! - The *eager* reading does all of it at once. It has no dot segment. So no reading climbs out of the allowed path.

use std::borrow::Cow;

use cok_proto::rules::PathPrefix;

/// The longest path that is read eagerly; a longer one is refused. It takes a few microseconds.
const LONGEST: usize = 8 * 1024;
/// How often a path is decoded at most until nothing is encoded any more; a path that needs more is refused.
const ROUNDS: usize = 4;

/// Whether one of the rules allows this path, which is the target of a request without its query.
pub(super) fn is_allowed<'a>(path: &[u8], mut allowed: impl Iterator<Item = &'a PathPrefix> + Clone) -> bool {
    if allowed.clone().any(|prefix| *prefix == PathPrefix::root()) {
        return true;
    }
    let Some(segments) = plain(path) else { return false };
    allowed.any(|prefix| begins_with(&segments, prefix)) && climbs_nowhere(path)
}

/// The segments of the plain reading. `None` for a path that is none, has a broken escape, or is no UTF-8: services would
/// read it in ways of their own.
fn plain(path: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    let segments = path.strip_prefix(b"/")?.split(|byte| *byte == b'/');
    segments.map(|segment| text(decode(segment)?)).collect()
}

fn text(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn begins_with(segments: &[Cow<'_, str>], prefix: &PathPrefix) -> bool {
    let prefix = prefix.as_str().trim_start_matches('/');
    if prefix.is_empty() {
        return true;
    }
    let below_only = prefix.ends_with('/');
    let mut rest = segments.iter();
    prefix.trim_end_matches('/').split('/').all(|wanted| rest.next().is_some_and(|segment| segment == wanted))
        && (!below_only || rest.next().is_some())
}

/// Whether no reading of the path has a dot segment, or a character that ends strings.
fn climbs_nowhere(path: &[u8]) -> bool {
    if path.iter().all(|byte| is_simple(*byte)) {
        return true;
    }
    if path.len() > LONGEST {
        return false;
    }
    let mut read = Cow::Borrowed(path);
    for round in 0..=ROUNDS {
        let Ok(text) = std::str::from_utf8(&read) else { return false };
        if text.chars().any(char::is_control) || text.split(is_slash).any(is_dots) {
            return false;
        }
        let Some(next) = decode(&read) else {
            // What is left of the escapes is broken, which only the first reading refuses.
            return round > 0;
        };
        if next == read {
            return true;
        }
        read = Cow::Owned(next.into_owned());
    }
    false
}

/// Bytes with one meaning. A path of them has no dot segment, since it has no dot.
fn is_simple(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'~' | b'=' | b',' | b'@' | b'+')
}

/// Slashes, and what some services take for one: also the wide forms that Unicode has.
fn is_slash(char: char) -> bool {
    matches!(
        char,
        '/' | '\\' | '\u{2044}' | '\u{2215}' | '\u{29f5}' | '\u{29f8}' | '\u{fe68}' | '\u{ff0f}' | '\u{ff3c}'
    )
}

/// Whether a segment has nothing but dots, also several in one character. Parameters, a query and white space do not count,
/// since services drop them.
fn is_dots(segment: &str) -> bool {
    let is_dot = |char| matches!(char, '.' | '\u{2024}'..='\u{2026}' | '\u{fe52}' | '\u{ff0e}');
    let segment = segment.split([';', '?', '#', '\u{ff1b}']).next().unwrap_or_default();
    segment.contains(is_dot) && segment.chars().all(|char| is_dot(char) || char.is_whitespace())
}

/// Decodes percent-encoding once. `None` if an escape is broken.
fn decode(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !bytes.contains(&b'%') {
        return Some(Cow::Borrowed(bytes));
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(*byte);
        }
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
