//! Who drains, and until when.

use std::time::{Duration, Instant};

use crate::message::{Drain, DrainReason};

use super::draining::{Draining, Side};
use super::{Carrier, Phase, Role, Session};

/// Extra time on top of the peer's drain deadline: the side that announced a deadline closes first, and in order.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

impl Session {
    /// Announces that nothing new comes from this side and that open exchanges end within `deadline`. Only the first
    /// call is announced; a later one can only bring the end forward.
    pub fn drain(&mut self, reason: DrainReason, deadline: Duration, now: Instant) {
        if let Some(draining) = self.announce_drain(reason, deadline) {
            draining.end_by(now, deadline);
        }
    }

    /// Takes our Drain that goes out now, behind every request that was opened before it.
    pub fn take_drain(&mut self) -> Option<Drain> {
        let Phase::Draining(draining) = &mut self.phase else { return None };
        let mut drain = draining.unsent.take()?;
        drain.last_exchange = (self.role == Role::Daemon).then_some(self.known);
        Some(drain)
    }

    /// Whether [`Session::take_drain`] has a Drain.
    pub fn has_drain(&self) -> bool {
        matches!(&self.phase, Phase::Draining(Draining { unsent: Some(_), .. }))
    }

    /// When a draining session ends at the latest.
    pub fn drain_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Draining(draining) => draining.deadline,
            _ => None,
        }
    }

    /// Whether either side has announced a drain.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    /// Whether a draining session with `open` exchanges has nothing left to do on this side. Over streams, a client
    /// first waits for all exchanges that the daemon opened: they may arrive behind the Drain.
    pub fn is_drained(&self, open: usize) -> bool {
        let Phase::Draining(draining) = &self.phase else { return false };
        let announced = match self.role {
            Role::Daemon => self.drained_by(Side::Us),
            Role::Client => self.drained_by(Side::Peer),
        };
        let arrived = self.carrier == Carrier::Pipe || draining.last_exchange.is_none_or(|last| self.newest >= last);
        announced && arrived && draining.unsent.is_none() && open == 0
    }

    pub(super) fn drained_by(&self, side: Side) -> bool {
        matches!(&self.phase, Phase::Draining(draining) if draining.announced_by(side))
    }

    /// The drain of an established session, which `side` has announced.
    fn draining(&mut self, side: Side) -> Option<&mut Draining> {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Draining(Draining::new(side));
        }
        let Phase::Draining(draining) = &mut self.phase else { return None };
        draining.announce(side);
        Some(draining)
    }

    /// Queues our Drain unless there was one. `None` if the session is not established.
    fn announce_drain(&mut self, reason: DrainReason, deadline: Duration) -> Option<&mut Draining> {
        let first = !self.drained_by(Side::Us);
        let draining = self.draining(Side::Us)?;
        if first {
            let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            draining.unsent = Some(Drain { reason, deadline_ms, last_exchange: None });
        }
        Some(draining)
    }

    /// Takes note of the peer's Drain; `false` if it is a second one. A daemon answers with a Drain of its own.
    pub(super) fn receive_drain(&mut self, drain: &Drain, now: Instant) -> bool {
        if self.drained_by(Side::Peer) {
            return false;
        }
        if let Some(draining) = self.draining(Side::Peer) {
            draining.last_exchange = drain.last_exchange;
            draining.end_by(now, drain.deadline().saturating_add(DRAIN_SLACK));
        }
        if self.role == Role::Daemon {
            self.announce_drain(DrainReason::Handover, drain.deadline());
        }
        true
    }
}
