//! Names and keys as types: strings are checked once, at the edge, and only checked values travel inside.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cok_http::name::{InvalidLabel, MAX_LABEL, check_label, parse_label};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A DNS name in text is at most this long.
const MAX_NAME: usize = 253;

/// How labels begin that stand for one in another script (RFC 5890, section 2.3.2.1).
const ENCODED: &str = "xn--";

/// A name or key that breaks a rule; the message says which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidName {
    /// It is no DNS label, or has a part that is none.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    /// It breaks this other rule.
    #[error("{0}")]
    Rule(&'static str),
}

/// A DNS host name (RFC 1123, section 2.1), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hostname(String);

impl Hostname {
    /// Checks `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.len() > MAX_NAME {
            return Err(InvalidName::Rule("a host name has at most 253 characters"));
        }
        if !text.contains('.') {
            return Err(InvalidName::Rule("a host name has at least two labels, like \"tunnel.example.com\""));
        }
        text.split('.').try_for_each(check_label)?;
        // What ends in a number is an address, or is taken for one by browsers.
        if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(InvalidName::Rule("a host name is not an address: its last label is not a number"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tunnel's name: one label under the base domain, in lower case. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subdomain(Arc<str>);

impl Subdomain {
    /// Checks `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidName> {
        Ok(Self(parse_label(text)?.into()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it encodes a name in another script (`xn--`, RFC 5890), which may look like any other.
    pub(crate) fn is_encoded(&self) -> bool {
        self.0.starts_with(ENCODED)
    }
}

impl fmt::Display for Subdomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the daemon is reached from outside: its domain, and the port of HTTPS.
#[derive(Clone, Debug)]
pub(crate) struct PublicAddress {
    /// The domain; tunnels are `<name>.<domain>`.
    pub(crate) domain: Hostname,
    /// The port of HTTPS.
    pub(crate) port: u16,
}

impl PublicAddress {
    /// The address of a name.
    pub(crate) fn url(&self, name: &Subdomain) -> String {
        format!("https://{name}.{}{}", self.domain, self.suffix())
    }

    /// The daemon's own address, which clients take as `--server`.
    pub(crate) fn server_url(&self) -> String {
        format!("https://{}{}", self.domain, self.suffix())
    }

    /// The port as a URL has it; empty where it is the scheme's own.
    pub(crate) fn suffix(&self) -> String {
        if self.port == 443 { String::new() } else { format!(":{}", self.port) }
    }
}

/// Which names a key may have: a label in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubdomainPattern(String);

impl fmt::Display for SubdomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SubdomainPattern {
    /// Checks `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.matches('*').count() > 1 {
            return Err(InvalidName::Rule("a pattern has at most one *"));
        }
        check_label(&text.replace('*', "x"))?;
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Whether a key with this pattern may have `name`.
    pub(crate) fn matches(&self, name: &Subdomain) -> bool {
        let name = name.as_str();
        match self.0.split_once('*') {
            None => self.0 == name,
            Some((before, after)) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
        }
    }

    /// Whether the pattern is this name itself, without a `*`.
    pub(crate) fn is(&self, name: &Subdomain) -> bool {
        self.0 == name.as_str()
    }

    /// Whether the pattern is about encoded names of other scripts (`xn--`, RFC 5890).
    pub(crate) fn is_encoded(&self) -> bool {
        self.0.starts_with(ENCODED)
    }

    /// A name of this pattern, with as much of `filler` for the `*` as a label has room for.
    pub(crate) fn fill(&self, filler: &str) -> Option<Subdomain> {
        let room = (MAX_LABEL + 1).saturating_sub(self.0.len());
        let filler = filler.get(..room).unwrap_or(filler);
        Subdomain::parse(&self.0.replace('*', filler)).ok()
    }
}

/// A random id of 128 bits in hexadecimal digits, which cannot be guessed.
pub(crate) fn random_id() -> Result<String, getrandom::Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;
    Ok(format!("{:032x}", u128::from_be_bytes(id)))
}

/// An API key as its owner has it. Never stored, never shown.
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// A new key of 256 random bits.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self(format!("cok_{}", URL_SAFE_NO_PAD.encode(secret))))
    }

    /// Likewise, with its id before the secret.
    pub(crate) fn generate_for(id: &str) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self(format!("cok_{id}_{}", URL_SAFE_NO_PAD.encode(secret))))
    }

    /// The key's text, to be shown once.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub(crate) fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// SHA-256 of a key's text. Keys are random and long, so a plain hash is as good as a slow one.
#[derive(Clone, Debug)]
pub(crate) struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a key's text.
    pub(crate) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidName> {
        const WRONG: InvalidName = InvalidName::Rule("a SHA-256 digest has 64 hexadecimal digits");
        // Digits are checked here: `from_str_radix` alone would also take a sign.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(digest))
    }

    /// The digits.
    pub(crate) fn to_hex(&self) -> String {
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }
}

impl PartialEq for KeyDigest {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_dns_rules() {
        for good in ["a", "demo", "Demo-2", "0x", &"a".repeat(63)] {
            assert!(Subdomain::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a_b", "ü", "a b", &"a".repeat(64)] {
            assert!(Subdomain::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Subdomain::parse("Demo").unwrap().as_str(), "demo");
        for bad in
            ["localhost", "127.0.0.1", "a.1", "a..b", ".a.b", "a.b.", "a b.c", &format!("{}.b", "a.".repeat(126))]
        {
            assert!(Hostname::parse(bad).is_err(), "{bad}");
        }
        assert!(Hostname::parse("cok.localhost").is_ok());
        assert_eq!(Hostname::parse("1.Example.COM").unwrap().as_str(), "1.example.com");
    }

    #[test]
    fn patterns_match_whole_labels() {
        let name = |text| Subdomain::parse(text).unwrap();
        let pattern = SubdomainPattern::parse("demo-*").unwrap();
        assert!(
            pattern.matches(&name("demo-1")) && !pattern.matches(&name("demo")) && !pattern.matches(&name("xdemo-1"))
        );
        assert!(SubdomainPattern::parse("*").unwrap().matches(&name("anything")));
        assert!(!SubdomainPattern::parse("ab*ba").unwrap().matches(&name("aba")));
        assert!(SubdomainPattern::parse("a*b*").is_err());
        assert_eq!(pattern.fill("x1").unwrap(), name("demo-x1"));
        let long = format!("{}*", "a".repeat(60));
        assert_eq!(SubdomainPattern::parse(&long).unwrap().fill("xyz12").unwrap(), name(&long.replace('*', "xyz")));
    }

    #[test]
    fn keys_are_found_by_their_digest() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(KeyDigest::parse(&key.digest().to_hex()).unwrap(), KeyDigest::of(key.reveal()));
        assert_ne!(KeyDigest::of("a"), KeyDigest::of("b"));
        for bad in ["12", &"+f".repeat(32), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(KeyDigest::parse(bad).is_err(), "{bad}");
        }
        assert_eq!((&key.reveal()[..4], key.reveal().len()), ("cok_", 47));
        assert!(!format!("{key:?}").contains(key.reveal()));
    }
}
