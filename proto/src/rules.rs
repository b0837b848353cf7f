//! The rules of a tunnel: whom the daemon lets in, and how often.
//!
//! They travel in Bind as a JSON object. Unlike all other payloads, nothing in them is ignored: a daemon that skipped a rule
//! would open a protected service to everybody.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Map, Value};

use crate::rate::{MAX_COUNT, Rate, Unit};

/// The most pairs of user and password. Each request with a password is compared with all of them.
pub const MAX_CREDENTIALS: usize = 16;
/// The longest pair, in bytes with its colon.
pub const MAX_CREDENTIALS_LEN: usize = 256;
/// The most networks of each list. Each request is compared with all of them.
pub const MAX_NETWORKS: usize = 100;
/// The most paths.
pub const MAX_PATHS: usize = 32;
/// The longest path, in bytes.
pub const MAX_PATH_LEN: usize = 256;
/// The longest rules as JSON, in bytes. A Bind with them and a name fits into a control frame (16 KiB).
pub const MAX_RULES_LEN: usize = 12 * 1024;
/// The most revoked share links of a tunnel.
pub const MAX_REVOKED_LINKS: usize = 256;

/// What the daemon must do to a tunnel's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Users with their passwords. Visitors need one of them, or a share link.
    pub basic_auth: Vec<Credentials>,
    /// Networks that visitors may come from; none means all.
    pub allow_cidr: Vec<IpNet>,
    /// Networks that no visitor may come from.
    pub deny_cidr: Vec<IpNet>,
    /// Paths that visitors may ask for, with all below them; none means all.
    pub allow_path: Vec<PathPrefix>,
    /// What share links are verified with. Visitors need such a link, or a password.
    pub share: Option<ShareKey>,
    /// Share links that let no one in any more.
    pub share_revoked: Vec<LinkId>,
    /// How often each visitor's address may ask.
    pub rate: Option<Rate>,
}

impl Rules {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads `rules` of a Bind. The error is one line for a person, and quotes no secret.
    pub fn parse(rules: &Value) -> Result<Self, String> {
        let Value::Object(members) = rules else { return Err("the rules are not a JSON object".to_owned()) };
        let mut rules = Self::default();
        for (name, value) in members {
            match name.as_str() {
                "basic_auth" => rules.basic_auth = list(name, value, MAX_CREDENTIALS, Credentials::from_str)?,
                "allow_cidr" => rules.allow_cidr = list(name, value, MAX_NETWORKS, parse_network)?,
                "deny_cidr" => rules.deny_cidr = list(name, value, MAX_NETWORKS, parse_network)?,
                "allow_path" => rules.allow_path = list(name, value, MAX_PATHS, PathPrefix::from_str)?,
                "share" => rules.share = Some(text(name, value)?.parse().map_err(|why| invalid(name, why))?),
                "share_revoked" => {
                    rules.share_revoked = list(name, value, MAX_REVOKED_LINKS, LinkId::from_str)?;
                }
                "rate" => rules.rate = Some(rate(value).map_err(|why| invalid(name, why))?),
                unknown => return Err(format!("the rule {:?} is not supported", short(unknown))),
            }
        }
        Ok(rules)
    }

    /// The rules as Bind carries them.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        let mut add = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                members.insert(name.to_owned(), values.into());
            }
        };
        add("basic_auth", self.basic_auth.iter().map(|pair| pair.0.clone()).collect());
        add("allow_cidr", self.allow_cidr.iter().map(ToString::to_string).collect());
        add("deny_cidr", self.deny_cidr.iter().map(ToString::to_string).collect());
        add("allow_path", self.allow_path.iter().map(|path| path.0.clone()).collect());
        add("share_revoked", self.share_revoked.iter().map(ToString::to_string).collect());
        if let Some(key) = &self.share {
            members.insert("share".to_owned(), hex(&key.0).into());
        }
        if let Some(Rate { per_second, burst }) = self.rate {
            members.insert("rate".to_owned(), serde_json::json!({"per_second": per_second, "burst": burst}));
        }
        Value::Object(members)
    }

    /// Checks the bounds, as a daemon will. For a client, before it asks.
    pub fn check(&self) -> Result<(), String> {
        let value = self.to_value();
        let length = value.to_string().len();
        if length > MAX_RULES_LEN {
            return Err(format!("the rules take {length} bytes; the most is {MAX_RULES_LEN}"));
        }
        Self::parse(&value).map(drop)
    }
}

// ---- the single rules ----

/// A user and its password, with a colon between them. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// `user:password`, as Basic authentication sends it (RFC 7617).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Credentials {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').filter(|(user, password)| !user.is_empty() && !password.is_empty());
        if parts.is_none() {
            return Err("it is not USER:PASSWORD");
        }
        if text.chars().any(char::is_control) {
            return Err("there is a control character in it");
        }
        if text.len() > MAX_CREDENTIALS_LEN {
            return Err("it is longer than 256 bytes");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// A path and all below it: `/api` is `/api` and `/api/x`, and `/api/` only what is below.
///
/// It is written as services see it, without percent-encoding. It has no character that services may read in several ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The whole site.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix('/') else { return Err("a path begins with /") };
        if text.len() > MAX_PATH_LEN {
            return Err("it is longer than 256 bytes");
        }
        if text.contains('*') {
            return Err("a path stands for all below it; leave the * out");
        }
        if text.contains('%') {
            return Err("write the path without percent-encoding");
        }
        if text.chars().any(|char| char.is_control() || "\\;?#".contains(char)) {
            return Err("a path has no \\, ;, ?, # and control characters");
        }
        let segments = rest.strip_suffix('/').unwrap_or(rest).split('/');
        let is_odd = |segment: &str| segment.trim().trim_matches('.').is_empty();
        if !rest.is_empty() && segments.into_iter().any(is_odd) {
            return Err("a path has no empty segments and no dot segments");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key that a daemon verifies the share links of one tunnel with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ShareKey([u8; ShareKey::LEN]);

impl ShareKey {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A key of these bytes.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl FromStr for ShareKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("it is not 64 hexadecimal digits")
    }
}

impl fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareKey(..)")
    }
}

/// Names one share link, so that it can be revoked: random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId([u8; LinkId::LEN]);

impl LinkId {
    /// Its length in bytes.
    pub const LEN: usize = 8;

    /// An id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for LinkId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("a link's id has 16 hexadecimal digits")
    }
}

/// Reads how often each visitor's address may ask.
fn rate(value: &Value) -> Result<Rate, &'static str> {
    let members = value.as_object().ok_or("it is not an object")?;
    if members.keys().any(|name| name != "per_second" && name != "burst") {
        return Err("it has an unknown member");
    }
    let number = |value: &Value| {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
        number.filter(|number| number.get() <= MAX_COUNT).ok_or("a number is not 1 to 1000000")
    };
    let per_second = members.get("per_second").map(number).ok_or("per_second is missing")??;
    let burst = members.get("burst").map(number).transpose()?;
    Ok(Rate { per_second, burst: burst.unwrap_or_else(|| Unit::Count.usual_burst(per_second)) })
}

/// A network such as `10.0.0.0/8`, or one address. IPv4 in the form of IPv6 becomes IPv4, as visitors' addresses do.
pub fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| "it is not a network such as 10.0.0.0/8")?,
    };
    if network.addr() != network.network() {
        return Err("the address has bits behind the network's prefix");
    }
    let IpNet::V6(v6) = network else { return Ok(network) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map(IpNet::V4).map_err(|_| "it is not a network"),
        _ => Ok(network),
    }
}

// ---- reading ----

/// Reads a list of 1 to `most` texts. An empty one could mean "none" as well as "all".
fn list<T>(
    name: &str,
    value: &Value,
    most: usize,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, String> {
    let Value::Array(values) = value else { return Err(invalid(name, "it is not an array")) };
    if values.is_empty() {
        return Err(invalid(name, "the array is empty"));
    }
    if values.len() > most {
        return Err(format!("the rule {name:?} has {} values; the most is {most}", values.len()));
    }
    let read = |(at, value): (usize, &Value)| {
        let parsed = value.as_str().ok_or("it is not a string").and_then(&parse);
        parsed.map_err(|why| format!("value {} of the rule {name:?} is invalid: {why}", at + 1))
    };
    values.iter().enumerate().map(read).collect()
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| invalid(name, "it is not a string"))
}

fn invalid(name: &str, why: &str) -> String {
    format!("the rule {name:?} is invalid: {why}")
}

/// The first characters of a peer's word, for a message about it.
pub(crate) fn short(word: &str) -> String {
    word.chars().take(64).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// Reads pairs of hexadecimal digits in lower case. So there is one form of each value.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pair = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    rest.is_empty().then(|| pairs.iter().map(pair).collect()).flatten()
}

#[cfg(test)]
mod tests;
