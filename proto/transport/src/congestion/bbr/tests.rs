//! The controller on a path that is computed: a line with a rate, a delay, a queue and losses.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quinn::congestion::Controller as _;

use super::{Bbr, LEAST_HELD};

const DATAGRAM: u64 = 1452;
/// quinn paces in bursts of so many datagrams, or of what this time brings.
const BATCH: u64 = 10;
const PACED: Duration = Duration::from_millis(2);
const STEP: Duration = Duration::from_micros(250);
/// A later packet's acknowledgement by which one counts as lost (RFC 9002, section 6.1.1).
const REORDERED: u64 = 3;

/// The line in one direction. The way back is as long, and carries everything.
#[derive(Clone, Copy)]
struct Line {
    /// Bytes a second.
    rate: f64,
    /// One way.
    delay: Duration,
    /// Bytes.
    queue: f64,
    /// Of a thousand.
    loses: u64,
}

impl Line {
    const fn new(mbit: f64, round_trip_ms: u64, queue: f64) -> Self {
        let (rate, delay) = (mbit * 125_000.0, Duration::from_micros(round_trip_ms * 500));
        // The queue is given in what the path holds.
        Self { rate, delay, queue: queue * rate * round_trip_ms as f64 / 1000.0, loses: 0 }
    }

    const fn losing(self, loses: u64) -> Self {
        Self { loses, ..self }
    }
}

/// A packet under way.
struct Packet {
    number: u64,
    sent: Instant,
    /// When its acknowledgement comes; `None` if it was lost.
    acked: Option<Instant>,
}

/// A sender on a line, as quinn is one.
struct Sender {
    bbr: Bbr,
    line: Line,
    now: Instant,
    /// When the line has sent what waits in its queue.
    free_at: Instant,
    under_way: VecDeque<Packet>,
    next: u64,
    tokens: f64,
    round_trip: Duration,
    noise: u64,
    sent: u64,
    lost: u64,
    delivered: u64,
    /// The longest that a packet has waited in the queue.
    waited: Duration,
    /// The most bytes in flight that flow control allows.
    credit: u64,
}

impl Sender {
    fn new(line: Line) -> Self {
        let now = Instant::now();
        Self {
            bbr: Bbr::new(now, DATAGRAM as u16),
            line,
            now,
            free_at: now,
            under_way: VecDeque::new(),
            next: 0,
            tokens: 0.0,
            round_trip: Duration::from_millis(100),
            noise: 7,
            sent: 0,
            lost: 0,
            delivered: 0,
            waited: Duration::ZERO,
            credit: u64::MAX,
        }
    }

    fn chance(&mut self) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 33) % 1000
    }

    fn in_flight(&self) -> u64 {
        self.under_way.len() as u64 * DATAGRAM
    }

    /// Sends as much as the controller allows for `time`, and at most `rate` bytes a second. Returns the share of the line that
    /// arrived, and of the packets that were lost. Forgets how long packets had waited before.
    fn run(&mut self, time: Duration, rate: f64) -> (f64, f64) {
        let (until, delivered, sent, lost) = (self.now + time, self.delivered, self.sent, self.lost);
        self.waited = Duration::ZERO;
        let mut allowed = 0.0;
        while self.now < until {
            self.now += STEP;
            allowed += rate * STEP.as_secs_f64();
            let is_limited = allowed < DATAGRAM as f64 || self.in_flight() + DATAGRAM >= self.credit;
            self.acknowledge(is_limited);
            self.send(&mut allowed);
        }
        let all = self.line.rate * time.as_secs_f64();
        ((self.delivered - delivered) as f64 / all, (self.lost - lost) as f64 / (self.sent - sent).max(1) as f64)
    }

    fn acknowledge(&mut self, is_limited: bool) {
        let now = self.now;
        let Some(newest) =
            self.under_way.iter().rev().find(|packet| packet.acked.is_some_and(|at| at <= now)).map(|it| it.number)
        else {
            return;
        };
        let (mut kept, mut lost, mut any) = (VecDeque::new(), 0, false);
        for packet in std::mem::take(&mut self.under_way) {
            if packet.acked.is_some_and(|at| at <= now) {
                self.bbr.arrived(now, packet.sent, DATAGRAM);
                self.round_trip = (self.round_trip * 7 + (now - packet.sent)) / 8;
                self.bbr.smoothed = self.round_trip;
                self.delivered += DATAGRAM;
                any = true;
            } else if packet.number + REORDERED <= newest {
                lost += 1;
            } else {
                kept.push_back(packet);
            }
        }
        self.under_way = kept;
        let in_flight = self.in_flight();
        if any {
            self.bbr.learn(now, in_flight + lost * DATAGRAM, is_limited);
        }
        if lost > 0 {
            self.lost += lost;
            self.bbr.on_congestion_event(now, now, false, lost * DATAGRAM);
        }
    }

    fn send(&mut self, allowed: &mut f64) {
        let (now, window) = (self.now, self.bbr.window());
        let credit = self.credit;
        let rate = 1.25 * window as f64 / self.round_trip.as_secs_f64();
        let most = (rate * PACED.as_secs_f64()).max((BATCH * DATAGRAM) as f64);
        self.tokens = (self.tokens + rate * STEP.as_secs_f64()).min(most);
        while self.in_flight() + DATAGRAM < window.min(credit)
            && self.tokens >= DATAGRAM as f64
            && *allowed >= DATAGRAM as f64
        {
            self.tokens -= DATAGRAM as f64;
            *allowed -= DATAGRAM as f64;
            self.bbr.on_sent(now, DATAGRAM, self.next);
            let acked = self.carry();
            self.under_way.push_back(Packet { number: self.next, sent: now, acked });
            self.next += 1;
            self.sent += 1;
        }
    }

    /// When the acknowledgement of a packet that is sent now comes.
    fn carry(&mut self) -> Option<Instant> {
        let waits = self.free_at.saturating_duration_since(self.now);
        if waits.as_secs_f64() * self.line.rate > self.line.queue || self.chance() < self.line.loses {
            return None;
        }
        self.waited = self.waited.max(waits);
        self.free_at = self.free_at.max(self.now) + Duration::from_secs_f64(DATAGRAM as f64 / self.line.rate);
        Some(self.free_at + self.line.delay * 2)
    }
}

const BULK: f64 = f64::INFINITY;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn it_fills_lines_and_leaves_their_queues_short() {
    for line in [
        Line::new(200.0, 20, 1.0),
        Line::new(5.0, 30, 10.0),
        Line::new(1000.0, 4, 1.0),
        Line::new(1000.0, 1, 8.0),
        Line::new(50.0, 300, 1.0),
        Line::new(100.0, 100, 0.3),
    ] {
        let mut sender = Sender::new(line);
        sender.run(SECOND * 8, BULK);
        let (share, lost) = sender.run(SECOND * 20, BULK);
        assert!(share > 0.94 && lost < 0.01, "{share} {lost}");
        let (held, batch) = (line.delay * 2, Duration::from_secs_f64((BATCH * DATAGRAM) as f64 / line.rate));
        let most = held.max(LEAST_HELD).mul_f64(1.5).saturating_sub(held) + batch;
        assert!(sender.waited < most, "{:?} of {most:?}", sender.waited);
    }
}

/// Credit that comes in bursts fills the path only for moments.
#[test]
fn little_credit_at_first_does_not_end_the_start_early() {
    let mut sender = Sender::new(Line::new(200.0, 20, 1.0));
    for credit in [128_000, 256_000, 128_000, 256_000] {
        sender.credit = credit;
        sender.run(SECOND / 10, BULK);
    }
    sender.credit = u64::MAX;
    sender.run(SECOND / 5, BULK);
    let (share, _) = sender.run(SECOND / 2, BULK);
    assert!(share > 0.9, "{share}");
}

/// A regression: the window was never full, and so the path neither.
#[test]
fn credit_for_less_than_the_window_keeps_the_queue_short_as_well() {
    let mut sender = Sender::new(Line::new(200.0, 20, 1.0));
    sender.credit = 950_000;
    sender.run(SECOND * 2, BULK);
    let (share, lost) = sender.run(SECOND * 5, BULK);
    assert!(share > 0.94 && lost < 0.01, "{share} {lost}");
    assert!(sender.waited < Duration::from_millis(12), "{:?}", sender.waited);
}

#[test]
fn single_losses_cost_little() {
    for (loses, least) in [(10, 0.92), (20, 0.9), (50, 0.85)] {
        let mut sender = Sender::new(Line::new(200.0, 20, 1.0).losing(loses));
        sender.run(SECOND * 2, BULK);
        let (share, _) = sender.run(SECOND * 20, BULK);
        assert!(share > least, "{share} with {loses} of 1000");
    }
}

#[test]
fn a_short_queue_loses_little() {
    let mut sender = Sender::new(Line::new(100.0, 40, 0.08));
    sender.run(SECOND * 5, BULK);
    let (share, lost) = sender.run(SECOND * 20, BULK);
    assert!(share > 0.85 && lost < 0.05, "{share} {lost}");
}

#[test]
fn it_follows_a_line_that_becomes_slower_and_faster() {
    let mut sender = Sender::new(Line::new(100.0, 40, 1.0));
    sender.run(SECOND * 5, BULK);
    sender.line = Line::new(10.0, 40, 4.0);
    sender.run(SECOND * 5, BULK);
    let (share, lost) = sender.run(SECOND * 10, BULK);
    assert!(share > 0.94 && lost < 0.01, "{share} {lost}");
    assert!(sender.waited < Duration::from_millis(40), "{:?}", sender.waited);
    sender.line = Line::new(100.0, 40, 1.0);
    sender.run(SECOND * 8, BULK);
    let (share, _) = sender.run(SECOND * 10, BULK);
    assert!(share > 0.94, "{share}");
}

#[test]
fn it_follows_a_path_that_becomes_longer() {
    let mut sender = Sender::new(Line::new(100.0, 20, 1.0));
    sender.run(SECOND * 15, BULK);
    sender.line = Line::new(100.0, 120, 1.0);
    let (share, _) = sender.run(SECOND * 12, BULK);
    assert!(share > 0.5, "at first {share}");
    let (share, _) = sender.run(SECOND * 10, BULK);
    assert!(share > 0.9, "then {share}");
}

#[test]
fn bulk_after_a_little_traffic_starts_fast() {
    let mut sender = Sender::new(Line::new(200.0, 20, 1.0));
    sender.run(SECOND * 30, 20_000.0);
    sender.run(SECOND / 2, BULK);
    let (share, _) = sender.run(SECOND, BULK);
    assert!(share > 0.9, "{share}");
    // What was learned stays.
    sender.run(SECOND * 30, 20_000.0);
    let (share, _) = sender.run(SECOND, BULK);
    assert!(share > 0.85, "{share}");
}

#[test]
fn losses_of_little_traffic_do_not_slow_bulk_down() {
    let mut sender = Sender::new(Line::new(200.0, 20, 1.0).losing(20));
    sender.run(SECOND * 60, 30_000.0);
    sender.run(SECOND, BULK);
    let (share, _) = sender.run(SECOND * 2, BULK);
    assert!(share > 0.85, "{share}");
}

#[test]
fn a_marked_packet_counts_as_many_losses() {
    let mut sender = Sender::new(Line::new(100.0, 40, 1.0));
    sender.run(SECOND * 5, BULK);
    let before = sender.bbr.window();
    sender.bbr.on_congestion_event(sender.now, sender.now, false, 0);
    sender.run(SECOND / 10, BULK);
    assert!(sender.bbr.window() < before * 95 / 100, "{before}");
    let (share, _) = sender.run(SECOND * 5, BULK);
    assert!(share > 0.9, "{share}");
}

#[test]
fn after_persistent_congestion_it_starts_over() {
    let mut sender = Sender::new(Line::new(200.0, 20, 1.0));
    sender.run(SECOND * 5, BULK);
    sender.bbr.on_congestion_event(sender.now, sender.now, true, DATAGRAM);
    assert_eq!(sender.bbr.window(), sender.bbr.least_window());
    sender.run(SECOND, BULK);
    let (share, _) = sender.run(SECOND, BULK);
    assert!(share > 0.9, "{share}");
}
