//! Records exchanges as spans: one of the exchange, under the daemon's, and below it one of the request to the service, which
//! the service finds in `traceparent`. It wraps the response's half of an exchange, so the proxy does not know of it.
//! Exchanges that are not recorded are not wrapped.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{RequestHead, ResetCode, ResponseHead, Scheme, Target as RequestTarget};
use cok_trace::{Kind, Recording, Span, SpanId, Tracer, known_method};
use cok_transport::{ExchangeError, Incoming, SendHalf};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};

use crate::target::Target;

/// Has an exchange recorded, if it is one of those that are. `transport` carries it, and `service` answers it.
pub(crate) fn traced(tracer: &Tracer, mut incoming: Incoming, transport: &'static str, service: &Target) -> Incoming {
    let Some(recording) = tracer.begin(&incoming.head.headers) else { return incoming };
    let request = recording.child();
    recording.write(request, &mut incoming.head.headers);
    let RequestHead { method, target, scheme, authority, .. } = &incoming.head;
    let exchange = Exchange {
        tracer: tracer.clone(),
        recording,
        request,
        began: Instant::now(),
        began_at: SystemTime::now(),
        transport,
        service: service.clone(),
        method: method.clone(),
        target: target.clone(),
        scheme: *scheme,
        authority: authority.clone(),
        status: None,
        answered: None,
        ending: None,
    };
    let send = incoming.exchange.send;
    incoming.exchange.send = Box::new(Traced { send, exchange: Box::new(exchange) });
    incoming
}

/// What is known of a recorded exchange.
#[derive(Debug)]
struct Exchange {
    tracer: Tracer,
    recording: Recording,
    /// The id of the span of the request to the service.
    request: SpanId,
    began: Instant,
    began_at: SystemTime,
    transport: &'static str,
    service: Target,
    method: Method,
    target: RequestTarget,
    scheme: Scheme,
    authority: Authority,
    status: Option<StatusCode>,
    /// When the service had given all that it gives, as the time since it began.
    answered: Option<Duration>,
    ending: Option<Ending>,
}

/// How an exchange ends. The first word about it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The tunnel took the whole response.
    Complete,
    /// The daemon wants no more of it.
    VisitorLeft,
    /// The session ended.
    SessionLost,
    /// The service or the way to it failed, with this code for the daemon.
    Failed(ResetCode),
}

impl Ending {
    /// Its name in `cok.ending`.
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::VisitorLeft => "visitor_left",
            Self::SessionLost => "session_lost",
            Self::Failed(code) => code.name(),
        }
    }

    /// Whether something has failed. A visitor may leave.
    fn is_failure(self) -> bool {
        matches!(self, Self::SessionLost | Self::Failed(_))
    }
}

impl Exchange {
    fn ends(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.answered.get_or_insert_with(|| self.began.elapsed());
    }

    /// Notes why the tunnel takes no more.
    fn broken(&mut self, error: ExchangeError) {
        match error {
            ExchangeError::SessionLost => self.ends(Ending::SessionLost),
            // The request's body alone is not wanted any more.
            ExchangeError::Reset(ResetCode::NoError) => {}
            ExchangeError::Reset(_) => self.ends(Ending::VisitorLeft),
        }
    }

    /// Hands over its spans.
    fn record(&mut self) {
        // A task that is dropped leaves its exchange as it is: the client stops.
        let ending = *self.ending.get_or_insert(Ending::Failed(ResetCode::LocalBroken));
        let now = self.began.elapsed();
        let until = |end: Duration| (self.began_at, self.began_at + end);
        let name = known_method(&self.method).unwrap_or("HTTP");
        let whole = self.recording.root(name, until(now));
        let whole = addressed(whole, self.authority.host(), self.authority.port_u16())
            .named("url.scheme", self.scheme.as_str())
            .named("cok.transport", self.transport)
            .named("cok.ending", ending.name());
        let asked = self.recording.below(
            self.recording.span,
            self.request,
            if matches!(self.service, Target::Service(_)) { Kind::Internal } else { Kind::Client },
            name,
            until(self.answered.unwrap_or(now)),
        );
        let (whole, asked) =
            (self.describe(whole, ending, 500), self.describe(of_service(asked, &self.service), ending, 400));
        self.tracer.record(asked);
        self.tracer.record(whole);
    }

    /// Adds what both spans have. A status from `fails_from` on is a failure.
    fn describe(&self, span: Span, ending: Ending, fails_from: u16) -> Span {
        let span = span.request(&self.method, self.target.as_bytes());
        let Some(status) = self.status else {
            return if ending.is_failure() { span.failed(ending.name()) } else { span };
        };
        let span = span.number("http.response.status_code", status.as_u16());
        if ending.is_failure() {
            span.failed(ending.name())
        } else if status.as_u16() >= fails_from {
            span.failed(status.as_str().to_owned())
        } else {
            span
        }
    }
}

/// Adds who was asked.
fn addressed(span: Span, host: &str, port: Option<u16>) -> Span {
    let span = span.text("server.address", host.trim_start_matches('[').trim_end_matches(']'));
    match port {
        Some(port) => span.number("server.port", port),
        None => span,
    }
}

/// Adds where the service is.
fn of_service(span: Span, service: &Target) -> Span {
    match service {
        Target::Http(address) | Target::H2c(address) => {
            addressed(span, &address.host, Some(address.port)).named("url.scheme", "http")
        }
        Target::Https(address) => addressed(span, &address.host, Some(address.port)).named("url.scheme", "https"),
        Target::Unix(path) => span.text("server.address", &path.to_string_lossy()).named("network.transport", "unix"),
        Target::Service(_) => span,
    }
}

/// The response's half of a recorded exchange.
#[derive(Debug)]
struct Traced {
    send: Box<dyn SendHalf>,
    exchange: Box<Exchange>,
}

impl SendHalf for Traced {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let ready = ready!(self.send.poll_ready(cx));
        if let Err(error) = ready {
            self.exchange.broken(error);
        }
        Poll::Ready(ready)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let error = ready!(self.send.poll_broken(cx));
        self.exchange.broken(error);
        Poll::Ready(error)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let status = (!head.is_interim()).then_some(head.status);
        self.send.send_response(head, end)?;
        self.exchange.status = self.exchange.status.or(status);
        if end {
            self.exchange.ends(Ending::Complete);
        }
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        if end {
            self.exchange.ends(Ending::Complete);
        }
        self.send.send_data(data, end);
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.send.send_trailers(fields)?;
        self.exchange.ends(Ending::Complete);
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.exchange.ends(Ending::Failed(code));
        self.send.break_off(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.exchange.ends(Ending::Failed(code));
        self.send.reset(code);
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.exchange.record();
    }
}
