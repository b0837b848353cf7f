//! The daemon's metrics: an explicit registry, and one file for each group of families. Counting takes no lock, and a scrape
//! takes none that requests need.

mod arrivals;
mod certificates;
mod exposition;
mod family;
mod labels;
mod process;
mod refusals;
mod requests;
mod runtime;
mod sessions;
mod state;
mod traces;
mod tunnels;

use std::sync::Arc;

use cok_trace::Tracer;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use self::arrivals::Arrivals;
pub(crate) use self::arrivals::{HandshakeOutcome, Security};
use self::certificates::Certificates;
pub(crate) use self::exposition::Form;
use self::family::Counted;
use self::labels::Transport;
use self::process::Process;
use self::refusals::Refusals;
pub(crate) use self::refusals::{Limit, Rate};
use self::requests::Requests;
use self::runtime::Runtime;
use self::sessions::Sessions;
pub(crate) use self::sessions::{Greeting, Return};
pub(crate) use self::state::Figures;
use self::state::{Read, State};
use self::traces::Traces;
use self::tunnels::TunnelSeries;
use super::record::Record;
use crate::names::Subdomain;

/// Settings of metrics. A reload changes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The most tunnels with requests and bytes of their own in the metrics. 0 to 10,000, default 0: none has. Each has three
    /// series, which a scraper keeps for as long as its retention, so names that change often cost it memory.
    pub(crate) tunnel_labels: usize,
}

/// The daemon's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Public connections.
    pub(crate) arrivals: Arrivals,
    /// What was refused.
    pub(crate) refusals: Refusals,
    /// Sessions and tunnels.
    pub(crate) sessions: Sessions,
    /// The certificate.
    pub(crate) certificates: Certificates,
    /// The event loop.
    pub(crate) runtime: Runtime,
    /// Lines of the access log that were not written.
    pub(crate) access_log_lost: Counter,
    requests: Requests,
    by_tunnel: Arc<TunnelSeries>,
    state: State,
    traces: Traces,
}

impl Metrics {
    /// Nothing has been counted yet.
    pub(crate) fn new(config: Config) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let cok = registry.sub_registry_with_prefix("cok");
        let (by_tunnel, state, traces) = (Arc::<TunnelSeries>::default(), State::default(), Traces::default());
        by_tunnel.set_most(config.tunnel_labels);
        cok.register_collector(Box::new(state.clone()));
        cok.register_collector(Box::new(traces.clone()));
        cok.register_collector(Box::new(by_tunnel.clone()));
        let arrivals = Arrivals::new(cok);
        let refusals = Refusals::new(cok);
        let sessions = Sessions::new(cok);
        let certificates = Certificates::new(cok);
        let runtime = Runtime::new(cok);
        let requests = Requests::new(cok);
        let access_log_lost = Counter::default();
        cok.register("access_log_lost", "Lines of the access log that were not written", access_log_lost.clone());
        Self {
            registry,
            arrivals,
            refusals,
            sessions,
            certificates,
            runtime,
            access_log_lost,
            requests,
            by_tunnel,
            state,
            traces,
        }
    }

    /// Applies new settings.
    pub(crate) fn reload(&self, config: Config) {
        self.by_tunnel.set_most(config.tunnel_labels);
    }

    /// Shows at each scrape what the daemon holds.
    pub(crate) fn read_by(&self, read: Read) {
        self.state.read_by(read);
    }

    /// Takes what records requests, to show what becomes of its spans. Without effect if there is one.
    pub(crate) fn set_tracer(&self, tracer: Tracer) {
        self.traces.set(tracer);
    }

    /// What records requests, if they are recorded.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.traces.get()
    }

    /// Counts a tunnel as online until the guard is dropped.
    pub(crate) fn tunnel_online(self: Arc<Self>, name: &Subdomain) -> TunnelOnline {
        self.sessions.active_tunnels.inc();
        self.by_tunnel.begin(name);
        TunnelOnline { metrics: self, name: name.clone() }
    }

    /// Counts a request that is over.
    pub(crate) fn finished(&self, record: &Record) {
        self.requests.finished(record);
        self.by_tunnel.finished(record);
    }

    /// The metrics as text. Reads files of the kernel, so it belongs on a thread that may block, within the runtime.
    pub(crate) fn encode(&self, form: Form) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _infallible = text::encode(&mut out, &self.registry);
        form.of(out)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// Counts a session as open until it is dropped.
pub(crate) type SessionOpen = Counted<(Transport,)>;

/// Counts one tunnel as online until it is dropped.
#[derive(Debug)]
pub(crate) struct TunnelOnline {
    metrics: Arc<Metrics>,
    name: Subdomain,
}

impl Drop for TunnelOnline {
    fn drop(&mut self) {
        self.metrics.sessions.active_tunnels.dec();
        self.metrics.by_tunnel.end(&self.name);
    }
}

#[cfg(test)]
mod tests;
