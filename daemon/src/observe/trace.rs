//! The trace of a request that is recorded: its ids while it runs, and its spans when it is over.
//!
//! ```text
//! GET                    the request, from the visitor to the end of the response (SERVER)
//! ├─ wait                for a session that takes it, if that takes a moment
//! ├─ GET  cok.attempt=1  in a session (CLIENT); the span of the client's exchange goes below
//! ├─ wait
//! └─ GET  cok.attempt=2  again, since the first session ended
//! ```

use std::time::{Duration, SystemTime};

use cok_trace::{Kind, Recording, Span, SpanId, Tracer, known_method};
use cok_transport::ExchangeError;
use http::{HeaderMap, Version};

use super::ending::Ending;
use super::record::Record;

/// The shortest wait for a session that gets a span. What is shorter is the machine's own business.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The trace of a request that is recorded.
#[derive(Debug)]
pub(crate) struct Trace {
    recording: Recording,
    /// The id for the span of the next attempt, which its head names.
    next: SpanId,
    /// What sessions have taken the request. The edge limits how many.
    attempts: Vec<Attempt>,
}

/// One session's try. Times count from the beginning of the request.
#[derive(Debug)]
struct Attempt {
    span: SpanId,
    transport: &'static str,
    began: Duration,
    /// When and why it failed. `None` if it goes on to the end of the request.
    failed: Option<(Duration, &'static str)>,
}

impl Trace {
    /// Of a request with these fields, if it is one of those that are recorded.
    pub(crate) fn begin(tracer: &Tracer, headers: &HeaderMap) -> Option<Box<Self>> {
        let recording = tracer.begin(headers)?;
        let next = recording.child();
        Some(Box::new(Self { recording, next, attempts: Vec::new() }))
    }

    /// The trace's id.
    pub(crate) fn id(&self) -> u128 {
        u128::from_be_bytes(self.recording.trace.to_bytes())
    }

    /// Names the span of the next attempt in the request's fields.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        self.recording.write(self.next, headers);
    }

    /// Whether a session has had the request already, whose span its fields name.
    pub(crate) fn is_repeated(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// A session has taken the request's head.
    pub(crate) fn attempted(&mut self, began: Duration, transport: &'static str) {
        let span = std::mem::replace(&mut self.next, self.recording.child());
        self.attempts.push(Attempt { span, transport, began, failed: None });
    }

    /// The latest attempt has failed.
    pub(crate) fn failed(&mut self, at: Duration, error: ExchangeError) {
        let why = match error {
            ExchangeError::SessionLost => "session_lost",
            ExchangeError::Reset(code) => code.name(),
        };
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.failed = Some((at, why));
        }
    }

    /// Hands over its spans. The request is over.
    pub(super) fn record(&self, record: &Record, tracer: &Tracer) {
        let spans = Spans { trace: self, record };
        let mut free = record.timings.routed.unwrap_or_default();
        for (number, attempt) in (1..).zip(&self.attempts) {
            if let Some(wait) = spans.wait(free, attempt.began) {
                tracer.record(wait);
            }
            tracer.record(spans.attempt(number, attempt));
            free = attempt.failed.map_or_else(|| record.duration(), |(at, _)| at);
        }
        // What waited to the end got the daemon's own answer.
        if let Some(wait) = spans.wait(free, record.timings.head_out.unwrap_or_else(|| record.duration())) {
            tracer.record(wait);
        }
        tracer.record(spans.whole());
    }
}

/// Makes the spans of a request that is over.
struct Spans<'a> {
    trace: &'a Trace,
    record: &'a Record,
}

impl Spans<'_> {
    /// The whole request.
    fn whole(&self) -> Span {
        let Record { ending, status, peer, .. } = self.record;
        let name = self.name();
        let span = self.trace.recording.root(name, self.times(Duration::ZERO, self.record.duration()));
        let visitor = self.record.visitor.unwrap_or(*peer);
        let mut span = self
            .with_request(span)
            .named("url.scheme", "https")
            .named("network.protocol.version", protocol_version(self.record.version))
            .text("client.address", &visitor.to_string());
        if visitor != *peer {
            span = span.text("network.peer.address", &peer.to_string());
        }
        if let Some(tunnel) = &self.record.tunnel {
            span = span.text("cok.tunnel", tunnel.as_str());
        }
        if let Some(lasting) = self.record.lasting {
            span = span.named("cok.lasting", lasting.name());
        }
        let Some(ending) = *ending else { return span };
        span = span.named("cok.ending", ending.name());
        match (failure(ending), status) {
            (Some(why), _) => span.failed(why),
            (None, Some(status)) if status.is_server_error() => span.failed(status.as_str().to_owned()),
            _ => span,
        }
    }

    /// What a session did with the request. What was asked stands in the span above; all of it here would cost as much again.
    fn attempt(&self, number: u32, attempt: &Attempt) -> Span {
        let Attempt { span, transport, began, failed } = attempt;
        let Record { method, authority, status, ending, .. } = self.record;
        let ended = failed.map_or_else(|| self.record.duration(), |(at, _)| at);
        let recording = &self.trace.recording;
        let mut span = recording
            .below(recording.span, *span, Kind::Client, self.name(), self.times(*began, ended))
            .number("cok.attempt", number)
            .named("cok.transport", transport)
            .named("http.request.method", method.as_ref().and_then(known_method).unwrap_or("_OTHER"));
        if let Some(authority) = authority {
            span = span.text("server.address", authority.host());
        }
        if let Some((_, why)) = failed {
            return span.failed(*why);
        }
        if let Some(status) = status {
            span = span.number("http.response.status_code", status.as_u16());
        }
        match (ending.and_then(failure), status) {
            (Some(why), _) => span.failed(why),
            (None, Some(status)) if status.is_client_error() || status.is_server_error() => {
                span.failed(status.as_str().to_owned())
            }
            _ => span,
        }
    }

    /// A wait for a session. `None` if it took no time.
    fn wait(&self, from: Duration, to: Duration) -> Option<Span> {
        let recording = &self.trace.recording;
        let waited = to.saturating_sub(from) >= MIN_WAIT;
        waited.then(|| recording.below(recording.span, recording.child(), Kind::Internal, "wait", self.times(from, to)))
    }

    /// Adds what was asked and answered.
    fn with_request(&self, span: Span) -> Span {
        let Record { method, target, authority, status, .. } = self.record;
        let mut span = span;
        if let Some(method) = method {
            span = span.request(method, target.as_ref().map_or(&b""[..], |target| target.as_bytes()));
        }
        if let Some(authority) = authority {
            span = span.text("server.address", authority.host());
            if let Some(port) = authority.port_u16() {
                span = span.number("server.port", port);
            }
        }
        match status {
            Some(status) => span.number("http.response.status_code", status.as_u16()),
            None => span,
        }
    }

    /// The name of a span: the method alone, since only the service knows its routes.
    fn name(&self) -> &'static str {
        self.record.method.as_ref().and_then(known_method).unwrap_or("HTTP")
    }

    fn times(&self, from: Duration, to: Duration) -> (SystemTime, SystemTime) {
        (self.record.began_at + from, self.record.began_at + to)
    }
}

/// Why a request failed, if its ending is a failure. A visitor may leave, and may be refused.
fn failure(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Complete | Ending::VisitorLeft | Ending::Refused(_) => None,
        ending => Some(ending.reason().unwrap_or(ending.name())),
    }
}

/// The version of HTTP as the conventions have it.
fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_3 => "3",
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
