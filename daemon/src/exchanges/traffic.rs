//! What passes through a tunnel: requests, and bytes of bodies in either direction. Counting takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Counts;

/// The time over which the rate of requests is taken: long enough for a steady figure, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(10);
/// The least age that a rate is taken over. The first request of a tunnel is no burst.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// Bytes of bodies, by direction.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Carried {
    /// Bytes received from visitors.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that services have sent to visitors.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The traffic of one tunnel.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// When its first request came.
    began: Instant,
    requests: AtomicU64,
    /// How many requests came in the window that is open, and in the one before.
    current: AtomicU64,
    previous: AtomicU64,
    own: Carried,
    /// The counts of all tunnels together.
    pub(super) all: Arc<Counts>,
}

impl Traffic {
    pub(super) fn new(all: Arc<Counts>, now: Instant) -> Self {
        let counter = AtomicU64::default;
        Self { began: now, requests: counter(), current: counter(), previous: counter(), own: Carried::default(), all }
    }

    /// Counts a request.
    pub(super) fn count_request(&self, now: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (number, _) = self.window(now);
        let seen = self.current.load(Ordering::Relaxed);
        if Window::from(seen).number != number {
            let first = Window { number, requests: 1 };
            // Another request may open the window first.
            if self.current.compare_exchange(seen, first.into(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return self.previous.store(seen, Ordering::Relaxed);
            }
        }
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes received from a visitor.
    pub(super) fn receive(&self, bytes: usize) {
        for carried in [&self.own, &self.all.carried] {
            carried.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts bytes of a response.
    pub(super) fn send(&self, bytes: usize) {
        for carried in [&self.own, &self.all.carried] {
            carried.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The number of requests.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Its bytes.
    pub(crate) fn carried(&self) -> &Carried {
        &self.own
    }

    /// Requests per second, over the last [`WINDOW`].
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        let (number, part) = self.window(now);
        let (mut requests, mut earlier) = (0, 0);
        for window in [&self.current, &self.previous].map(|window| Window::from(window.load(Ordering::Relaxed))) {
            if window.number == number {
                requests += window.requests;
            } else if window.number.wrapping_add(1) == number {
                earlier += window.requests;
            }
        }
        let age = now.saturating_duration_since(self.began).clamp(LEAST_AGE, WINDOW);
        (f64::from(requests) + f64::from(earlier) * (1.0 - part)) / age.as_secs_f64()
    }

    /// The number of the window at a moment, and how much of it has passed, from 0 to 1.
    fn window(&self, now: Instant) -> (u32, f64) {
        let (age, window) = (now.saturating_duration_since(self.began).as_millis(), WINDOW.as_millis());
        ((age / window) as u32, (age % window) as f64 / window as f64)
    }
}

/// One window, in one atomic number: its own number in the upper half, its requests in the lower one.
#[derive(Clone, Copy, Debug)]
struct Window {
    number: u32,
    requests: u32,
}

impl From<u64> for Window {
    fn from(both: u64) -> Self {
        Self { number: (both >> 32) as u32, requests: both as u32 }
    }
}

impl From<Window> for u64 {
    fn from(Window { number, requests }: Window) -> Self {
        Self::from(number) << 32 | Self::from(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_slides_over_the_last_window() {
        let began = Instant::now();
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        let traffic = Traffic::new(Arc::default(), began);
        let is = |moment: f64, expected: f64| {
            let rate = traffic.rate(at(moment));
            assert!((rate - expected).abs() < 0.01, "{rate} instead of {expected} after {moment} s");
        };
        traffic.count_request(at(0.0));
        is(0.0, 1.0);
        is(5.0, 0.2);
        for _ in 0..99 {
            traffic.count_request(at(9.0));
        }
        is(10.0, 10.0);
        is(15.0, 5.0);
        for _ in 0..50 {
            traffic.count_request(at(15.0));
        }
        is(15.0, 10.0);
        is(20.0, 5.0);
        is(30.0, 0.0);
        traffic.count_request(at(1000.0));
        is(1000.0, 0.1);
        assert_eq!(traffic.requests(), 151);
    }

    #[test]
    fn no_request_is_lost_at_the_edge_of_a_window() {
        let began = Instant::now();
        let traffic = Traffic::new(Arc::default(), began);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for request in 0..1000 {
                        traffic.count_request(began + WINDOW * (request / 500));
                    }
                });
            }
        });
        assert_eq!(traffic.requests(), 4000);
    }

    #[test]
    fn bytes_count_for_the_tunnel_and_for_all() {
        let all = Arc::<Counts>::default();
        let (one, other) = (Traffic::new(all.clone(), Instant::now()), Traffic::new(all.clone(), Instant::now()));
        one.receive(3);
        one.send(5);
        other.send(7);
        assert_eq!((one.carried().received(), one.carried().sent()), (3, 5));
        assert_eq!((all.carried.received(), all.carried.sent()), (3, 12));
    }
}
