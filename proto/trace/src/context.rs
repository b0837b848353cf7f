//! The fields of W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! ```text
//! traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//!              version, trace id, id of the sender's span, flags
//! ```

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{SpanId, TraceId};

/// The field that names the sender's span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field with what each tracing system on the way has to say.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of `traceparent` in version 00. Later versions may append to it.
const LENGTH: usize = 55;
/// The flag that says that the sender records the request.
const SAMPLED: u8 = 1;
/// The longest `tracestate` that is recorded, in bytes. W3C asks for 512 at least (section 3.3.1.5). The field goes on whole.
const MAX_STATE: usize = 512;

/// The span of the party that sent a request, as its `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The sender's span.
    pub span: SpanId,
    /// Whether the sender says that it records the request.
    pub is_sampled: bool,
}

impl Parent {
    /// The parent that a request names. `None` if it names none, several, or none that is valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    /// Reads the value of `traceparent`. Of a version after 00, it reads what 00 has (section 4).
    fn parse(value: &[u8]) -> Option<Self> {
        let [v0, v1, b'-', trace @ .., b'-', f0, f1] = value.get(..LENGTH)? else { return None };
        let (trace, span) = (trace.get(..32)?, trace.get(32..)?.strip_prefix(b"-")?);
        let version = number(&[*v0, *v1])?;
        let has_more = value.len() > LENGTH;
        if version == 0xFF || (version == 0 && has_more) || (has_more && value.get(LENGTH) != Some(&b'-')) {
            return None;
        }
        let (trace, span) = (TraceId::from(number(trace)?), SpanId::from(number(span)? as u64));
        let flags = number(&[*f0, *f1])? as u8;
        let is_valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        is_valid.then_some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
    }

    /// Puts it into a request, in place of what is there.
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put(&mut text[3..35], &self.trace.to_bytes());
        put(&mut text[36..52], &self.span.to_bytes());
        put(&mut text[53..], &[if self.is_sampled { SAMPLED } else { 0 }]);
        // Hexadecimal digits are valid in every field.
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

/// What a request's `tracestate` says, if it is short enough to be recorded. It is a copy, so that the head does not stay in
/// memory because of it.
pub(crate) fn state_of(headers: &HeaderMap) -> Option<Box<str>> {
    let values = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok());
    let joined = values.collect::<Option<Vec<_>>>()?.join(",");
    (!joined.is_empty() && joined.len() <= MAX_STATE).then(|| joined.into_boxed_str())
}

/// Reads lower-case hexadecimal digits, at most 32. Upper case is wrong here (section 3.2.2).
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes bytes as lower-case hexadecimal digits.
fn put(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<Parent> {
        Parent::parse(text.as_bytes())
    }

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let parent = parse(EXAMPLE).unwrap();
        assert_eq!(parent.trace, TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(parent.span, SpanId::from(0x00f0_67aa_0ba9_02b7));
        assert!(parent.is_sampled);
        let mut headers = HeaderMap::new();
        parent.write(&mut headers);
        assert_eq!(headers[TRACEPARENT], EXAMPLE);
        assert_eq!(Parent::of(&headers), Some(parent));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let unsampled = Parent { is_sampled: false, ..parse(EXAMPLE).unwrap() };
        assert_eq!(parse(&EXAMPLE.replace("00-4", "cc-4").replace("-01", "-02-what-else")), Some(unsampled));
    }

    #[test]
    fn a_wrong_value_names_no_parent() {
        for wrong in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-01"),
            &format!("{EXAMPLE} "),
            &EXAMPLE.replace("00-4", "ff-4"),
            &EXAMPLE.replace("00-4", "01-4").replace("-01", "-01x"),
            &EXAMPLE.replace('b', "B"),
            &EXAMPLE.replace('b', "g"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &EXAMPLE.replace("-00f0", "_00f0"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        }
        assert_eq!(Parent::of(&twice), None);
    }

    #[test]
    fn a_long_state_is_not_recorded() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, value.parse().unwrap());
            }
            state_of(&headers)
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(with(&[&"x".repeat(MAX_STATE + 1)]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = Parent::parse(&value) {
                let mut headers = HeaderMap::new();
                parent.write(&mut headers);
                prop_assert_eq!(Parent::of(&headers), Some(parent));
            }
        }

        #[test]
        fn what_is_written_is_read(trace in 1..=u128::MAX, span in 1..=u64::MAX, is_sampled: bool) {
            let parent = Parent { trace: trace.into(), span: span.into(), is_sampled };
            let mut headers = HeaderMap::new();
            parent.write(&mut headers);
            prop_assert_eq!(Parent::of(&headers), Some(parent));
        }
    }
}
