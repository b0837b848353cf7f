//! What is wrong with the head of a response that the HTTP library could not read.

use super::Failure;
use crate::text::quoted;

/// The start of a TLS record that carries an alert (RFC 8446, section 5.1): the answer to plain HTTP.
const TLS_ALERT: &[u8] = &[0x15, 0x03];

/// The failure that fits the bytes of a head. `why` is the library's reason.
pub(super) fn diagnose(head: &[u8], why: &str) -> Failure {
    if head.starts_with(TLS_ALERT) {
        let why = "the service speaks TLS, but its target says plain HTTP; say https://… as the target";
        return Failure::Mismatch(why.to_owned());
    }
    if !head.starts_with(b"HTTP/1.") {
        let start = quoted(&String::from_utf8_lossy(&head[..head.len().min(SHOWN)]));
        return Failure::Invalid(format!("it begins with \"{start}\", and not with HTTP/1"));
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().unwrap_or_default();
    if !is_status_line(status) {
        return Failure::Invalid(format!("its status line is \"{}\"", quoted(&String::from_utf8_lossy(status))));
    }
    match lines.take_while(|line| !line.is_empty()).find_map(wrong_field) {
        Some(wrong) => Failure::Invalid(wrong),
        None => Failure::Invalid(why.to_owned()),
    }
}

/// How many bytes of something that is no HTTP are shown.
const SHOWN: usize = 24;

/// RFC 9112, section 4: a version, a status of three digits, and a reason phrase.
fn is_status_line(line: &[u8]) -> bool {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (version, status) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_valid = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F);
    matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
        && status.len() == 3
        && status.iter().all(u8::is_ascii_digit)
        && line.iter().all(is_valid)
}

/// What is wrong with a field line (RFC 9112, section 5), if anything is.
fn wrong_field(line: &[u8]) -> Option<String> {
    let shown = |bytes: &[u8]| quoted(&String::from_utf8_lossy(bytes));
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Some(format!("the line \"{}\" is no field", shown(line)));
    };
    let (name, value) = (line[..colon].trim_ascii_end(), &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return Some(format!("the name of the field \"{}\" is invalid", shown(name)));
    }
    if let Some(byte) = value.iter().find(|byte| (**byte < b' ' && **byte != b'\t') || **byte == 0x7F) {
        return Some(format!("the field \"{}\" has the byte 0x{byte:02x} in its value", shown(name)));
    }
    let is_length = name.eq_ignore_ascii_case(b"content-length");
    if is_length && !value.trim_ascii().iter().all(u8::is_ascii_digit) {
        return Some(format!("its Content-Length is \"{}\"", shown(value.trim_ascii())));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_named() {
        for (head, words) in [
            (&b"\x15\x03\x01\x00\x02\x02\x46"[..], "the service speaks TLS, but its target says plain HTTP"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "it begins with \"SSH-2.0-OpenSSH_9.2\\r\\n\""),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", "its status line is \"HTTP/1.1 2x0 OK\""),
            (b"HTTP/1.7 200 OK\r\n\r\n", "its status line is \"HTTP/1.7 200 OK\""),
            (b"HTTP/1.1 200 OK\r\na: 1\r\nx y: 2\r\n\r\n", "the name of the field \"x y\" is invalid"),
            (b"HTTP/1.1 200 OK\r\n: 2\r\n\r\n", "the name of the field \"\" is invalid"),
            (b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", "the field \"x\" has the byte 0x00 in its value"),
            (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the line \"no colon\" is no field"),
            (b"HTTP/1.1 200 OK\nContent-Length: +5\n\n", "its Content-Length is \"+5\""),
            (b"HTTP/1.1 200\r\nx: 1\r\n\r\n", "because"),
            (b"", "it begins with \"\""),
        ] {
            let said = diagnose(head, "because").to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
