//! What the daemon holds at the moment of a scrape. Its parts keep these figures anyway; nothing is counted for them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::admission::Fill;

/// What the daemon holds, and how it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Public connections that are open.
    pub(crate) connections: Fill,
    /// Sessions, with those that still ask for one.
    pub(crate) sessions: Fill,
    /// Exchanges that are open.
    pub(crate) exchanges: usize,
    /// Visitors that wait for a tunnel.
    pub(crate) waiting: usize,
    /// Exchanges that were ended because their visitors stood still.
    pub(crate) stalled: u64,
    /// Exchanges that were ended because others needed their place or their memory.
    pub(crate) evicted: u64,
    /// Bytes of bodies that exchanges hold.
    pub(crate) buffered: Fill,
    /// Bytes by which windows have grown.
    pub(crate) windows: Fill,
    /// Whether visitors can use the daemon.
    pub(crate) is_ready: bool,
    /// Each component of health, and whether it works.
    pub(crate) components: Vec<(&'static str, bool)>,
    /// Free bytes of the disk with the state directory, if that is known.
    pub(crate) disk_free: Option<u64>,
}

/// Reads the figures.
pub(crate) type Read = Box<dyn Fn() -> Figures + Send + Sync>;

/// Shows the figures at each scrape, once they can be read.
#[derive(Clone, Default)]
pub(super) struct State(Arc<OnceLock<Read>>);

impl State {
    pub(super) fn read_by(&self, read: Read) {
        let _first = self.0.set(read);
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(figures) = self.0.get().map(|read| read()) else { return Ok(()) };
        let Figures { connections, sessions, buffered, windows, .. } = figures;
        for (name, help, value) in [
            ("active_connections", "Public connections that are open", connections.used as u64),
            ("connections_limit", "The most public connections", connections.most as u64),
            ("sessions_limit", "The most sessions", sessions.most as u64),
            ("exchanges_open", "Requests and streams that are open in tunnels", figures.exchanges as u64),
            ("exchanges_waiting", "Visitors that wait for a tunnel that is away", figures.waiting as u64),
            ("buffered_bytes", "Bytes of bodies that exchanges hold", buffered.used as u64),
            ("buffered_limit_bytes", "The most bytes of bodies that exchanges may hold", buffered.most as u64),
            ("window_budget_used_bytes", "Bytes by which windows have grown", windows.used as u64),
            ("window_budget_limit_bytes", "Bytes by which all windows may grow", windows.most as u64),
            ("ready", "1 while visitors can use the daemon, else 0", figures.is_ready.into()),
        ] {
            let named = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(named)?;
        }
        if let Some(free) = figures.disk_free {
            let help = "Free bytes of the disk with the state directory";
            let named = encoder.encode_descriptor("disk_free_bytes", help, None, MetricType::Gauge)?;
            ConstGauge::new(free).encode(named)?;
        }
        let help = "Exchanges that the daemon has ended before their time, by reason";
        let mut ended = encoder.encode_descriptor("exchanges_ended", help, None, MetricType::Counter)?;
        for (reason, count) in [("stalled", figures.stalled), ("evicted", figures.evicted)] {
            let labels = [("reason", reason)];
            ended.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        let help = "1 while a component works, else 0";
        let mut healthy = encoder.encode_descriptor("component_healthy", help, None, MetricType::Gauge)?;
        for (component, works) in figures.components {
            healthy.encode_family(&[("component", component)])?.encode_gauge(&u64::from(works))?;
        }
        Ok(())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
