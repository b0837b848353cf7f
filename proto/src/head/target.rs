//! The target of a request: opaque bytes, as the visitor sent them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::uri::PathAndQuery;

/// A request target in origin form, or `*` (RFC 9112, section 3.2), byte for byte as the visitor sent it.
///
/// It begins with `/` unless it is `*`. It has no fragment, no space and no control character. Any other byte may stand in
/// it, also one that RFC 3986 wants percent-encoded: services get such bytes from many programs.
#[derive(Clone)]
pub struct Target(Form);

#[derive(Clone)]
enum Form {
    /// A target that the HTTP library takes.
    Library(PathAndQuery),
    /// A target that it refuses.
    Bytes(Bytes),
}

/// The bytes are no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid target")]
pub struct InvalidTarget;

impl Target {
    /// Takes a whole target.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, InvalidTarget> {
        let is_plain = |byte: &u8| *byte > b' ' && *byte != 0x7F && *byte != b'#';
        if !(bytes.starts_with(b"/") || bytes == "*") || !bytes.iter().all(is_plain) {
            return Err(InvalidTarget);
        }
        Ok(Self(PathAndQuery::from_maybe_shared(bytes.clone()).map_or(Form::Bytes(bytes), Form::Library)))
    }

    /// The target of a site's first page.
    pub fn root() -> Self {
        Self(Form::Library(PathAndQuery::from_static("/")))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Library(target) => target.as_str().as_bytes(),
            Form::Bytes(target) => target,
        }
    }

    /// Its form in the HTTP library. `None` if the library refuses it, for example because it is not UTF-8.
    pub fn path_and_query(&self) -> Option<&PathAndQuery> {
        match &self.0 {
            Form::Library(target) => Some(target),
            Form::Bytes(_) => None,
        }
    }

    /// A text for people. Bytes that are not UTF-8 are replaced.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<PathAndQuery> for Target {
    /// Puts a `/` before a query without a path, which the library allows.
    fn from(target: PathAndQuery) -> Self {
        let text = target.as_str();
        if text.starts_with('/') || text == "*" {
            return Self(Form::Library(target));
        }
        let bytes = Bytes::from([b"/", text.as_bytes()].concat());
        Self(PathAndQuery::from_maybe_shared(bytes.clone()).map_or(Form::Bytes(bytes), Form::Library))
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Target {}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bytes: &'static [u8]) -> Result<Target, InvalidTarget> {
        Target::from_bytes(Bytes::from_static(bytes))
    }

    #[test]
    fn bytes_stay_as_they_are() {
        for bytes in [
            &b"/"[..],
            b"*",
            b"/a%20b?q=1",
            b"//x/../y;z",
            b"/?",
            b"/query?query=up{job=\"x\"}",
            b"/<a>`b`|^\\?<>`|^\\\"",
            "/grüße?ü=ß".as_bytes(),
            b"/caf\xe9?caf\xe9",
        ] {
            let target = target(bytes).unwrap();
            assert_eq!(target.as_bytes(), bytes);
            assert!(target.path_and_query().is_none_or(|library| library.as_str().as_bytes() == bytes));
        }
        assert!(target(b"/a").unwrap().path_and_query().is_some());
        assert!(target(b"/caf\xe9").unwrap().path_and_query().is_none());
    }

    #[test]
    fn other_forms_are_refused() {
        for bytes in [
            &b""[..],
            b"a",
            b"?q",
            b"**",
            b"*/",
            b"http://a/",
            b"/a b",
            b"/a\tb",
            b"/a\0",
            b"/a\x7f",
            b"/a#b",
            b"/\r\n",
        ] {
            assert_eq!(target(bytes), Err(InvalidTarget), "{bytes:?}");
        }
    }

    #[test]
    fn a_query_without_a_path_gets_one() {
        assert_eq!(Target::from(PathAndQuery::from_static("?q=1")).as_bytes(), b"/?q=1");
    }
}
