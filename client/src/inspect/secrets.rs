//! Hides secrets from those who look at requests. Replays use them as they were.
//!
//! Names decide what is secret. They are kept, as are authentication schemes and the names of cookies.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "•••";
/// The mask as browsers encode it in targets.
const ENCODED_MASK: &[u8] = b"%E2%80%A2%E2%80%A2%E2%80%A2";
/// Protocols of WebSockets that are shorter than this carry no token.
const SHORTEST_TOKEN: usize = 20;

/// Endings of words that name a secret, such as `access_token`, `clientSecret` and `PHPSESSID`.
const SECRET_ENDINGS: [&str; 10] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "credential",
    "credentials",
    "sessionid",
    "sessid",
];
/// Words that name a secret by themselves.
const SECRET_WORDS: [&str; 4] = ["authorization", "jwt", "pwd", "session"];
/// Words that make a secret of `key` behind them.
const KEY_WORDS: [&str; 10] =
    ["api", "access", "account", "auth", "encryption", "functions", "master", "private", "secret", "subscription"];
/// Further names of parameters that are secret. Signatures stand for a password in signed URLs.
const SECRET_PARAMETERS: [&str; 9] =
    ["key", "sig", "signature", "hmac", "auth", "sid", "pass", "assertion", "samlresponse"];
/// Fields whose values are URLs, or paths with a query.
const URL_FIELDS: [&str; 8] = [
    "referer",
    "location",
    "content-location",
    "refresh",
    "x-original-uri",
    "x-original-url",
    "x-forwarded-uri",
    "x-rewrite-url",
];

/// Whether secrets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// A mask stands in their place.
    Masked,
    /// They are shown as they are.
    Revealed,
}

impl Secrets {
    /// A field's value as it is shown.
    pub(crate) fn field<'a>(self, name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
        self.apply(value, |value| masked_field(name, value))
    }

    /// A target, or another URL, as it is shown.
    pub(crate) fn target(self, target: &[u8]) -> Cow<'_, [u8]> {
        self.apply(target, masked_target)
    }

    /// An urlencoded form as it is shown.
    pub(crate) fn form(self, form: &[u8]) -> Cow<'_, [u8]> {
        self.apply(form, |form| masked_parameters(form).into())
    }

    /// The value of a form's field as it is shown.
    pub(crate) fn value<'a>(self, name: &str, value: &'a str) -> &'a str {
        if self == Self::Masked && is_secret_parameter(name.as_bytes()) { MASK } else { value }
    }

    fn apply<'a>(self, value: &'a [u8], mask: impl FnOnce(&'a [u8]) -> Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        match self {
            Self::Masked => mask(value),
            Self::Revealed => value.into(),
        }
    }
}

/// An edited target. Where it still has a mask, the value of the original stands.
pub(crate) fn unmasked_target(edited: &[u8], original: &[u8]) -> Vec<u8> {
    let mut originals: Vec<_> =
        parameters(original, true).into_iter().filter(|(_, is_parameter)| *is_parameter).collect();
    let restored = |(part, is_parameter): (&[u8], bool)| {
        let (name, value) = split_parameter(part);
        // Parameters of the same name keep their order, so each original counts once.
        let place = originals.iter().position(|(original, _)| split_parameter(original).0 == name);
        let original = place.filter(|_| is_parameter).map(|place| originals.remove(place).0);
        let is_masked = value == MASK.as_bytes() || value.eq_ignore_ascii_case(ENCODED_MASK);
        original.filter(|_| is_masked).unwrap_or(part).to_vec()
    };
    parameters(edited, true).into_iter().flat_map(restored).collect()
}

fn masked_field<'a>(name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "authorization" | "proxy-authorization" => {
            // The scheme says much and is no secret.
            let scheme = value.iter().position(|byte| *byte == b' ').map_or(&b""[..], |end| &value[..=end]);
            let is_scheme = scheme.len() < SHORTEST_TOKEN;
            [if is_scheme { scheme } else { b"" }, MASK.as_bytes()].concat().into()
        }
        "cookie" => value.split(|byte| *byte == b';').map(masked_cookie).collect::<Vec<_>>().join(&b';').into(),
        "set-cookie" => {
            let (cookie, attributes) = value.split_at(end_of(value, b';'));
            [masked_cookie(cookie).as_slice(), attributes].concat().into()
        }
        "sec-websocket-protocol" => masked_protocols(value),
        name if URL_FIELDS.contains(&name) => masked_target(value),
        name if is_secret(name.as_bytes()) => MASK.as_bytes().into(),
        _ => value.into(),
    }
}

/// A cookie with its name. Spaces before it stay.
fn masked_cookie(cookie: &[u8]) -> Vec<u8> {
    match cookie.iter().position(|byte| *byte == b'=') {
        Some(end) => [&cookie[..=end], MASK.as_bytes()].concat(),
        None if cookie.trim_ascii().is_empty() => cookie.to_vec(),
        None => MASK.into(),
    }
}

/// The protocols of a WebSocket, among which browsers have to put their tokens.
fn masked_protocols(value: &[u8]) -> Cow<'_, [u8]> {
    let lower = value.to_ascii_lowercase();
    let has = |word: &str| memchr::memmem::find(&lower, word.as_bytes()).is_some();
    if !["bearer", "token", "auth", "jwt", "key"].into_iter().any(has) {
        return value.into();
    }
    let masked = |item: &[u8]| {
        let is_short = item.trim_ascii().len() < SHORTEST_TOKEN;
        if is_short { item.to_vec() } else { MASK.into() }
    };
    value.split(|byte| *byte == b',').map(masked).collect::<Vec<_>>().join(&b',').into()
}

/// A URL whose query and fragment hide their secrets, as does the password of its authority.
fn masked_target(target: &[u8]) -> Cow<'_, [u8]> {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let mut masked = masked_user(path);
    masked.extend(masked_parameters(query));
    masked.into()
}

/// A URL up to its query, without the user and password in front of its host.
fn masked_user(url: &[u8]) -> Vec<u8> {
    let Some(begin) = memchr::memmem::find(url, b"://").map(|scheme| scheme + 3) else { return url.to_vec() };
    let authority = &url[begin..begin + end_of(&url[begin..], b'/')];
    match authority.iter().rposition(|byte| *byte == b'@') {
        Some(end) => [&url[..begin], MASK.as_bytes(), &url[begin + end..]].concat(),
        None => url.to_vec(),
    }
}

/// A query, fragment or urlencoded form that hides its secrets.
fn masked_parameters(query: &[u8]) -> Vec<u8> {
    let masked = |(part, is_parameter): (&[u8], bool)| {
        let (name, value) = split_parameter(part);
        if is_parameter && !value.is_empty() && is_secret_parameter(name) {
            [name, b"=", MASK.as_bytes()].concat()
        } else {
            part.to_vec()
        }
    };
    parameters(query, false).into_iter().flat_map(masked).collect()
}

/// Cuts a target into parameters and what stands between them. A query and a form begin with a parameter.
fn parameters(text: &[u8], begins_with_path: bool) -> Vec<(&[u8], bool)> {
    let is_separator = |byte: &u8| matches!(byte, b'?' | b'#' | b'&' | b';');
    let parts = text.chunk_by(|before, after| !is_separator(before) && !is_separator(after));
    let mut is_path = begins_with_path;
    parts
        .map(|part| {
            let is_end = matches!(part, b"?" | b"#");
            is_path &= !is_end;
            (part, !is_path && !is_separator(&part[0]))
        })
        .collect()
}

/// The name of a parameter and its value, which may be absent.
fn split_parameter(parameter: &[u8]) -> (&[u8], &[u8]) {
    let (name, value) = parameter.split_at(end_of(parameter, b'='));
    (name, value.get(1..).unwrap_or_default())
}

/// Where the first `byte` is, or the end.
fn end_of(text: &[u8], byte: u8) -> usize {
    text.iter().position(|it| *it == byte).unwrap_or(text.len())
}

/// Whether a parameter of a query or a form is secret, by its name as it stands there.
pub(crate) fn is_secret_parameter(name: &[u8]) -> bool {
    let name: Vec<u8> = percent_decode(name).collect();
    is_secret(&name) || words(&name).iter().any(|word| SECRET_PARAMETERS.contains(&word.as_str()))
}

/// Whether a name says that its value is secret.
fn is_secret(name: &[u8]) -> bool {
    let words = words(name);
    let is_secret = |word: &String| {
        SECRET_WORDS.contains(&word.as_str()) || SECRET_ENDINGS.iter().any(|ending| word.ends_with(ending))
    };
    words.iter().any(is_secret)
        || words.windows(2).any(|pair| pair[1] == "key" && KEY_WORDS.contains(&pair[0].as_str()))
}

/// The words of a name in lower case. They begin behind punctuation, and at the capitals of `camelCase`.
fn words(name: &[u8]) -> Vec<String> {
    let begins = |before: &u8, after: &u8| before.is_ascii_lowercase() && after.is_ascii_uppercase();
    name.split(|byte| !byte.is_ascii_alphanumeric())
        .flat_map(|part| part.chunk_by(move |before, after| !begins(before, after)))
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests;
