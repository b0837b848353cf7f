//! The delivery rate: how many bytes a second arrive at the peer (draft-cheng-iccrg-delivery-rate-estimation).
//!
//! Each packet notes how much had been delivered when it was sent. Its acknowledgement says how much has been since, and so the
//! rate over a round trip. A burst of acknowledgements does not look like a fast path: the time over which the bytes were
//! sent counts as well, if it is longer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An idle connection keeps room for so many transmissions.
const KEPT: usize = 4;
/// The most transmissions that are remembered. A peer that acknowledges nothing makes no more of them; quinn reports bare
/// acknowledgements as well.
const MOST: usize = 4096;
/// Nothing was in flight, and so long nothing was sent: what comes begins a new time.
const PAUSE: Duration = Duration::from_millis(10);
/// Rates are not measured over less. Stamps of packets may be so inexact.
const LEAST_TIME: Duration = Duration::from_millis(1);

/// What had been delivered when some packets were sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    /// Bytes delivered by then.
    delivered: u64,
    /// When the last of them had been.
    delivered_at: Instant,
    /// When the packet that was acknowledged last had been sent.
    acked_sent_at: Instant,
    /// The sender had too little to send.
    is_limited: bool,
}

/// What an acknowledgement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes a second.
    pub(super) rate: u64,
    /// From the sending of the newest packet to its acknowledgement.
    pub(super) round_trip: Duration,
    /// Bytes that had been delivered when that packet was sent.
    pub(super) delivered_before: u64,
    /// The sender had too little to send, so that the path may carry more.
    pub(super) is_limited: bool,
}

/// Counts what a connection delivers.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Bytes that were acknowledged.
    delivered: u64,
    delivered_at: Instant,
    acked_sent_at: Instant,
    /// Transmissions, the oldest first. An acknowledgement drops all older ones.
    under_way: VecDeque<Sent>,
    /// Nothing is in flight that needs an acknowledgement.
    rests: bool,
    /// The newest transmission that was acknowledged since the last sample.
    newest: Option<Sent>,
    /// Samples are limited until so many bytes are delivered.
    limited_until: u64,
}

impl Delivery {
    /// Nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            acked_sent_at: now,
            under_way: VecDeque::new(),
            rests: true,
            newest: None,
            limited_until: 0,
        }
    }

    /// Bytes that were acknowledged.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Some packets go out.
    pub(super) fn sent(&mut self, now: Instant) {
        let last = self.under_way.back().map(|last| last.at);
        if self.rests && last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE) {
            // The time without anything to send does not count.
            self.under_way.clear();
            (self.delivered_at, self.acked_sent_at) = (now, now);
        } else if last.is_some_and(|last| last >= now) || self.under_way.len() >= MOST {
            return;
        }
        self.under_way.push_back(Sent {
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            acked_sent_at: self.acked_sent_at,
            is_limited: self.delivered < self.limited_until,
        });
    }

    /// Counts `bytes` of a packet that was sent at `sent_at` as delivered.
    pub(super) fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64) {
        (self.delivered, self.delivered_at, self.rests) = (self.delivered + bytes, now, false);
        while self.under_way.front().is_some_and(|sent| sent.at < sent_at) {
            self.under_way.pop_front();
        }
        if let Some(sent) = self.under_way.front().filter(|sent| sent.at == sent_at) {
            self.newest = Some(*sent);
            self.acked_sent_at = sent_at;
        }
    }

    /// What an acknowledgement tells, once all its packets were counted. `None` if it has only packets that were overtaken.
    pub(super) fn sample(&mut self, now: Instant, least_round_trip: Duration) -> Option<Sample> {
        let sent = self.newest.take()?;
        let acked_in = now.saturating_duration_since(sent.delivered_at);
        let sent_in = sent.at.saturating_duration_since(sent.acked_sent_at);
        let (bytes, time) = (self.delivered - sent.delivered, acked_in.max(sent_in).max(LEAST_TIME));
        // Over less than a round trip, acknowledgements that come together would look like a fast path.
        let rate = if time < least_round_trip { 0 } else { per_second(bytes, time) };
        Some(Sample {
            rate,
            round_trip: now.saturating_duration_since(sent.at),
            delivered_before: sent.delivered,
            is_limited: sent.is_limited,
        })
    }

    /// Nothing waits to be sent, with so many bytes in flight.
    pub(super) fn limit(&mut self, in_flight: u64) {
        self.limited_until = self.delivered + in_flight.max(1);
    }

    /// Nothing is in flight.
    pub(super) fn rest(&mut self) {
        self.rests = true;
        self.under_way.clear();
        self.under_way.shrink_to(KEPT);
    }
}

/// Bytes a second, from bytes in a time that is not zero.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos();
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn acknowledgements_that_come_together_are_no_fast_path() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        // Ten packets in ten milliseconds, and all acknowledgements at once.
        for number in 0..10 {
            delivery.sent(began + MS * number);
        }
        for number in 0..10 {
            delivery.acked(began + MS * 30, began + MS * number, 1000);
        }
        let sample = delivery.sample(began + MS * 30, MS * 20).unwrap();
        assert_eq!(sample.round_trip, MS * 21);
        assert_eq!(sample.rate, 10_000 * 1000 / 30);
        assert_eq!((sample.delivered_before, sample.is_limited), (0, false));
        assert_eq!(delivery.sample(began + MS * 30, MS * 20), None);
    }

    #[test]
    fn what_is_sent_with_too_little_to_send_says_so() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        let mut exchange = |at: u32, limits: bool| {
            let sent = began + MS * at;
            delivery.sent(sent);
            if limits {
                delivery.limit(1000);
            }
            delivery.acked(sent + MS * 20, sent, 1000);
            delivery.sample(sent + MS * 20, Duration::ZERO).unwrap().is_limited
        };
        assert!(!exchange(0, true), "it was sent before");
        assert!(!exchange(30, true), "all of it has been delivered");
        let sent = began + MS * 60;
        delivery.limit(2000);
        delivery.sent(sent);
        delivery.acked(sent + MS * 20, sent, 1000);
        assert!(delivery.sample(sent + MS * 20, Duration::ZERO).unwrap().is_limited);
    }

    #[test]
    fn a_pause_does_not_count() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        for start in [0, 10_000] {
            let sent = began + MS * start;
            delivery.sent(sent);
            delivery.acked(sent + MS * 20, sent, 2000);
            assert_eq!(delivery.sample(sent + MS * 20, Duration::ZERO).unwrap().rate, 100_000);
            delivery.rest();
        }
    }

    #[test]
    fn a_pause_behind_a_bare_acknowledgement_does_not_count() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        delivery.sent(began);
        let sent = began + MS * 500;
        delivery.sent(sent);
        delivery.acked(sent + MS * 20, sent, 2000);
        assert_eq!(delivery.sample(sent + MS * 20, Duration::ZERO).unwrap().rate, 100_000);
    }

    #[test]
    fn the_time_of_sending_counts_if_it_is_longer() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        delivery.sent(began);
        delivery.acked(began + MS * 45, began, 1000);
        assert_eq!(delivery.sample(began + MS * 45, Duration::ZERO).unwrap().rate, 1000 * 1000 / 45);
        delivery.sent(began + MS * 60);
        delivery.sent(began + MS * 100);
        for at in [60, 100] {
            delivery.acked(began + MS * 101, began + MS * at, 1000);
        }
        let sample = delivery.sample(began + MS * 101, Duration::ZERO).unwrap();
        assert_eq!(sample.rate, 2000 * 1000 / 100, "sent in 100 ms, acknowledged in 56");
        delivery.sent(began + MS * 102);
        delivery.sent(began + MS * 103);
        delivery.acked(began + MS * 104, began + MS * 103, 1000);
        assert_eq!(delivery.sample(began + MS * 104, Duration::ZERO).unwrap().rate, 1000 * 1000 / 3, "sent in 3 ms");
        assert_eq!(delivery.sample(began + MS * 104, Duration::ZERO), None);
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_makes_no_memory_grow() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        for number in 0..2 * MOST as u32 {
            delivery.sent(began + MS * number);
        }
        assert!(delivery.under_way.len() <= MOST);
    }

    #[test]
    fn packets_that_were_overtaken_give_no_sample() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        delivery.sent(began);
        delivery.sent(began + MS);
        delivery.acked(began + MS * 20, began + MS, 1000);
        assert!(delivery.sample(began + MS * 20, Duration::ZERO).is_some());
        delivery.acked(began + MS * 21, began, 1000);
        assert_eq!(delivery.sample(began + MS * 21, Duration::ZERO), None);
        assert_eq!(delivery.delivered(), 2000);
    }
}
