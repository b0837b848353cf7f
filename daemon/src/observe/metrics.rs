//! The daemon's metrics. Counting takes no lock.

use std::sync::Arc;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::record::Record;

/// Upper bounds of the duration buckets in seconds: from a local cache hit to a long generation.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RateLabel {
    rate: &'static str,
}

/// What was refused because of a rate.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Connections, before TLS.
    pub(crate) connections: Counter,
    /// Handshakes.
    pub(crate) handshakes: Counter,
    /// Requests over the rate of their visitor.
    pub(crate) visitor_requests: Counter,
    /// Requests over the rate of their tunnel.
    pub(crate) tunnel_requests: Counter,
    /// Requests over the rate of their key.
    pub(crate) key_requests: Counter,
    /// Wrong keys.
    pub(crate) keys: Counter,
}

impl Refused {
    fn new(registry: &mut Registry) -> Self {
        let family = Family::<RateLabel, Counter>::default();
        registry.register("refused", "Refused because of a rate, by rate", family.clone());
        let counter = |rate| family.get_or_create(&RateLabel { rate }).clone();
        Self {
            connections: counter("connections"),
            handshakes: counter("handshakes"),
            visitor_requests: counter("visitor_requests"),
            tunnel_requests: counter("tunnel_requests"),
            key_requests: counter("key_requests"),
            keys: counter("keys"),
        }
    }
}

/// The daemon's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Public connections accepted, over TCP and QUIC.
    pub(crate) connections: Counter,
    /// QUIC handshakes that had to prove their address first.
    pub(crate) retries: Counter,
    /// Tunnels that are online.
    pub(crate) active_tunnels: Gauge,
    /// The certificate's expiry in seconds since 1970; 0 while the daemon serves a stand-in.
    pub(crate) certificate_expiry: Gauge,
    /// Certificates that replaced another one while the process ran.
    pub(crate) certificate_renewals: Counter,
    /// Failed attempts to get a certificate.
    pub(crate) certificate_failures: Counter,
    /// What was refused because of a rate.
    pub(crate) refused: Refused,
    /// Lines of the access log that were not written.
    pub(crate) access_log_lost: Counter,
    requests: Family<StatusLabel, Counter>,
    /// The counters of `requests` by status minus 100. Each takes the family's lock only once.
    by_status: Vec<OnceLock<Counter>>,
    durations: Durations,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cok");
        let (connections, active_tunnels, requests) = (Counter::default(), Gauge::default(), Family::default());
        let (retries, durations) = (Counter::default(), Durations::default());
        registry.register("connections", "Public connections accepted", connections.clone());
        registry.register("requests", "Requests answered, by status", requests.clone());
        registry.register("request_duration_seconds", "From a request's head to its response's end", durations.clone());
        registry.register("quic_retries", "QUIC handshakes that had to prove their address first", retries.clone());
        registry.register("active_tunnels", "Tunnels that are online", active_tunnels.clone());
        let (certificate_expiry, certificate_renewals) = (Gauge::default(), Counter::default());
        let certificate_failures = Counter::default();
        registry.register(
            "certificate_expiry_seconds",
            "When the certificate expires, in seconds since 1970; 0 if there is none yet",
            certificate_expiry.clone(),
        );
        registry.register("certificate_renewals", "Certificates taken into use", certificate_renewals.clone());
        registry.register("certificate_failures", "Attempts that brought no certificate", certificate_failures.clone());
        let refused = Refused::new(&mut registry);
        let access_log_lost = Counter::default();
        registry.register("access_log_lost", "Lines of the access log that were not written", access_log_lost.clone());
        let by_status = std::iter::repeat_with(OnceLock::new).take(900).collect();
        Self {
            registry,
            connections,
            retries,
            active_tunnels,
            certificate_expiry,
            certificate_renewals,
            certificate_failures,
            refused,
            access_log_lost,
            requests,
            by_status,
            durations,
        }
    }
}

/// Counts one tunnel as online until it is dropped.
#[derive(Debug)]
pub(crate) struct TunnelOnline(Arc<Metrics>);

impl Drop for TunnelOnline {
    fn drop(&mut self) {
        self.0.active_tunnels.dec();
    }
}

impl Metrics {
    /// Counts a tunnel as online.
    pub(crate) fn tunnel_online(self: Arc<Self>) -> TunnelOnline {
        self.active_tunnels.inc();
        TunnelOnline(self)
    }

    /// Counts a request that is over, if it got a response.
    pub(crate) fn finished(&self, record: &Record) {
        if let Some(status) = record.status {
            self.answered(status, record.duration());
        }
    }

    fn answered(&self, status: StatusCode, took: Duration) {
        let status = status.as_u16();
        if let Some(counter) = self.by_status.get(usize::from(status) - 100) {
            counter.get_or_init(|| self.requests.get_or_create(&StatusLabel { status }).clone()).inc();
        }
        self.durations.observe(took);
    }

    /// The metrics in OpenMetrics text.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _infallible = text::encode(&mut out, &self.registry);
        out
    }
}

/// A histogram of atomics. The library's histogram takes a lock for each observation.
#[derive(Clone, Debug, Default)]
struct Durations(std::sync::Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = BUCKETS.into_iter().chain([f64::MAX]).zip(counts).collect();
        let sum = self.0.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_names_are_there() {
        let metrics = Metrics::default();
        metrics.answered(StatusCode::OK, Duration::ZERO);
        metrics.connections.inc();
        let text = metrics.encode();
        for line in [
            "cok_connections_total 1",
            "cok_requests_total{status=\"200\"} 1",
            "cok_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "cok_request_duration_seconds_count 1",
            "cok_active_tunnels 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
