//! How the daemon stops: the drain that every part watches, the requests in flight, and what the next process inherits.
//!
//! `stop` shows the order of a stop, from top to bottom. This part starts and ends no connection itself.

pub(crate) mod detached;
pub(crate) mod initials;
mod phase;
mod port;
mod requests;
pub(crate) mod stop;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::phase::Phases;
pub(crate) use self::phase::{FIRST_REQUEST, Phase, Watch};
pub(crate) use self::port::Port;
use self::requests::InFlight;

/// Settings of a stop. A reload can change all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// How long exchanges in flight may take once the daemon stops. 0 s to 1 h, default 30 s. The daemon extends
    /// systemd's stop limit to fit. Other service managers must grant that time, or they cut long transfers.
    pub(crate) timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}

/// The drain as every part sees it: the phase, and what is still open.
#[derive(Debug)]
pub(crate) struct Drain {
    config: ArcSwap<Config>,
    phases: Phases,
    /// Requests in flight.
    pub(crate) requests: InFlight,
    /// Tasks of connections and sessions. A stop waits for them.
    pub(crate) tasks: TaskTracker,
    /// Holds a token for each visitor, whether or not its connection is still a task.
    visitors: TaskTracker,
}

impl Drain {
    /// The drain of a daemon that serves.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            phases: Phases::default(),
            requests: InFlight::default(),
            tasks: TaskTracker::new(),
            visitors: TaskTracker::new(),
        })
    }

    /// Applies new settings.
    pub(crate) fn reload(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// How long exchanges in flight may take once the daemon stops.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.load().timeout
    }

    /// The current phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phases.now()
    }

    /// Enters a phase and all earlier ones, and wakes their watchers. The daemon never returns to an earlier phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phases.enter(phase);
    }

    /// Returns a watcher for the beginning of `phase`.
    pub(crate) fn watch(&self, phase: Phase) -> Watch {
        self.phases.watch(phase)
    }

    /// Waits for the beginning of `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        self.phases.reached(phase).await;
    }

    /// Resolves when the drain stops waiting for a connection's first request.
    pub(crate) async fn first_request(&self) {
        self.phases.first_request().await;
    }

    /// The number of visitors that are present.
    pub(crate) fn present(&self) -> usize {
        self.visitors.len()
    }

    /// Keeps a visitor counted as present.
    pub(crate) fn visitor(&self) -> TaskTrackerToken {
        self.visitors.token()
    }
}
