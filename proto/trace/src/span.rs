//! A span that is over, as a caller makes it.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for HTTP. All of them are bounded: what visitors
//! send decides their values.

use std::borrow::Cow;
use std::time::SystemTime;

use http::Method;
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// The longest text of an attribute in bytes. A target may have 64 KiB, and thousands of spans may wait.
const MAX_TEXT: usize = 512;

/// The room for attributes of a span, so that it does not grow step by step.
const USUAL_ATTRIBUTES: usize = 12;

/// What kind of work a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that came from another party.
    Server,
    /// A request to another party.
    Client,
    /// Something in between.
    Internal,
}

/// One span. It is complete when it is made.
#[derive(Debug)]
pub struct Span {
    pub(crate) trace: TraceId,
    pub(crate) state: Option<Box<str>>,
    id: SpanId,
    parent: Option<SpanId>,
    is_parent_remote: bool,
    kind: Kind,
    name: &'static str,
    began: SystemTime,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
    error: Option<Cow<'static, str>>,
}

impl Span {
    /// A span with these ids and times.
    pub(crate) fn new(
        trace: TraceId,
        id: SpanId,
        kind: Kind,
        name: &'static str,
        times: (SystemTime, SystemTime),
    ) -> Self {
        let (began, ended) = times;
        Self {
            trace,
            state: None,
            id,
            parent: None,
            is_parent_remote: false,
            kind,
            name,
            began,
            ended,
            attributes: Vec::with_capacity(USUAL_ATTRIBUTES),
            error: None,
        }
    }

    /// Makes it a child of a span of this process.
    #[must_use]
    pub(crate) fn under(mut self, parent: SpanId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Makes it a child of another party's span, if there is one.
    #[must_use]
    pub(crate) fn under_remote(mut self, parent: Option<SpanId>) -> Self {
        (self.parent, self.is_parent_remote) = (parent, parent.is_some());
        self
    }

    /// Adds a text that is fixed.
    #[must_use]
    pub fn named(mut self, key: &'static str, value: &'static str) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Adds a text from outside, cut to a bounded length.
    #[must_use]
    pub fn text(mut self, key: &'static str, value: &str) -> Self {
        self.attributes.push(KeyValue::new(key, Value::from(cut(value).to_owned())));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, key: &'static str, value: impl Into<i64>) -> Self {
        self.attributes.push(KeyValue::new(key, value.into()));
        self
    }

    /// Says what failed, in a word that is one of few (`error.type`).
    #[must_use]
    pub fn failed(mut self, what: impl Into<Cow<'static, str>>) -> Self {
        let what = what.into();
        self.attributes.push(KeyValue::new("error.type", what.clone()));
        self.error = Some(what);
        self
    }

    /// Adds what all spans of a request have: the method, and the path of its target without the query, which may hold secrets.
    #[must_use]
    pub fn request(self, method: &Method, target: &[u8]) -> Self {
        let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        let span = match known_method(method) {
            Some(known) => self.named("http.request.method", known),
            None => self.named("http.request.method", "_OTHER").text("http.request.method_original", method.as_str()),
        };
        span.text("url.path", &String::from_utf8_lossy(path))
    }

    /// The form that the exporter takes.
    pub(crate) fn into_data(self, scope: &InstrumentationScope) -> SpanData {
        let state = self.state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        SpanData {
            span_context: SpanContext::new(self.trace, self.id, TraceFlags::SAMPLED, false, state),
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.is_parent_remote,
            span_kind: match self.kind {
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
                Kind::Internal => SpanKind::Internal,
            },
            name: Cow::Borrowed(self.name),
            start_time: self.began,
            // The system's clock may have been set back.
            end_time: self.ended.max(self.began),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            // The attribute says what failed.
            status: if self.error.is_some() { Status::error("") } else { Status::Unset },
            instrumentation_scope: scope.clone(),
        }
    }
}

/// The name of a method, if it is one of those that the conventions know. A span is named by it.
pub fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

/// The longest beginning of a text that may stand in an attribute.
fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn data(make: impl FnOnce(Span) -> Span) -> SpanData {
        let times = (UNIX_EPOCH + Duration::from_secs(2), UNIX_EPOCH + Duration::from_secs(1));
        make(Span::new(1.into(), 2.into(), Kind::Server, "GET", times)).into_data(&InstrumentationScope::default())
    }

    fn value(data: &SpanData, key: &str) -> Option<String> {
        data.attributes.iter().find(|found| found.key.as_str() == key).map(|found| found.value.to_string())
    }

    #[test]
    fn a_query_is_never_recorded() {
        let span = data(|span| span.request(&Method::GET, b"/a/b?token=secret"));
        assert_eq!(value(&span, "url.path").unwrap(), "/a/b");
        assert!(!format!("{span:?}").contains("secret"));
    }

    #[test]
    fn texts_from_outside_are_cut() {
        let path = format!("/{}", "ü".repeat(40_000));
        let span = data(|span| span.request(&Method::GET, path.as_bytes()));
        assert_eq!(value(&span, "url.path").unwrap().len(), 511, "it ends between two characters");
        let strange = Method::from_bytes(b"BREW").unwrap();
        let span = data(|span| span.request(&strange, b"/\xff"));
        assert_eq!(value(&span, "http.request.method").unwrap(), "_OTHER");
        assert_eq!(value(&span, "http.request.method_original").unwrap(), "BREW");
        assert_eq!(value(&span, "url.path").unwrap(), "/\u{fffd}");
    }

    #[test]
    fn a_clock_that_was_set_back_gives_an_empty_span() {
        let span = data(|span| span.failed("timeout"));
        assert_eq!(span.start_time, span.end_time);
        assert_eq!((span.status, value(&data(|s| s.failed("x")), "error.type")), (Status::error(""), Some("x".into())));
    }
}
