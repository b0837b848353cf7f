//! Share links: an address that lets its holder into a tunnel until a time.
//!
//! A link has a token in its query. The client signs it, the daemon verifies it and turns it into a cookie. This module has
//! the form of tokens and the text that is signed; the signature is HMAC-SHA256, which each end computes by itself.

use std::time::Duration;

pub use crate::rules::LinkId;
use crate::rules::{PathPrefix, hex, unhex};

/// The query parameter of a link.
pub const PARAMETER: &str = "cok_share";
/// The visitor's cookie. Its prefix has browsers take it only from this host, over HTTPS, for all paths.
pub const COOKIE: &str = "__Host-cok_share";
/// The longest time that a link may have left. A leaked one should not last for years.
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far the clocks of the machine that signs and of the daemon may differ where a link lasts its longest time.
pub const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// The text from which an installation derives the key of a name: this, then the name.
pub const KEY_CONTEXT: &str = "cok share key 1\n";
/// The length of a signature.
pub const SIGNATURE_LEN: usize = 32;

/// The version that tokens begin with.
const VERSION: &str = "1";

/// What a link allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The link.
    pub id: LinkId,
    /// The end, in seconds since 1970.
    pub expires: u64,
    /// The paths.
    pub path: PathPrefix,
}

/// A token as it was found in a link or a cookie. Its signature is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it claims to allow.
    pub grant: Grant,
    /// The signature over [`Grant::signed_text`].
    pub signature: [u8; SIGNATURE_LEN],
}

impl Grant {
    /// The text that is signed for the tunnel with this name.
    pub fn signed_text(&self, name: &str) -> String {
        format!("cok share link 1\n{name}\n{}\n{}\n{}", self.id, self.expires, self.path)
    }
}

impl Token {
    /// `1.ID.EXPIRES.PATH.SIGNATURE`, in characters that queries and cookies carry as they are. Id, path and signature are in
    /// hexadecimal digits; no path means the whole site.
    pub fn to_text(&self) -> String {
        let Grant { id, expires, path } = &self.grant;
        let path = if *path == PathPrefix::root() { String::new() } else { hex(path.as_str().as_bytes()) };
        format!("{VERSION}.{id}.{expires}.{path}.{}", hex(&self.signature))
    }

    /// Reads it. `None` if it is no token; there is one form of each.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (version, id) = (parts.next()?, parts.next()?);
        let (expires, path, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let path =
            if path.is_empty() { PathPrefix::root() } else { String::from_utf8(unhex(path)?).ok()?.parse().ok()? };
        let token = Self {
            grant: Grant { id: id.parse().ok()?, expires: expires.parse().ok()?, path },
            signature: unhex(signature)?.try_into().ok()?,
        };
        (token.to_text() == text).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b0b0b0b0b0b0b0b";

    #[test]
    fn a_token_has_one_form() {
        let signature = "5a".repeat(32);
        for (path, text) in [("/", ""), ("/docs", "2f646f6373"), ("/ü x", "2fc3bc2078")] {
            let text = format!("1.{ID}.1764345600.{text}.{signature}");
            let token = Token::parse(&text).unwrap();
            assert_eq!(
                token.grant,
                Grant { id: LinkId::new([11; 8]), expires: 1_764_345_600, path: path.parse().unwrap() }
            );
            assert_eq!((token.to_text(), token.signature), (text, [0x5a; 32]));
        }
        for text in [
            String::new(),
            format!("1.1..{signature}"),
            format!("1.0b.1..{signature}"),
            format!("2.{ID}.1..{signature}"),
            format!("1.{ID}.01..{signature}"),
            format!("1.{ID}.+1..{signature}"),
            format!("1.{ID}.1.2f.{signature}"),
            format!("1.{ID}.1.61.{signature}"),
            format!("1.{ID}.1..{}", "5A".repeat(32)),
            format!("1.{ID}.1..{signature}00"),
            format!("1.{ID}.1..{signature}."),
            format!("1.{ID}.99999999999999999999..{signature}"),
        ] {
            assert_eq!(Token::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn the_signed_text_names_all() {
        let grant = Grant { id: LinkId::new([1; 8]), expires: 7, path: "/x".parse().unwrap() };
        assert_eq!(grant.signed_text("demo"), "cok share link 1\ndemo\n0101010101010101\n7\n/x");
    }
}
