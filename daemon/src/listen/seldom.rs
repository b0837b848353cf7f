//! Log lines that would otherwise come with every connection.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often the log repeats a line.
const EVERY: Duration = Duration::from_secs(60);

/// When a line was logged last.
#[derive(Debug)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the line may come again. It counts as logged then.
    pub(super) fn is_due(&self) -> bool {
        let mut told = self.0.lock();
        let due = told.is_none_or(|told| told.elapsed() >= EVERY);
        if due {
            *told = Some(Instant::now());
        }
        due
    }
}
