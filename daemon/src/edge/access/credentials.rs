//! What visitors show to be let in: passwords and share links. The service sees neither.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use cok_proto::share::{COOKIE, PARAMETER, Token};
use cok_proto::{RequestHead, Target};
use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE as COOKIES, HeaderMap};

use super::path;
use crate::admission::{Access, InvalidLink, Passwords, ShareVerifier};

/// How many tokens of one request are verified. A browser sends one; each costs an HMAC.
const MAX_TOKENS: usize = 4;

/// Some programs leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The path and the query of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetParts<'a> {
    pub(super) path: &'a [u8],
    query: Option<&'a [u8]>,
}

impl<'a> TargetParts<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        let mut parts = target.as_bytes().splitn(2, |byte| *byte == b'?');
        Self { path: parts.next().unwrap_or_default(), query: parts.next() }
    }

    /// The values of our parameter.
    fn tokens(&self) -> impl Iterator<Item = &'a [u8]> {
        self.pieces().filter_map(|piece| value_of(PARAMETER, piece))
    }

    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        self.query.into_iter().flat_map(|query| query.split(|byte| *byte == b'&'))
    }

    /// The whole target without our parameter.
    pub(super) fn without_token(&self) -> Vec<u8> {
        let mut target = self.path.to_vec();
        let kept = self.pieces().filter(|piece| value_of(PARAMETER, piece).is_none());
        for (at, piece) in kept.enumerate() {
            target.push(if at == 0 { b'?' } else { b'&' });
            target.extend_from_slice(piece);
        }
        target
    }
}

/// The value of `name=value`, if it has this name.
fn value_of<'a>(name: &str, pair: &'a [u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The share link that a request shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// None.
    None,
    /// A valid one in the address, with the seconds that it has left.
    Address { token: String, left: u64 },
    /// A valid one in the cookie.
    Cookie,
    /// One that lets no one in, or not here.
    Unusable(InvalidLink),
}

impl Link {
    pub(super) fn is_valid(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Cookie)
    }
}

/// Finds the link of a request for this target.
pub(super) fn link(share: &ShareVerifier, headers: &HeaderMap, target: &TargetParts<'_>, now: SystemTime) -> Link {
    let verify = |text: &[u8]| {
        let text = std::str::from_utf8(text).map_err(|_| InvalidLink::Invalid)?;
        let token = Token::parse(text).ok_or(InvalidLink::Invalid)?;
        let left = share.verify(&token, now)?;
        let is_for = path::is_allowed(target.path, std::iter::once(&token.grant.path));
        if is_for { Ok((text.to_owned(), left)) } else { Err(InvalidLink::Invalid) }
    };
    let mut found = Link::None;
    for token in target.tokens().take(MAX_TOKENS) {
        match verify(token) {
            Ok((token, left)) => return Link::Address { token, left },
            Err(why) => found = Link::Unusable(why),
        }
    }
    let pairs = headers.get_all(COOKIES).iter().flat_map(cookies);
    for token in pairs.filter_map(|pair| value_of(COOKIE, pair)).take(MAX_TOKENS) {
        match verify(token) {
            Ok(_) => return Link::Cookie,
            Err(why) => found = Link::Unusable(why),
        }
    }
    found
}

/// Whether a request shows one of these passwords.
pub(super) fn password(passwords: &Passwords, headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| is_password(passwords, value))
}

fn is_password(passwords: &Passwords, value: &HeaderValue) -> bool {
    basic(value).is_some_and(|pair| passwords.contain(&pair))
}

/// The pair of user and password of Basic authentication (RFC 7617).
fn basic(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    BASE64.decode(rest.trim_ascii()).ok()
}

/// The pairs of a Cookie field.
fn cookies(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The head without the password and the token that were for the daemon. What is the service's own stays as it is.
pub(super) fn without(access: &Access, head: &Arc<RequestHead>, target: &TargetParts<'_>) -> Arc<RequestHead> {
    let mut cleaned = head.clone();
    if let Some(passwords) = &access.passwords {
        drop_values(&mut cleaned, AUTHORIZATION, |value| is_password(passwords, value), |_| None);
    }
    if access.share.is_some() {
        let is_ours = |value: &HeaderValue| cookies(value).any(|pair| value_of(COOKIE, pair).is_some());
        drop_values(&mut cleaned, COOKIES, is_ours, |value| {
            let others: Vec<&[u8]> = cookies(value).filter(|pair| value_of(COOKIE, pair).is_none()).collect();
            HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|value| !value.is_empty())
        });
        if target.tokens().next().is_some()
            && let Ok(target) = Target::from_bytes(Bytes::from(target.without_token()))
        {
            Arc::make_mut(&mut cleaned).target = target;
        }
    }
    cleaned
}

/// Replaces the values of a field that are `ours` by what is `left` of them.
fn drop_values(
    head: &mut Arc<RequestHead>,
    name: http::HeaderName,
    ours: impl Fn(&HeaderValue) -> bool,
    left: impl Fn(&HeaderValue) -> Option<HeaderValue>,
) {
    if !head.headers.get_all(&name).iter().any(&ours) {
        return;
    }
    let values: Vec<HeaderValue> = head.headers.get_all(&name).iter().cloned().collect();
    let headers = &mut Arc::make_mut(head).headers;
    headers.remove(&name);
    for value in values {
        let kept = if ours(&value) { left(&value) } else { Some(value) };
        if let Some(kept) = kept {
            headers.append(&name, kept);
        }
    }
}

#[cfg(test)]
mod tests;
