//! A session that drains: which side announced it, until when it may go on, and the Drain that is still to be sent.

use std::time::{Duration, Instant};

use crate::message::Drain;

/// A side of the session, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Us,
    Peer,
}

/// Which sides have announced a drain.
#[derive(Clone, Copy, Debug)]
enum AnnouncedBy {
    One(Side),
    Both,
}

/// A drain that at least one side has announced.
#[derive(Debug)]
pub(super) struct Draining {
    by: AnnouncedBy,
    /// Our Drain that has not gone out.
    pub(super) unsent: Option<Drain>,
    /// When the session ends at the latest. `None` if that is beyond what the clock can name.
    pub(super) deadline: Option<Instant>,
    /// Client: the last exchange that the daemon opened, if its Drain says so.
    pub(super) last_exchange: Option<u32>,
}

impl Draining {
    pub(super) fn new(side: Side) -> Self {
        Self { by: AnnouncedBy::One(side), unsent: None, deadline: None, last_exchange: None }
    }

    pub(super) fn announced_by(&self, side: Side) -> bool {
        match self.by {
            AnnouncedBy::One(announcer) => announcer == side,
            AnnouncedBy::Both => true,
        }
    }

    pub(super) fn announce(&mut self, side: Side) {
        if !self.announced_by(side) {
            self.by = AnnouncedBy::Both;
        }
    }

    /// The session ends within `time`. An earlier deadline stays.
    pub(super) fn end_by(&mut self, now: Instant, time: Duration) {
        self.deadline = self.deadline.into_iter().chain(now.checked_add(time)).min();
    }
}
