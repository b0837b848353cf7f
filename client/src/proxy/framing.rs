//! The length that a response's head announces to the tunnel. It is made from how the body is read, and never copied from a
//! service that may say two things at once (RFC 9112, section 6.3).

use cok_http::hop_by_hop::retain;
use cok_proto::ResponseHead;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version, response};

use super::Failure;
use super::respond::head_of;

/// What is known of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none by rule. The field, if there is one, describes another response (RFC 9110, section 8.6).
    Bodiless,
    /// The parser has decided on a length, or on another end.
    Decided(Option<u64>),
    /// The head alone announces it.
    Announced,
}

/// Whether a response has no body, whatever its fields say (RFC 9112, section 6.3, rule 1).
pub(super) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The final head of a response whose body is `length` long.
pub(super) fn final_head(mut parts: response::Parts, length: Length) -> Result<ResponseHead, Failure> {
    set_length(parts.status, length, &mut parts.headers)?;
    Ok(head_of(parts))
}

/// Makes Content-Length right: one number that fits the body, or none. Other fields keep their places.
pub(super) fn set_length(status: StatusCode, length: Length, headers: &mut HeaderMap) -> Result<(), Failure> {
    let said = one_length(headers);
    let plain = said.as_ref().ok().copied().flatten().filter(|_| is_plain(headers));
    let length = match length {
        Length::Bodiless if status == StatusCode::NO_CONTENT || headers.contains_key(TRANSFER_ENCODING) => None,
        Length::Bodiless => said.ok().flatten(),
        Length::Decided(length) => length,
        Length::Announced => said?,
    };
    match length {
        Some(_) if length == plain => {}
        // In its place, and in place of all its values.
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => retain(headers, |name| *name != CONTENT_LENGTH),
    }
    Ok(())
}

/// Whether a right Content-Length is also written as one: once, and in the fewest digits.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let is_plain = values.next().is_some_and(|value| match value.as_bytes() {
        [_] => true,
        [first, rest @ ..] => *first != b'0' && first.is_ascii_digit() && rest.iter().all(u8::is_ascii_digit),
        [] => false,
    });
    is_plain && values.next().is_none()
}

/// Refuses a coding that the tunnel does not carry. Without it, the body's bytes would mean something else.
pub(super) fn check_coding(version: Version, headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_chunked(coding.as_bytes()) && version == Version::HTTP_11 => Ok(()),
        (Some(coding), _) => Err(Failure::Broke(format!(
            "its Transfer-Encoding is {coding:?}, and only \"chunked\" can pass; let it use Content-Encoding"
        ))),
    }
}

/// The length that a head announces. It is one number, which may stand there more than once.
fn one_length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let invalid = || Failure::Broke("its Content-Length is not one number".to_owned());
    let values = headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut said = None;
    for value in values {
        let digits = value.trim_ascii();
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(invalid());
        }
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(invalid)?;
        if said.is_some_and(|said| said != length) {
            return Err(invalid());
        }
        said = Some(length);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// The announced length, or whether it was refused.
    fn announced(status: u16, length: Length, fields: &[(&'static str, &'static str)]) -> Result<Option<String>, ()> {
        let mut headers = map(fields);
        set_length(StatusCode::from_u16(status).unwrap(), length, &mut headers).map_err(drop)?;
        assert!(headers.get_all("content-length").iter().count() <= 1);
        Ok(headers.get("content-length").map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_length_is_one_number_or_none() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(announced(200, Length::Decided(Some(5)), &twice), some("5"));
        assert_eq!(announced(200, Length::Decided(Some(5)), &[("content-length", "5, 5")]), some("5"));
        for value in ["05", " 5", "5"] {
            assert_eq!(announced(200, Length::Decided(Some(5)), &[("content-length", value)]), some("5"));
        }
        assert_eq!(announced(200, Length::Decided(Some(6)), &[("content-length", "5")]), some("6"));
        assert_eq!(announced(200, Length::Decided(None), &[("content-length", "5")]), Ok(None));
        assert_eq!(announced(200, Length::Decided(Some(0)), &[]), some("0"));
        assert_eq!(announced(200, Length::Announced, &twice), some("5"));
        assert_eq!(announced(200, Length::Announced, &[]), Ok(None));
        for value in ["", "x", "+5", "-1", "5,6", "5 5", "0x5", "99999999999999999999"] {
            assert_eq!(announced(200, Length::Announced, &[("content-length", value)]), Err(()), "{value}");
            assert_eq!(announced(304, Length::Bodiless, &[("content-length", value)]), Ok(None), "{value}");
        }
        assert_eq!(announced(304, Length::Bodiless, &twice), some("5"));
        assert_eq!(announced(204, Length::Bodiless, &twice), Ok(None));
        let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(announced(200, Length::Bodiless, &both), Ok(None));
    }

    #[test]
    fn other_fields_keep_their_order() {
        let mut headers = map(&[("a", "1"), ("content-length", "5"), ("b", "2"), ("c", "3")]);
        set_length(StatusCode::OK, Length::Decided(None), &mut headers).unwrap();
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn only_chunked_can_pass() {
        let passes = |version, values: &[&'static str]| {
            let fields: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            check_coding(version, &map(&fields)).is_ok()
        };
        assert!(passes(Version::HTTP_11, &[]) && passes(Version::HTTP_11, &["Chunked"]));
        for values in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"], &[""]] {
            assert!(!passes(Version::HTTP_11, values), "{values:?}");
        }
        assert!(!passes(Version::HTTP_10, &["chunked"]));
    }
}
