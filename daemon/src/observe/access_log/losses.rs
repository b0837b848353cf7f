//! Lines that are lost: they are counted, and a warning says so from time to time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tracing::warn;

/// The least time between two warnings. A full disk must not fill the log as well.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Counts lost lines.
#[derive(Debug, Default)]
pub(super) struct Losses {
    total: Counter,
    /// Lost lines since the last warning.
    unsaid: AtomicU64,
    /// When the last warning was.
    said: Mutex<Option<Instant>>,
}

impl Losses {
    /// None yet. `total` counts them all.
    pub(super) fn new(total: Counter) -> Self {
        Self { total, ..Self::default() }
    }

    /// Counts lost lines.
    pub(super) fn add(&self, lines: u64, why: &str) {
        self.total.inc_by(lines);
        self.unsaid.fetch_add(lines, Ordering::Relaxed);
        self.say(why);
    }

    /// Warns of lost lines, unless a warning was there lately. Never waits.
    fn say(&self, why: &str) {
        let Some(mut said) = self.said.try_lock() else { return };
        if said.is_some_and(|said| said.elapsed() < SILENCE) {
            return;
        }
        let lines = self.unsaid.swap(0, Ordering::Relaxed);
        if lines > 0 {
            *said = Some(Instant::now());
            drop(said);
            warn!(event = "access_log_lost", lines, reason = why, "{lines} lines of the access log are lost: {why}");
        }
    }

    /// Whether lines were lost that no warning has named.
    pub(super) fn has_unsaid(&self) -> bool {
        self.unsaid.load(Ordering::Relaxed) > 0
    }

    /// Warns of lines that were lost some time ago.
    pub(super) fn remind(&self) {
        self.say("they came too fast, or could not be written");
    }
}
