//! Tunnels: how clients connect, which session serves which name, and names that outlive the process. This part knows
//! no visitors.

mod accept;
mod claims;
mod directory;
mod holdings;
mod ledger;
mod memory;
mod origin;
mod presence;
mod refusals;
mod revocation;
mod rules;
mod serve;
mod session;
mod takeover;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::hmac;
use cok_proto::DrainReason;
use cok_transport::WindowBudget;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use self::directory::{Directory, Retention};
pub(crate) use self::ledger::Ledger;
pub(crate) use self::presence::{Held, Live, Presence, ServingKey, Tunnel};
pub(crate) use self::rules::NameRules;
use self::session::Client;
pub(crate) use self::view::{ClientView, SessionView, State, TrafficView, TunnelView};
use crate::admission::{Admission, Fill, filler};
use crate::drain::Drain;
use crate::names::{PublicAddress, Subdomain};
use crate::observe::{Limit, Metrics};
use crate::startup::startup;

/// The interval at which names that have been away for too long are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long readiness waits for tunnels to reconnect, and the poll interval.
const RETURN_LIMIT: Duration = Duration::from_secs(2);
const RETURN_POLL: Duration = Duration::from_millis(20);

/// Settings of tunnels.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) startup: Startup,
    pub(crate) live: LiveConfig,
}

startup! {
    /// Settings that need a restart.
    struct Startup {
        /// Bytes by which all windows of the process may grow in total, beyond their initial sizes. 0 to 1 TiB, default
        /// 256 MiB.
        window_budget: usize = "limits.window_budget",
        /// The most sessions, including those that still authenticate. 1 to 1,000,000, default 10,000.
        max_sessions: usize = "limits.max_sessions",
    }
}

/// Settings that a reload changes, for new sessions and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveConfig {
    /// How long visitors wait for a tunnel that is away: time enough for a client to restart. 0 s to 5 min, default 10
    /// s; a grace longer than browsers and proxies wait is useless.
    pub(crate) reconnect_grace: Duration,
    /// How long an offline name answers 503 with `Retry-After` and stays with its key before it is forgotten (404). 1 s to
    /// 7 d, default 1 h.
    pub(crate) offline_retention: Duration,
    /// The most visitors that wait for one tunnel. Each holds a connection and a request head. 0 (no visitor waits) to
    /// 100,000, default 1,024.
    pub(crate) max_held: usize,
    /// The most exchanges at once in a session. Each may hold `initial_window` in memory in either direction. 1 to
    /// 100,000, default 1,000.
    pub(crate) max_exchanges: u32,
    /// Body bytes of an exchange in flight before its receiver has measured the path. 16 KiB (a Data frame) to 8 MiB,
    /// default 256 KiB. A larger window starts faster over long paths, and each stalled visitor can hold as much. Over
    /// QUIC it is four times as large, since QUIC windows don't grow with the path.
    pub(crate) initial_window: u32,
    /// How long a client's Connect may take. 1 s to 5 min, default 10 s.
    pub(crate) handshake_timeout: Duration,
    /// Which names keys may have, and how many.
    pub(crate) names: NameRules,
}

impl Default for Startup {
    fn default() -> Self {
        Self { window_budget: 256 * 1024 * 1024, max_sessions: 10_000 }
    }
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            reconnect_grace: Duration::from_secs(10),
            offline_retention: Duration::from_secs(3600),
            max_held: 1024,
            max_exchanges: 1000,
            initial_window: 256 * 1024,
            handshake_timeout: Duration::from_secs(10),
            names: NameRules::default(),
        }
    }
}

/// All tunnels, and the shared state of sessions.
#[derive(Debug)]
pub(crate) struct Tunnels {
    config: ArcSwap<LiveConfig>,
    directory: Arc<Directory>,
    address: PublicAddress,
    /// The budget for the growth of windows.
    windows: WindowBudget,
    /// Permits for sessions.
    sessions: Arc<Semaphore>,
    /// The settings that need a restart, for figures.
    startup: Startup,
    admission: Arc<Admission>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    /// Visitors that wait for tunnels.
    held: Arc<AtomicUsize>,
    /// The secret behind the names that the daemon picks.
    names: hmac::Key,
}

impl Tunnels {
    /// Starts without tunnels. Their names are below `address`. Names that the daemon picks derive from `names_secret`.
    pub(crate) fn new(
        config: Config,
        address: PublicAddress,
        admission: Arc<Admission>,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
        names_secret: &[u8],
    ) -> Arc<Self> {
        let Config { startup, live } = config;
        Arc::new(Self {
            directory: Directory::new(Retention::of(&live)),
            config: ArcSwap::from_pointee(live),
            address,
            windows: WindowBudget::new(startup.window_budget),
            sessions: Arc::new(Semaphore::new(startup.max_sessions)),
            startup,
            admission,
            drain,
            metrics,
            held: Arc::default(),
            names: hmac::Key::new(hmac::HMAC_SHA256, names_secret),
        })
    }

    /// Applies new settings.
    pub(crate) fn reload(&self, config: LiveConfig) {
        self.directory.set_retention(Retention::of(&config));
        self.config.store(Arc::new(config));
    }

    /// The current settings. Do not hold them across an await.
    fn config(&self) -> Guard<Arc<LiveConfig>> {
        self.config.load()
    }

    /// Finds the tunnel of a name that is in use or was recently.
    pub(crate) fn find(&self, name: &Subdomain) -> Option<Arc<Tunnel>> {
        self.directory.find(name)
    }

    /// For a name that the daemon picks: characters that only this daemon can tell from the client. An installation gets
    /// the same ones each time, and others for each `counter`.
    fn name_filler(&self, client: &Client, counter: u32) -> String {
        let mut context = hmac::Context::with_key(&self.names);
        for part in [client.owner.key.as_bytes(), client.owner.instance.as_bytes(), &counter.to_be_bytes()] {
            context.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(part);
        }
        filler(context.sign().as_ref())
    }

    /// Whether a tunnel is online, or was so recently that visitors wait for it.
    pub(crate) fn may_answer(&self, tunnel: &Tunnel) -> bool {
        match &*tunnel.presence.borrow() {
            Presence::Online(_) | Presence::Silent(..) => true,
            Presence::Away(since) => since.elapsed() < self.config().reconnect_grace,
            Presence::Closed(_) => false,
        }
    }

    /// Counts a visitor that waits for a tunnel. `None` if too many wait already.
    pub(crate) fn hold(&self, tunnel: &Arc<Tunnel>) -> Option<Held> {
        let held = tunnel.hold(self.config().max_held, &self.held);
        if held.is_none() {
            self.metrics.refusals.beyond(Limit::Held);
        }
        held
    }

    /// How long visitors wait for a tunnel that is away.
    pub(crate) fn grace(&self) -> Duration {
        self.config().reconnect_grace
    }

    /// The most exchanges at once in a session.
    pub(crate) fn max_exchanges(&self) -> u32 {
        self.config().max_exchanges
    }

    /// How many sessions there are, and the most. Those that ask for a session count as well.
    pub(crate) fn session_fill(&self) -> Fill {
        let most = self.startup.max_sessions;
        Fill { used: most.saturating_sub(self.sessions.available_permits()), most }
    }

    /// By how many bytes windows have grown, and the most.
    pub(crate) fn window_fill(&self) -> Fill {
        let most = self.startup.window_budget;
        Fill { used: most.saturating_sub(self.windows.available()), most }
    }

    /// The number of visitors that wait for tunnels.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The number of tunnels that are online.
    pub(crate) fn online(&self) -> usize {
        self.directory.online()
    }

    /// The number of sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.directory.sessions().len()
    }

    /// Asks every session to drain, so that its client connects to the next process.
    pub(crate) fn drain_sessions(&self, within: Duration) {
        for session in self.directory.sessions() {
            session.transport.drain(DrainReason::Restart, within);
        }
    }

    /// Waits until these names are online again, at most [`RETURN_LIMIT`], since their clients may be gone.
    pub(crate) async fn back(&self, mut names: Vec<Subdomain>) {
        let limit = Instant::now() + RETURN_LIMIT;
        while !names.is_empty() && Instant::now() < limit {
            names.retain(|name| self.find(name).is_some_and(|tunnel| tunnel.live().is_none()));
            sleep(RETURN_POLL).await;
        }
    }

    /// Removes names that have been away for too long, periodically. Runs until it is dropped.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP_EVERY);
        loop {
            interval.tick().await;
            self.directory.sweep();
        }
    }
}

#[cfg(test)]
mod tests;
