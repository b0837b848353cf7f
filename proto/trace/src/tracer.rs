//! Records requests: decides at their beginning, and hands their spans to the exporter at their end.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use opentelemetry::{SpanId, TraceId};
use tracing::{info, warn};

use crate::context::{Parent, TRACESTATE, state_of};
use crate::export::Exporter;
use crate::sampler::Sampler;
use crate::settings::Settings;
use crate::span::{Kind, Span};

/// Records the requests of this process. Clones share everything.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    sampler: Sampler,
    exporter: Exporter,
}

/// A request that is recorded.
#[derive(Debug)]
pub struct Recording {
    /// The trace.
    pub trace: TraceId,
    /// Our span of the whole request.
    pub span: SpanId,
    /// The sender's span.
    parent: Option<SpanId>,
    state: Option<Box<str>>,
}

impl Tracer {
    /// Starts the export that the environment asks for, if any. Logs what is wrong about its variables.
    pub fn from_env(service: &'static str, version: &'static str) -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let (settings, warnings) = Settings::read(service, version, variable);
        for warning in warnings {
            warn!(event = "trace_setting", warning, "{warning}");
        }
        let settings = settings?;
        // A query may hold a key.
        let endpoint = settings.endpoint.authority().map(ToString::to_string).unwrap_or_default();
        match Self::start(settings, service, version) {
            Ok(tracer) => {
                info!(event = "tracing", endpoint, "requests are recorded and exported to {endpoint}");
                Some(tracer)
            }
            Err(error) => {
                warn!(event = "not_tracing", endpoint, error, "no traces are exported to {endpoint}: {error}");
                None
            }
        }
    }

    /// Starts the export with these settings.
    pub fn start(settings: Settings, service: &'static str, version: &'static str) -> Result<Self, String> {
        let sampler = Sampler::new(settings.rule);
        Ok(Self(Arc::new(Parts { sampler, exporter: Exporter::start(settings, service, version)? })))
    }

    /// Decides about a request with these fields. `None` if it is not recorded; then it goes on as it is.
    pub fn begin(&self, headers: &HeaderMap) -> Option<Recording> {
        let parent = Parent::of(headers);
        let trace = parent.map_or_else(|| TraceId::from(fastrand::u128(1..)), |parent| parent.trace);
        self.0.sampler.records(parent.as_ref(), trace).then(|| Recording {
            trace,
            span: new_span(),
            parent: parent.map(|parent| parent.span),
            state: parent.and_then(|_| state_of(headers)),
        })
    }

    /// Takes a span that is over. Never waits: with a full queue, the span is dropped and counted.
    pub fn record(&self, span: Span) {
        self.0.exporter.send(span);
    }

    /// How many spans were dropped because the collector did not take them in time.
    pub fn dropped(&self) -> u64 {
        self.0.exporter.dropped()
    }
}

/// Ends the export, if there is one. What waits may still be sent, but not for longer than [`crate::export::LAST_FLUSH`].
/// Blocks the thread meanwhile, so it is for the end of a program.
pub fn finish(tracer: Option<Tracer>) {
    if let Some(tracer) = tracer {
        tracer.0.exporter.finish();
    }
}

impl Recording {
    /// The id for a span below the whole request's.
    pub fn child(&self) -> SpanId {
        new_span()
    }

    /// Names a span of ours in a request that goes on. A state without a valid parent belongs to a lost trace, and goes.
    pub fn write(&self, span: SpanId, headers: &mut HeaderMap) {
        Parent { trace: self.trace, span, is_sampled: true }.write(headers);
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
    }

    /// The span of the whole request.
    pub fn root(&self, name: &'static str, times: (SystemTime, SystemTime)) -> Span {
        let mut span = Span::new(self.trace, self.span, Kind::Server, name, times).under_remote(self.parent);
        span.state.clone_from(&self.state);
        span
    }

    /// A span below another one of ours.
    pub fn below(
        &self,
        parent: SpanId,
        id: SpanId,
        kind: Kind,
        name: &'static str,
        times: (SystemTime, SystemTime),
    ) -> Span {
        let mut span = Span::new(self.trace, id, kind, name, times).under(parent);
        span.state.clone_from(&self.state);
        span
    }
}

/// A new id of a span. It needs no secrecy.
fn new_span() -> SpanId {
    SpanId::from(fastrand::u64(1..))
}
