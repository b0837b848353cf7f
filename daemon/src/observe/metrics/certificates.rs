//! The certificate's expiry and renewals.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cok_certs::unix_now;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::certificates::Change;

/// Metrics of the certificate.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    served: Arc<Served>,
    renewals: Counter,
    failures: Counter,
}

/// The validity of the certificate that is served, in seconds since 1970; 0 while the daemon serves a stand-in.
#[derive(Debug, Default)]
struct Served {
    not_before: AtomicI64,
    not_after: AtomicI64,
}

impl Certificates {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register_collector(Box::new(new.served.clone()));
        registry.register("certificate_renewals", "Certificates taken into use", new.renewals.clone());
        registry.register("certificate_failures", "Attempts that brought no certificate", new.failures.clone());
        new
    }

    /// Counts a change.
    pub(crate) fn note(&self, change: &Change) {
        match change {
            Change::Serving(validity) => {
                self.served.not_before.store(validity.not_before, Ordering::Relaxed);
                self.served.not_after.store(validity.not_after, Ordering::Relaxed);
            }
            Change::Renewed => _ = self.renewals.inc(),
            Change::Failed => _ = self.failures.inc(),
        }
    }
}

impl Collector for Served {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let begin = self.not_before.load(Ordering::Relaxed);
        let help = "When the certificate's validity begins, in seconds since 1970; 0 if there is none yet";
        let named = encoder.encode_descriptor("certificate_not_before_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(begin).encode(named)?;
        let expiry = self.not_after.load(Ordering::Relaxed);
        let help = "When the certificate expires, in seconds since 1970; 0 if there is none yet";
        let named = encoder.encode_descriptor("certificate_expiry_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(expiry).encode(named)?;
        let left = if expiry == 0 { 0 } else { expiry - unix_now() };
        let help = "Time until the certificate expires; 0 if there is none yet, and negative once it has expired";
        let named = encoder.encode_descriptor("certificate_valid_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(left).encode(named)
    }
}
