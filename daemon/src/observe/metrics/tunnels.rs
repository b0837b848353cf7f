//! Requests and bytes of single tunnels, for operators who ask for it. A tunnel's name comes from its client, so the number of
//! series has a bound of its own; the tunnels beyond it count together, under a name that none can have.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::names::Subdomain;
use crate::observe::record::Record;

/// The label of all tunnels that have no series of their own. A tunnel's name begins with no underscore.
const OTHER: &str = "_other";

/// Series of single tunnels.
#[derive(Debug, Default)]
pub(crate) struct TunnelSeries {
    /// The most tunnels with series of their own. With 0, nothing is counted.
    most: AtomicUsize,
    series: papaya::HashMap<Subdomain, Series>,
    other: Series,
    /// Serializes tunnels that come and go. Requests do not take it.
    changes: Mutex<()>,
}

/// The counts of one tunnel.
#[derive(Debug, Default)]
struct Series {
    /// Sessions that serve the tunnel: two for a moment, while it moves.
    online: AtomicUsize,
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

impl Series {
    fn count(&self, record: &Record) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.request_bytes.fetch_add(record.request_bytes, Ordering::Relaxed);
        self.response_bytes.fetch_add(record.response_bytes, Ordering::Relaxed);
    }
}

impl TunnelSeries {
    /// Changes the most tunnels with series of their own. It counts for tunnels that come online later.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A session begins to serve a tunnel.
    pub(super) fn begin(&self, name: &Subdomain) {
        let most = self.most.load(Ordering::Relaxed);
        if most == 0 {
            return;
        }
        let _turn = self.changes.lock();
        let series = self.series.pin();
        if series.len() < most || series.contains_key(name) {
            series.get_or_insert_with(name.clone(), Series::default).online.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session does not serve a tunnel any more. The last one takes the tunnel's series away.
    pub(super) fn end(&self, name: &Subdomain) {
        let _turn = self.changes.lock();
        let series = self.series.pin();
        let Some(of_tunnel) = series.get(name) else { return };
        // A session from a time without labels may have no part in it.
        let left = of_tunnel.online.load(Ordering::Relaxed).saturating_sub(1);
        of_tunnel.online.store(left, Ordering::Relaxed);
        if left == 0 {
            series.remove(name);
        }
    }

    /// Counts a request that is over.
    pub(super) fn finished(&self, record: &Record) {
        if self.most.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(name) = &record.tunnel else { return };
        match self.series.pin().get(name) {
            Some(series) => series.count(record),
            None => self.other.count(record),
        }
    }
}

impl Collector for TunnelSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.most.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let series = self.series.pin();
        let all = || series.iter().map(|(name, series)| (name.as_str(), series)).chain([(OTHER, &self.other)]);
        let help = "Requests to single tunnels; those without series of their own are _other";
        let mut requests = encoder.encode_descriptor("tunnel_requests", help, None, MetricType::Counter)?;
        for (tunnel, series) in all() {
            let count = series.requests.load(Ordering::Relaxed);
            let labels = [("tunnel", tunnel)];
            requests.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        let help = "Bytes of bodies of single tunnels, by direction";
        let mut bytes = encoder.encode_descriptor("tunnel_body_bytes", help, None, MetricType::Counter)?;
        for (tunnel, series) in all() {
            for (direction, count) in [("request", &series.request_bytes), ("response", &series.response_bytes)] {
                let count = count.load(Ordering::Relaxed);
                let labels = [("tunnel", tunnel), ("direction", direction)];
                bytes.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}
