//! Requests: their status, duration, phases and bytes, and how they end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::family::{Counters, Histograms};
use super::labels::{Transport, Version, label};
use crate::observe::ending::Ending;
use crate::observe::record::{Phases, Record};

/// Upper bounds of the duration buckets in seconds: from a local cache hit to a long generation.
const DURATIONS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Upper bounds of the phases' buckets in seconds: the edge takes some 50 µs, a tunnel a round trip.
const PHASES: [f64; 13] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The lowest and highest status that HTTP has room for.
const STATUSES: (u16, u16) = (100, 999);

label! {
    /// A part of the time to the first byte.
    Phase = "phase" {
        /// Judging and routing.
        Edge = "edge",
        /// Waiting for a session.
        Waiting = "waiting",
        /// The way through the tunnel and back.
        Tunnel = "tunnel",
        /// The local service.
        Service = "service",
    }
}

label! {
    /// A direction of bodies.
    Direction = "direction" {
        /// From visitors.
        Request = "request",
        /// To visitors.
        Response = "response",
    }
}

label! {
    /// How a request ends.
    End = "ending" {
        /// Its response is complete.
        Complete = "complete",
        /// Its visitor left.
        VisitorLeft = "visitor_left",
        /// The daemon refused it.
        Refused = "refused",
        /// The service or the way to it failed before a response.
        Failed = "failed",
        /// The response broke off.
        Broken = "broken",
        /// Its visitor stood still.
        Stalled = "stalled",
        /// Others needed its place or its memory.
        Evicted = "evicted",
        /// The daemon stopped.
        Drained = "drained",
    }
}

label! {
    /// Why an exchange was reset, or got no response.
    Reset = "reason" {
        /// The session ended.
        SessionLost = "session_lost",
        /// The client abandoned it.
        Cancelled = "cancelled",
        /// The client has not passed it on.
        Unprocessed = "unprocessed",
        /// The local service refused the connection.
        ServiceRefused = "service_refused",
        /// The local service did not answer in time.
        ServiceTimeout = "service_timeout",
        /// The local service broke off.
        ServiceBroke = "service_broke",
        /// The local service's name does not resolve.
        ServiceUnresolved = "service_unresolved",
        /// The local service's certificate is not trusted.
        ServiceUntrusted = "service_untrusted",
        /// The local service speaks another protocol.
        ServiceMismatch = "service_mismatch",
        /// The local service's response is not valid HTTP.
        ServiceInvalid = "service_invalid",
        /// A head is longer than a tunnel carries.
        TooLarge = "too_large",
        /// No session had the tunnel for too long.
        Offline = "offline",
        /// Anything else.
        Other = "other",
    }
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Complete => Self::Complete,
            Ending::VisitorLeft => Self::VisitorLeft,
            Ending::Refused(_) => Self::Refused,
            Ending::Failed(_) => Self::Failed,
            Ending::Broken(_) => Self::Broken,
            Ending::Stalled => Self::Stalled,
            Ending::Evicted => Self::Evicted,
            Ending::Drained => Self::Drained,
        }
    }
}

impl Reset {
    /// The reason that has this name. The names are those of [`Ending::reason`].
    fn named(reason: &str) -> Self {
        match reason {
            "session_lost" => Self::SessionLost,
            "cancelled" => Self::Cancelled,
            "unprocessed" => Self::Unprocessed,
            "service_refused" => Self::ServiceRefused,
            "service_timeout" => Self::ServiceTimeout,
            "service_broke" => Self::ServiceBroke,
            "service_unresolved" => Self::ServiceUnresolved,
            "service_untrusted" => Self::ServiceUntrusted,
            "service_mismatch" => Self::ServiceMismatch,
            "service_invalid" => Self::ServiceInvalid,
            "too_large" | "response_too_large" => Self::TooLarge,
            "offline" => Self::Offline,
            _ => Self::Other,
        }
    }
}

/// Metrics of requests.
#[derive(Debug)]
pub(crate) struct Requests {
    by_status: Statuses,
    durations: Histograms<()>,
    phases: Histograms<(Phase, Version, Transport)>,
    bytes: Counters<(Direction, Version, Transport)>,
    ends: Counters<(End, Version)>,
    resets: Counters<(Reset,)>,
    retries: Counter,
}

impl Requests {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self {
            by_status: Statuses::default(),
            durations: Histograms::new(&DURATIONS),
            phases: Histograms::new(&PHASES),
            bytes: Counters::default(),
            ends: Counters::default(),
            resets: Counters::default(),
            retries: Counter::default(),
        };
        registry.register("requests", "Requests answered, by status", new.by_status.clone());
        let help = "From a request's head to its response's end";
        registry.register("request_duration_seconds", help, new.durations.clone());
        let help = "Parts of the time to a response's first byte, by phase";
        registry.register("request_phase_seconds", help, new.phases.clone());
        let help = "Bytes of bodies, and after an upgrade all bytes, by direction";
        registry.register("body_bytes", help, new.bytes.clone());
        registry.register("request_ends", "Requests that ended, by how", new.ends.clone());
        let help = "Requests that failed in the tunnel, and responses that broke off, by reason";
        registry.register("exchange_resets", help, new.resets.clone());
        registry.register("request_retries", "Further attempts to send a request into its tunnel", new.retries.clone());
        new
    }

    /// Counts a request that is over.
    pub(super) fn finished(&self, record: &Record) {
        if let Some(status) = record.status {
            self.by_status.inc(status);
            self.durations.observe((), record.duration());
        }
        let version = Version::from(record.version);
        let transport = record.transport.map_or(Transport::None, Transport::named);
        let Phases { edge, waiting, tunnel, service } = record.phases();
        for (phase, took) in
            [(Phase::Edge, Some(edge)), (Phase::Waiting, waiting), (Phase::Tunnel, tunnel), (Phase::Service, service)]
        {
            if let Some(took) = took {
                self.phases.observe((phase, version, transport), took);
            }
        }
        self.bytes.add((Direction::Request, version, transport), record.request_bytes);
        self.bytes.add((Direction::Response, version, transport), record.response_bytes);
        self.retries.inc_by(u64::from(record.attempts.saturating_sub(1)));
        let Some(ending) = record.ending else { return };
        self.ends.inc((ending.into(), version));
        if let Ending::Failed(reason) | Ending::Broken(reason) = ending {
            self.resets.inc((Reset::named(reason),));
        }
    }
}

/// Counters by status. Only those that have counted appear.
#[derive(Clone)]
struct Statuses(Arc<[AtomicU64]>);

impl Default for Statuses {
    fn default() -> Self {
        let (lowest, highest) = STATUSES;
        Self((lowest..=highest).map(|_| AtomicU64::default()).collect())
    }
}

impl Statuses {
    fn inc(&self, status: StatusCode) {
        if let Some(counter) = self.0.get(usize::from(status.as_u16() - STATUSES.0)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EncodeMetric for Statuses {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (status, counter) in (STATUSES.0..).zip(self.0.iter()) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                let labels = [("status", status)];
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statuses").finish_non_exhaustive()
    }
}
