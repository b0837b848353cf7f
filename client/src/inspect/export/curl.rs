//! A command line that sends a request again, for a POSIX shell.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{Field, Request};
use crate::inspect::decode::MediaType;
use crate::inspect::secrets::Secrets;
use crate::text::is_invisible;

/// The longest body in an argument. Linux takes 128 KiB in one.
const LONGEST_ARGUMENT: usize = 64 << 10;
/// The longest body in a line. Terminals and clipboards lose longer ones.
const LONGEST_BODY: usize = 4 << 20;
/// The body size above which curl asks for permission first.
const EXPECTS: usize = 1 << 20;

/// Fields that curl or the way to the service sets.
const LEFT_OUT: [&str; 13] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "cdn-loop",
];

/// Why there is no line for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NoCurl {
    /// It leaves HTTP.
    #[error("curl does not speak WebSocket or other upgrades in this form")]
    Upgrade,
    /// Some of its body is missing.
    #[error("the body was not captured whole")]
    NotWhole,
    /// Its body does not fit on a line.
    #[error("the body is too long for a command line")]
    TooLong,
}

/// The line that sends a request to its public address.
pub(crate) fn curl(request: &Request<'_>, secrets: Secrets) -> Result<String, NoCurl> {
    let content = &request.content;
    if content.values("upgrade").next().is_some() || request.method == "CONNECT" {
        return Err(NoCurl::Upgrade);
    }
    if !content.is_whole {
        return Err(NoCurl::NotWhole);
    }
    if content.body.len() > LONGEST_BODY {
        return Err(NoCurl::TooLong);
    }
    let is_head = request.method == "HEAD";
    let body = masked_body(request, secrets);
    // An empty body has a length if the original has one.
    let has_body = !is_head && (!body.is_empty() || content.values("content-length").next().is_some());
    let mut line = String::from("curl");
    match (request.method, has_body) {
        // With -X, curl would wait for the response's body. It has no way to send one with HEAD.
        ("HEAD", _) => line.push_str(" --head"),
        ("GET", false) | ("POST", true) => {}
        (method, _) => argument(&mut line, "-X", method.as_bytes()),
    }
    address(&mut line, request, secrets);
    for field in content.fields.iter().filter(|field| !LEFT_OUT.contains(&&*field.name.to_ascii_lowercase())) {
        let is_host = field.name.eq_ignore_ascii_case("host");
        if is_host && request.origin.split_once("://").is_some_and(|(_, host)| host.as_bytes() == field.value) {
            continue;
        }
        argument(&mut line, "-H", &header(field, secrets));
    }
    // curl adds these by itself. Without a value, it leaves them out.
    let missing = |name: &&str| content.values(name).next().is_none();
    let added = ["user-agent", "accept"].into_iter();
    let added = added.chain(has_body.then_some("content-type")).chain((body.len() > EXPECTS).then_some("expect"));
    for name in added.filter(missing) {
        argument(&mut line, "-H", format!("{name}:").as_bytes());
    }
    if content.values("accept-encoding").next().is_some() {
        line.push_str(" --compressed");
    }
    if !has_body {
        return Ok(line);
    }
    let is_text = std::str::from_utf8(&body).is_ok_and(|text| text.chars().all(is_plain));
    if is_text && body.len() <= LONGEST_ARGUMENT {
        // With --data-binary, an @ names a file.
        argument(&mut line, if body.starts_with(b"@") { "--data-raw" } else { "--data-binary" }, &body);
        return Ok(line);
    }
    line.push_str(" --data-binary @-");
    Ok(format!("printf %s {} | base64 -d | {line}", STANDARD.encode(&body)))
}

/// The body, whose secrets are masked if it is a form.
fn masked_body(request: &Request<'_>, secrets: Secrets) -> Vec<u8> {
    let content = &request.content;
    let is_form = MediaType::new(content.content_type()).essence == "application/x-www-form-urlencoded";
    let is_coded = content.values("content-encoding").next().is_some();
    if is_form && !is_coded { secrets.form(content.body).into_owned() } else { content.body.to_vec() }
}

/// Adds the URL.
fn address(line: &mut String, request: &Request<'_>, secrets: Secrets) {
    let target = secrets.target(request.target);
    // The rest of a URL may be changed by curl, or mean something else to it.
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~?&=%+:@!$'(),;*".contains(byte);
    if target.starts_with(b"/") && request.target.iter().all(is_usual) {
        if memchr::memmem::find(&target, b"/.").is_some() {
            line.push_str(" --path-as-is");
        }
        let _infallible = write!(line, " {}", quoted(&[request.origin.as_bytes(), &target].concat()));
    } else {
        argument(line, "--request-target", &target);
        let _infallible = write!(line, " {}", quoted(request.origin.as_bytes()));
    }
}

/// A field as curl takes it.
fn header(field: &Field<'_>, secrets: Secrets) -> Vec<u8> {
    let value = secrets.field(field.name, field.value);
    // Behind a colon, an empty value would take the field away.
    let separator: &[u8] = if value.is_empty() { b";" } else { b": " };
    [field.name.as_bytes(), separator, &value].concat()
}

fn argument(line: &mut String, option: &str, value: &[u8]) {
    let _infallible = write!(line, " {option} {}", quoted(value));
}

/// Characters that show as themselves in a terminal, and line breaks.
fn is_plain(c: char) -> bool {
    matches!(c, '\n' | '\t') || !c.is_control() && !is_invisible(c)
}

/// Quotes any bytes but NUL for a POSIX shell. A last line break is lost if other bytes than text come before it.
fn quoted(bytes: &[u8]) -> String {
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._:=@,+".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_bare) => text.to_owned(),
        Ok(text) if text.chars().all(is_plain) => format!("'{}'", text.replace('\'', r"'\''")),
        // printf takes octal numbers for bytes that a terminal would not show. A leading dash would be an option.
        _ => {
            let mut text = String::from("\"$(printf '");
            for byte in bytes {
                let _infallible = match byte {
                    b'%' => write!(text, "%%"),
                    b' '..=b'~' if !b"'\\-".contains(byte) => write!(text, "{}", char::from(*byte)),
                    byte => write!(text, "\\{byte:03o}"),
                };
            }
            text + "')\""
        }
    }
}

#[cfg(test)]
mod tests;
