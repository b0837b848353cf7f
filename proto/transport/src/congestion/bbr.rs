//! BBR: a model of the path instead of a reaction to each loss.
//!
//! The model has two figures: the delivery rate, at most over the last ten rounds, and the least round trip. Their product is
//! what the path holds. The window is that product times a gain, and so the queue in front of the path stays short. The gain
//! changes from phase to phase, to find out whether the path carries more, and to empty the queue again.
//!
//! It follows BBR (draft-ietf-ccwg-bbr) in its phases. Two things differ. quinn paces by the window and the round trip, so the
//! gains are the window's. Losses count only if they are many: mobile paths lose one or two packets of a hundred at random.
//!
//! quinn's own BBR takes the rate from the last two packets, so that packets which arrive together look like a fast path. Its window
//! is twice what the path holds, and its least round trip never expires.

mod delivery;
mod max_of_rounds;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::delivery::{Delivery, Sample};
use self::max_of_rounds::MaxOfRounds;

/// The window at first, in datagrams.
const FIRST_WINDOW: u64 = 32;
/// The least window, in datagrams.
const LEAST_WINDOW: u64 = 4;
/// A path counts as holding what comes in this time, however short its round trip is. A busy machine takes some milliseconds to go
/// from one program to the other.
const LEAST_HELD: Duration = Duration::from_millis(5);
/// The most of the window in Startup, in percent of what the path holds.
const STARTUP: u64 = 289;
/// The windows of Up, Down and Cruise.
const UP: u64 = 125;
const DOWN: u64 = 90;
const CRUISE: u64 = 110;
/// The same on a path that others fill. With less in flight, they would take most of the line.
const UP_SHARED: u64 = 175;
const DOWN_SHARED: u64 = 100;
const CRUISE_SHARED: u64 = 150;
/// The path counts as shared if round trips take so many percent of one without a queue even after our own queue was drained.
const SHARED: u32 = 130;
/// If they take so many in two cycles, the path itself may have become longer.
const LONGER: u32 = 175;
/// Packets queue if the smoothed round trip is so many percent of one without a queue.
const QUEUED: u32 = 125;
/// Rounds of Cruise.
const CRUISE_ROUNDS: u32 = 6;
/// Up follows upon Up if the rate has become so many percent of what it was.
const GROWS: u64 = 112;
/// Startup goes on while the rate becomes so many percent in a round. The path is full after so many rounds without that.
const HIGHER: u64 = 125;
const FULL_AFTER: u32 = 3;
/// How long a least round trip counts. After that, the window shrinks for a moment to find it again.
const ROUND_TRIP_COUNTS: Duration = Duration::from_secs(10);
/// The window of ProbeRtt in percent of what the path holds, and its duration.
const PROBE: u64 = 50;
const PROBE_LASTS: Duration = Duration::from_millis(100);
/// If more than so many percent are lost, more was in flight than the path and its queue hold. It is judged over so many datagrams.
const TOO_MANY_LOST: u64 = 10;
const JUDGED: u64 = 100;
/// What is left of the bytes in flight then, and how much more is allowed after an Up without such losses, in percent.
const AFTER_LOSS: u64 = 85;
const LOOSER: u64 = 125;

/// The configuration. It has nothing to choose.
#[derive(Debug)]
pub(super) struct BbrConfig;

impl ControllerFactory for BbrConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bbr::new(now, current_mtu))
    }
}

/// What the controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The window doubles each round, until the rate rises no more.
    Startup,
    /// Drains the queue that Startup left.
    Drain,
    /// More is in flight for a round, to see whether the path carries it.
    Up,
    /// Drains the queue that Up left.
    Down,
    /// The rate is kept for so many more rounds.
    Cruise(u32),
    /// Little is in flight until this time, to find the least round trip. `None` while more is.
    ProbeRtt(Option<Instant>),
}

/// The controller of one path.
#[derive(Clone, Debug)]
struct Bbr {
    /// The bytes of a datagram.
    datagram: u64,
    delivery: Delivery,
    /// The rate in bytes a second.
    rate: MaxOfRounds,
    early: Early,
    /// The least round trip; `None` until the next sample.
    round_trip: Option<Duration>,
    /// When it was last seen.
    round_trip_at: Instant,
    /// The smoothed one, without what the peer delays its acknowledgements (RFC 9002, section 5.3).
    smoothed: Duration,
    /// The least since the queue was last emptied; `None` before the first sample.
    emptied: Option<Duration>,
    /// Others keep the queue filled.
    is_shared: bool,
    phase: Phase,
    window: u64,
    /// The rate when Up began.
    rate_before: u64,
    /// Cycles in a row in which the path seemed longer.
    longer: u32,
    /// The most that may be in flight, if too much was lost with more.
    bound: Option<u64>,
    losses: Losses,
    round: Round,
    full: Full,
    /// Bytes acknowledged since the last end of acknowledgements.
    acked: u64,
}

/// Acknowledgements may come in bursts, ahead of the rate. This is the largest excess in bytes. The window gets that much more, so
/// that the path does not run dry between bursts.
#[derive(Clone, Debug)]
struct Early {
    most: MaxOfRounds,
    since: Instant,
    acked: u64,
}

/// A round: one round trip. It ends with the acknowledgement of what was sent after its beginning.
#[derive(Clone, Debug, Default)]
struct Round {
    /// Bytes delivered at its beginning.
    began: u64,
    /// It has a sample that counts for the rate.
    counts: bool,
}

/// What was lost since the last judgement.
#[derive(Clone, Debug, Default)]
struct Losses {
    lost: u64,
    /// The path marked a packet instead of losing it (ECN).
    is_marked: bool,
    /// Bytes delivered at the last judgement.
    judged: u64,
}

/// Whether the path is full.
#[derive(Clone, Debug, Default)]
struct Full {
    /// The rate that had to rise, and the rounds in which it has not.
    rate: u64,
    rounds: u32,
    /// It was full once.
    is_reached: bool,
}

impl Bbr {
    fn new(now: Instant, mtu: u16) -> Self {
        let datagram = u64::from(mtu);
        Self {
            datagram,
            delivery: Delivery::new(now),
            rate: MaxOfRounds::default(),
            early: Early { most: MaxOfRounds::default(), since: now, acked: 0 },
            round_trip: None,
            round_trip_at: now,
            smoothed: Duration::ZERO,
            emptied: None,
            is_shared: false,
            phase: Phase::Startup,
            window: FIRST_WINDOW * datagram,
            rate_before: 0,
            longer: 0,
            bound: None,
            losses: Losses::default(),
            round: Round::default(),
            full: Full::default(),
            acked: 0,
        }
    }

    fn least_window(&self) -> u64 {
        LEAST_WINDOW * self.datagram
    }

    /// What the path holds in bytes; `None` if that is not known yet.
    fn held(&self) -> Option<u64> {
        let rate = Some(self.rate.get()).filter(|rate| *rate > 0)?;
        Some(in_time(rate, self.empty()?))
    }

    /// How long a round trip takes without a queue, for our purposes.
    fn empty(&self) -> Option<Duration> {
        self.round_trip.map(|least| least.max(LEAST_HELD))
    }

    /// So many percent of that, and at least the least window.
    fn held_times(&self, percent: u64) -> Option<u64> {
        self.held().map(|held| (held.saturating_mul(percent) / 100).max(self.least_window()))
    }

    /// Whether packets wait in a queue of the path.
    fn is_queued(&self) -> bool {
        self.empty().is_some_and(|empty| self.smoothed * 100 >= empty * QUEUED)
    }

    /// Counts `bytes` of a packet that was sent at `sent` as delivered.
    fn arrived(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivery.acked(now, sent, bytes);
        self.acked += bytes;
    }

    /// All packets of an acknowledgement were counted. `app_limited`: nothing waited to be sent.
    fn learn(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        // A sample counts only if the sender used most of its window. Exception: the credit of exchanges may be below the window, and
        // above what the path holds. A queue then shows that the path is full.
        let used = in_flight + self.acked;
        let fills = self.held_times(UP).is_some_and(|bytes| used >= bytes) && self.is_queued();
        let mut is_limited = !fills && (app_limited || used < self.window / 4 * 3);
        if let Some(sample) = self.delivery.sample(now, self.round_trip.unwrap_or_default()) {
            is_limited |= !fills && sample.is_limited;
            let ended = self.take(&sample, is_limited, now);
            self.count_early(now);
            if ended {
                self.end_round(used, is_limited);
            }
            self.advance(in_flight, is_limited, ended, now);
        }
        self.set_window(is_limited);
        self.acked = 0;
        if app_limited {
            self.delivery.limit(in_flight);
        }
        if in_flight == 0 {
            self.delivery.rest();
        }
    }

    /// Takes a sample. Returns whether a round has ended with it.
    fn take(&mut self, sample: &Sample, is_limited: bool, now: Instant) -> bool {
        if self.round_trip.is_none_or(|least| sample.round_trip <= least) {
            (self.round_trip, self.round_trip_at) = (Some(sample.round_trip), now);
        }
        self.emptied = Some(self.emptied.map_or(sample.round_trip, |least| least.min(sample.round_trip)));
        let ended = sample.delivered_before >= self.round.began;
        if ended && std::mem::take(&mut self.round.counts) {
            self.rate.next_round();
            self.early.most.next_round();
        }
        if !is_limited || sample.rate > self.rate.get() {
            self.rate.add(sample.rate);
            self.round.counts |= !is_limited;
        }
        ended
    }

    fn count_early(&mut self, now: Instant) {
        let expected = in_time(self.rate.get(), now.saturating_duration_since(self.early.since));
        if self.early.acked <= expected {
            (self.early.since, self.early.acked) = (now, self.acked);
        } else {
            self.early.acked += self.acked;
            self.early.most.add(self.early.acked - expected);
        }
    }

    fn end_round(&mut self, used: u64, is_limited: bool) {
        self.round.began = self.delivery.delivered();
        let lost_too_many = self.judge_losses(used, is_limited);
        if !is_limited {
            self.full.look(self.rate.get());
        }
        self.full.is_reached |= lost_too_many;
        self.phase = match self.phase {
            Phase::Cruise(CRUISE_ROUNDS) => self.after_cycle(),
            Phase::Cruise(0) => {
                self.rate_before = self.rate.get();
                Phase::Up
            }
            Phase::Cruise(rounds) => Phase::Cruise(rounds - 1),
            Phase::Up => {
                if !lost_too_many && !is_limited {
                    self.loosen();
                }
                self.emptied = None;
                Phase::Down
            }
            Phase::Down => Phase::Cruise(CRUISE_ROUNDS),
            phase @ (Phase::Startup | Phase::Drain | Phase::ProbeRtt(_)) => phase,
        };
    }

    /// Whether more was lost than single losses are, with so many bytes in flight.
    fn judge_losses(&mut self, used: u64, is_limited: bool) -> bool {
        let delivered = self.delivery.delivered();
        let all = self.losses.lost + (delivered - self.losses.judged);
        if !self.losses.is_marked && all < JUDGED * self.datagram {
            return false;
        }
        let losses = std::mem::replace(&mut self.losses, Losses { judged: delivered, ..Losses::default() });
        let too_many = !is_limited && (losses.is_marked || losses.lost * 100 > all * TOO_MANY_LOST);
        if too_many {
            let most = (used.min(self.window) * AFTER_LOSS / 100).max(self.least_window());
            self.bound = Some(self.bound.map_or(most, |bound| bound.min(most)));
        }
        too_many
    }

    /// Lets more be in flight again. The bound ends where it bounds nothing.
    fn loosen(&mut self) {
        let needed = self.held_times(2 * UP).unwrap_or(u64::MAX);
        self.bound = self.bound.map(|bound| bound * LOOSER / 100).filter(|bound| *bound < needed);
    }

    /// What follows upon Up, once it shows what Up has changed.
    fn after_cycle(&mut self) -> Phase {
        if let (Some(emptied), Some(empty)) = (self.emptied, self.empty()) {
            self.is_shared = emptied * 100 > empty * SHARED;
            self.longer = if emptied * 100 > empty * LONGER { self.longer + 1 } else { 0 };
        }
        if self.longer >= 2 {
            self.longer = 0;
            self.full = Full::default();
            return Phase::ProbeRtt(None);
        }
        let rate = self.rate.get();
        if rate * 100 >= self.rate_before * GROWS && self.rate_before > 0 {
            self.rate_before = rate;
            return Phase::Up;
        }
        Phase::Cruise(CRUISE_ROUNDS - 1)
    }

    /// Goes on to the next phase, if its time has come.
    fn advance(&mut self, in_flight: u64, is_limited: bool, ended: bool, now: Instant) {
        let is_below = |percent| self.held_times(percent).is_none_or(|bytes| in_flight <= bytes);
        let next = match self.phase {
            Phase::Startup if self.full.is_reached => Phase::Drain,
            Phase::Drain | Phase::Down if is_below(100) => Phase::Cruise(CRUISE_ROUNDS),
            Phase::ProbeRtt(None) if is_below(PROBE) => {
                self.round_trip = None;
                // What was sent with more in flight tells nothing of a round trip without a queue.
                self.round.began = self.delivery.delivered() + in_flight;
                Phase::ProbeRtt(Some(now + PROBE_LASTS))
            }
            Phase::ProbeRtt(Some(until)) if now >= until && ended && self.round_trip.is_some() => {
                if self.full.is_reached { Phase::Cruise(CRUISE_ROUNDS) } else { Phase::Startup }
            }
            phase => phase,
        };
        self.phase = next;
        let is_old = now.saturating_duration_since(self.round_trip_at) >= ROUND_TRIP_COUNTS;
        if !is_old || matches!(next, Phase::ProbeRtt(_)) {
            return;
        }
        if is_limited {
            // With so little in flight there is no queue. The next packet shows the round trip.
            (self.round_trip, self.round_trip_at) = (None, now);
        } else {
            self.phase = Phase::ProbeRtt(None);
        }
    }

    fn set_window(&mut self, is_limited: bool) {
        let grown = self.window.saturating_add(self.acked);
        let gain = match self.phase {
            Phase::Startup if is_limited => return,
            Phase::Startup => {
                let most = self.held_times(STARTUP).unwrap_or(u64::MAX);
                self.window = grown.min(most).max(self.window);
                return;
            }
            Phase::Drain | Phase::Down if self.is_shared => DOWN_SHARED,
            Phase::Up if self.is_shared => UP_SHARED,
            Phase::Cruise(_) if self.is_shared => CRUISE_SHARED,
            Phase::Drain | Phase::Down => DOWN,
            Phase::Up => UP,
            Phase::Cruise(_) => CRUISE,
            Phase::ProbeRtt(_) => PROBE,
        };
        let Some(mut target) = self.held_times(gain) else { return };
        if matches!(self.phase, Phase::Up | Phase::Cruise(_)) {
            let early = self.early.most.get().min(self.held_times(50).unwrap_or(0));
            target += early + 3 * self.datagram;
        }
        let target = self.bound.map_or(target, |bound| bound.min(target));
        self.window = target.min(grown).max(self.least_window());
    }
}

impl Full {
    /// Looks at the rate after a round that could have raised it.
    fn look(&mut self, rate: u64) {
        if self.is_reached {
            return;
        }
        if rate * 100 >= self.rate * HIGHER {
            (self.rate, self.rounds) = (rate, 0);
        } else {
            self.rounds += 1;
            self.is_reached = self.rounds >= FULL_AFTER;
        }
    }
}

/// What a rate in bytes a second brings in a time.
fn in_time(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    // Far beyond any window, and so far from an overflow.
    u64::try_from(bytes).unwrap_or(u64::MAX).min(1 << 50)
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.delivery.sent(now);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.smoothed = rtt.get();
        self.arrived(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        self.learn(now, in_flight, app_limited);
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent: bool, lost: u64) {
        self.losses.lost += lost;
        // quinn reports marked packets so.
        self.losses.is_marked |= lost == 0;
        if is_persistent {
            // Nothing has arrived for long (RFC 9002, section 7.6). The path may be another one.
            let mtu = u16::try_from(self.datagram).unwrap_or(u16::MAX);
            *self = Self { window: self.least_window(), ..Self::new(now, mtu) };
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.datagram = u64::from(new_mtu);
        self.window = self.window.max(self.least_window());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST_WINDOW * self.datagram
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
