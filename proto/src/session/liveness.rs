//! Whether the peer is still there: a Ping after a silence, the end after a longer one. Pings also measure the round
//! trip.
//!
//! Over QUIC, the connection's own idle time-out takes this place.

use std::time::{Duration, Instant};

use super::round_trip::LeastRoundTrip;

/// Silence of the peer after which a Ping goes out. Home routers start to forget a mapping after 30 s.
pub const PING_AFTER: Duration = Duration::from_secs(15);
/// Silence of the peer after which the session is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Age from which the round trip is measured again while credit flows.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// What this side has received from the peer, and when.
#[derive(Debug)]
pub(crate) struct Liveness {
    last_received: Instant,
    /// The Ping that waits for its Pong.
    outstanding: Option<([u8; 8], Instant)>,
    pings: u64,
    round_trip: LeastRoundTrip,
    measured_at: Option<Instant>,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last_received: now,
            outstanding: None,
            pings: 0,
            round_trip: LeastRoundTrip::new(now),
            measured_at: None,
        }
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get()
    }

    pub(crate) fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// Takes a Pong in. It is ignored unless it answers the outstanding Ping.
    pub(crate) fn pong(&mut self, opaque: [u8; 8], now: Instant) {
        if let Some((expected, sent)) = self.outstanding
            && expected == opaque
        {
            self.outstanding = None;
            self.round_trip.add(now.saturating_duration_since(sent), now);
            self.measured_at = Some(now);
        }
    }

    /// A Ping that measures the round trip, if the last measure is stale and no Ping is outstanding.
    pub(crate) fn probe(&mut self, now: Instant) -> Option<[u8; 8]> {
        let stale = self.measured_at.is_none_or(|at| now.saturating_duration_since(at) >= STALE_AFTER);
        (stale && self.outstanding.is_none()).then(|| self.ping(now))
    }

    /// A Ping that asks for a sign of life, if none is outstanding.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<[u8; 8]> {
        self.outstanding.is_none().then(|| self.ping(now))
    }

    /// When [`Liveness::check`] is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.last_received + if self.outstanding.is_some() { DEAD_AFTER } else { PING_AFTER }
    }

    /// The Ping that is due, or an error once the peer is dead.
    pub(crate) fn check(&mut self, now: Instant) -> Result<Option<[u8; 8]>, Silent> {
        let silence = now.saturating_duration_since(self.last_received);
        if silence >= DEAD_AFTER {
            return Err(Silent);
        }
        Ok((silence >= PING_AFTER && self.outstanding.is_none()).then(|| self.ping(now)))
    }

    fn ping(&mut self, now: Instant) -> [u8; 8] {
        self.pings += 1;
        let opaque = self.pings.to_be_bytes();
        self.outstanding = Some((opaque, now));
        opaque
    }
}

/// The peer was silent for [`DEAD_AFTER`].
#[derive(Debug)]
pub(crate) struct Silent;
