//! Traces of requests through cok: W3C Trace Context, the decision to record, and export by OTLP over HTTP.
//!
//! Daemon and client use it alike. It knows nothing of tunnels: the caller says which spans a request had.
//!
//! A request is recorded or not, and that is decided once, at its beginning ([`Tracer::begin`]). Until its end, a recorded
//! request costs its ids. Its spans are made from timestamps when it is over ([`Tracer::record`]), and go through a bounded
//! queue to a thread of their own ([`export`]). Without a collector there is no [`Tracer`], and nothing is done.
//!
//! # What goes on to the next party
//!
//! A request that is recorded goes on with a `traceparent` of ours: the id of our span, under the visitor's trace id or a new
//! one, with the flag `sampled`. Its `tracestate` stays as it is. It is dropped with a `traceparent` that is missing or wrong,
//! since it belongs to a trace that has been lost (W3C Trace Context, section 3.3).
//!
//! A request that is not recorded goes on byte for byte. We take no part in its trace, so its `traceparent` names the visitor's
//! span, and its flag says what the visitor did. W3C Trace Context (section 3.2.2.5.1) lets a party that decides against
//! recording clear `sampled` as well. It then has to name a span of its own (section 3.4), and the trace would name a parent
//! that no one has recorded. Services with the usual parent-based sampler would also stop recording, because of a decision
//! that concerns only us.
//!
//! So `traceparent` names one of our spans exactly if that span is recorded.

mod context;
pub mod export;
mod limit;
mod sampler;
mod settings;
mod span;
mod tracer;

pub use self::context::{Parent, TRACEPARENT, TRACESTATE};
pub use self::sampler::FORCED_PER_SECOND;
pub use self::settings::{Settings, Warnings};
pub use self::span::{Kind, Span, known_method};
pub use self::tracer::{Recording, Tracer, finish};
pub use opentelemetry::{SpanId, TraceId};
