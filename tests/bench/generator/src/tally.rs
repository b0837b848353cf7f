//! Times and failures of requests.

use std::cell::RefCell;
use std::time::Duration;

use serde::Serialize;

/// Collects times and failures on one thread.
#[derive(Debug, Default)]
pub(crate) struct Tally(RefCell<Counts>);

#[derive(Debug, Default)]
struct Counts {
    times: Vec<Duration>,
    bytes: usize,
    failed: usize,
    why: Option<String>,
}

/// What the benchmark reads. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Line {
    requests: usize,
    bytes: usize,
    seconds: f64,
    p50: f64,
    p99: f64,
    failed: usize,
    why: Option<String>,
}

impl Tally {
    pub(crate) fn answered(&self, took: Duration) {
        self.0.borrow_mut().times.push(took);
    }

    /// Counts bytes of a body, even if the response does not end in time.
    pub(crate) fn received(&self, bytes: usize) {
        self.0.borrow_mut().bytes += bytes;
    }

    /// Counts a failure. The first one is shown.
    pub(crate) fn failed(&self, why: &anyhow::Error) {
        let mut counts = self.0.borrow_mut();
        counts.failed += 1;
        counts.why.get_or_insert_with(|| format!("{why:#}"));
    }

    /// Prints all of it as a line of JSON.
    pub(crate) fn print(self, took: Duration) -> anyhow::Result<()> {
        let Counts { mut times, bytes, failed, why } = self.0.into_inner();
        times.sort_unstable();
        let part = |percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        let (p50, p99) = (part(50), part(99));
        let line = Line { requests: times.len(), bytes, seconds: took.as_secs_f64(), p50, p99, failed, why };
        println!("{}", serde_json::to_string(&line)?);
        Ok(())
    }
}
