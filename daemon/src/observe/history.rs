//! The last hour in memory: requests, errors, latency percentiles and bytes, in points of ten seconds.
//!
//! Requests count into the open point with atomics. One task closes it and keeps the points, and only readers share its lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval_at};

use super::record::Record;

/// How long a point is. An hour of them is a plot that needs no further summing.
pub(crate) const POINT: Duration = Duration::from_secs(10);
/// The most points: one hour. Each takes some 70 bytes.
pub(crate) const MOST_POINTS: usize = 360;

/// Latencies are counted in buckets of this many per octave, so that a percentile is off by at most 6 %.
const PER_OCTAVE: usize = 1 << PART_BITS;
const PART_BITS: u32 = 3;
/// The least and the greatest latency of their own bucket, as powers of two in microseconds: 64 µs and 18 minutes.
const LEAST: u32 = 6;
const GREATEST: u32 = 30;
const BUCKETS: usize = (GREATEST - LEAST) as usize * PER_OCTAVE;

/// One point of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// When it began, in seconds since 1970.
    pub(crate) at: u64,
    /// Requests answered.
    pub(crate) requests: u64,
    /// Those of them with a status of 500 or more.
    pub(crate) errors: u64,
    /// Bytes of bodies from visitors, and to them.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Milliseconds to the response's head that half, 90 % and 99 % of the requests stayed below. `None` without requests.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p90_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// Bytes from visitors and to them since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BytesSoFar {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// The last hour.
#[derive(Debug)]
pub(crate) struct History {
    requests: AtomicU64,
    errors: AtomicU64,
    latencies: [AtomicU32; BUCKETS],
    points: Mutex<VecDeque<Point>>,
}

impl Default for History {
    fn default() -> Self {
        let latencies = [const { AtomicU32::new(0) }; BUCKETS];
        Self { requests: AtomicU64::new(0), errors: AtomicU64::new(0), latencies, points: Mutex::default() }
    }
}

impl History {
    /// A request is over.
    pub(crate) fn finished(&self, record: &Record) {
        if record.lasting.is_none() {
            self.note(record);
        }
    }

    /// An exchange that lasts counts when it begins: its end may be days away.
    pub(crate) fn began_lasting(&self, record: &Record) {
        self.note(record);
    }

    /// Counts a request that got a response. The beginning of a client's session is none of a visitor's.
    fn note(&self, record: &Record) {
        if record.tunnel.is_none() && record.status == Some(StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        if let (Some(status), Some(latency)) = (record.status, record.timings.head_out) {
            self.count(status.is_server_error(), latency);
        }
    }

    fn count(&self, is_error: bool, latency: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if is_error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(bucket) = self.latencies.get(bucket(latency)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes a point every [`POINT`]. Runs until it is dropped.
    pub(crate) async fn keep(&self, bytes: impl Fn() -> BytesSoFar) {
        let mut ticks = interval_at(tokio::time::Instant::now() + POINT, POINT);
        // A process that stood still has no traffic to catch up on.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut began, mut before) = (SystemTime::now(), bytes());
        loop {
            ticks.tick().await;
            let so_far = bytes();
            self.close(unix(began), before, so_far);
            (began, before) = (SystemTime::now(), so_far);
        }
    }

    fn close(&self, at: u64, before: BytesSoFar, now: BytesSoFar) {
        let counts: Vec<u32> = self.latencies.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        let point = Point {
            at,
            requests: self.requests.swap(0, Ordering::Relaxed),
            errors: self.errors.swap(0, Ordering::Relaxed),
            bytes_in: now.received.saturating_sub(before.received),
            bytes_out: now.sent.saturating_sub(before.sent),
            p50_ms: percentile(&counts, 50),
            p90_ms: percentile(&counts, 90),
            p99_ms: percentile(&counts, 99),
        };
        let mut points = self.points.lock();
        if points.len() == MOST_POINTS {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// The points of the last hour, the oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.points.lock().iter().copied().collect()
    }

    /// The latest point.
    pub(crate) fn latest(&self) -> Option<Point> {
        self.points.lock().back().copied()
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1 << LEAST, (1 << GREATEST) - 1);
    let octave = micros.ilog2();
    let part = (micros >> (octave - PART_BITS)) as usize % PER_OCTAVE;
    (octave - LEAST) as usize * PER_OCTAVE + part
}

/// The middle of a bucket in milliseconds.
fn middle(bucket: usize) -> f64 {
    let octave = LEAST + (bucket / PER_OCTAVE) as u32;
    let width = 1 << (octave - PART_BITS);
    let lower = (PER_OCTAVE + bucket % PER_OCTAVE) as u64 * width;
    (lower as f64 + width as f64 / 2.0) / 1000.0
}

/// The latency in milliseconds that this part of the requests stayed below.
fn percentile(counts: &[u32], percent: u64) -> Option<f64> {
    let all: u64 = counts.iter().copied().map(u64::from).sum();
    let rank = (all * percent).div_ceil(100);
    let mut below = 0;
    counts.iter().enumerate().find_map(|(bucket, count)| {
        below += u64::from(*count);
        (rank > 0 && below >= rank).then(|| middle(bucket))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_found_again_within_six_percent() {
        for micros in [64, 65, 100, 999, 1000, 12_345, 1_000_000, 59_999_999, 900_000_000] {
            let found = middle(bucket(Duration::from_micros(micros))) * 1000.0;
            let off = (found - micros as f64).abs() / micros as f64;
            assert!(off <= 0.0625, "{found} for {micros}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
    }

    #[test]
    fn a_point_has_what_came_since_the_one_before() {
        let history = History::default();
        for millis in 1..=100 {
            history.count(millis > 98, Duration::from_millis(millis));
        }
        let before = BytesSoFar { received: 5, sent: 7 };
        history.close(1000, before, BytesSoFar { received: 6, sent: 9 });
        history.close(1010, before, before);
        let points = history.points();
        let Point { at, requests, errors, bytes_in, bytes_out, p50_ms, p90_ms, p99_ms } = points[0];
        assert_eq!((at, requests, errors, bytes_in, bytes_out), (1000, 100, 2, 1, 2));
        for (found, expected) in [(p50_ms, 50.0), (p90_ms, 90.0), (p99_ms, 99.0)] {
            let found = found.unwrap();
            assert!((found - expected).abs() / expected < 0.07, "{found} for {expected}");
        }
        assert_eq!(points[1], Point { at: 1010, ..Point::default() });
        assert_eq!(history.latest(), Some(points[1]));
    }

    #[test]
    fn the_history_is_bounded() {
        let history = History::default();
        for at in 0..2 * MOST_POINTS as u64 {
            history.close(at, BytesSoFar::default(), BytesSoFar::default());
        }
        let points = history.points();
        assert_eq!((points.len(), points[0].at), (MOST_POINTS, MOST_POINTS as u64));
    }

    #[tokio::test(start_paused = true)]
    async fn points_close_by_themselves() {
        let history = History::default();
        history.count(false, Duration::from_millis(1));
        let sent = AtomicU64::new(0);
        let bytes = || BytesSoFar { received: 0, sent: sent.fetch_add(3, Ordering::Relaxed) };
        let kept = tokio::time::timeout(POINT * 2 + POINT / 2, history.keep(bytes)).await;
        assert!(kept.is_err());
        let points: Vec<_> = history.points().iter().map(|point| (point.requests, point.bytes_out)).collect();
        assert_eq!(points, [(1, 3), (0, 3)]);
    }
}
