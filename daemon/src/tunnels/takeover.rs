//! A session that takes all tunnels of its predecessor over.

use std::sync::Arc;

use super::directory::Reservation;
use super::session::Session;
use crate::names::Subdomain;

/// All tunnels of a session, on their way to its successor. Dropped before [`TakeOver::done`], they stay.
#[derive(Debug)]
pub(super) struct TakeOver {
    pub(super) old: Arc<Session>,
    moving: Vec<(u32, Reservation)>,
    done: bool,
}

impl TakeOver {
    /// Of a session whose tunnels `moving` are reserved for its successor under their ids.
    pub(super) fn new(old: Arc<Session>, moving: Vec<(u32, Reservation)>) -> Self {
        Self { old, moving, done: false }
    }

    /// The name of the tunnel with this id, if it moves.
    pub(super) fn name_of(&self, id: u32) -> Option<&Subdomain> {
        self.moving.iter().find(|(moving, _)| *moving == id).map(|(_, reservation)| &reservation.name)
    }

    /// Leaves a tunnel with the old session.
    pub(super) fn leave_behind(&mut self, id: u32) {
        self.moving.retain(|(moving, _)| *moving != id);
    }

    /// Leaves out a name that the new session gets under another id.
    pub(super) fn leave_out(&mut self, name: &Subdomain) {
        self.moving.retain(|(_, reservation)| reservation.name != *name);
    }

    /// The names that move, with their ids. They are reserved.
    pub(super) fn take(&mut self) -> Vec<(u32, Reservation)> {
        std::mem::take(&mut self.moving)
    }

    /// Notes that the tunnels have moved.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for TakeOver {
    fn drop(&mut self) {
        if !self.done {
            self.old.set_moves(false);
        }
    }
}
