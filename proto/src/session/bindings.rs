//! The tunnels of a session, by the same rules on both sides: which ids were used, which are bound, and how many
//! exchanges each has.
//!
//! It knows ids only. Names and owners are the daemon's, targets are the client's.

use crate::error::ProtocolError;
use crate::ids::ById;

use super::Carrier;

/// The most tunnels of one session, with those that are asked for.
pub const MAX_BINDINGS: usize = 1000;
/// The most Binds without an answer that has gone out. It bounds what a client that reads nothing can make a daemon
/// queue.
pub const MAX_UNANSWERED: usize = 32;

/// Where one tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Client: it was bound in the replaced session, and may move here.
    Moving,
    /// Bind was sent or received, and not answered.
    Asked,
    /// It has ended before the answer to its Bind.
    Withdrawn,
    /// Requests may come.
    Bound,
}

/// Who waits for the answer to a Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The client: the tunnel is bound or refused.
    Waits,
    /// Both sides count the answer, but the tunnel has ended.
    Withdrew,
}

#[derive(Debug)]
struct Binding {
    state: State,
    /// Daemon: exchanges in memory.
    exchanges: usize,
}

/// The tunnels of a session. A tunnel that was refused or has ended is not kept; its id is below `highest`.
///
/// Each Bind gets one answer, even if its tunnel ends before. So both sides agree on the number of unanswered Binds, and
/// Bind and Unbind in turns cannot fill a queue.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    by_id: ById<Binding>,
    /// Whether the session has, or had, Connect's own tunnel.
    has_first: bool,
    /// The highest id that was used; 0 for none.
    highest: u32,
    /// Binds that the owner of the daemon's side has not answered.
    asked: usize,
    /// Daemon: answers to Binds that may not have gone out yet.
    unsent: usize,
    /// Client: tunnels of the replaced session whose Bound is still to come.
    moved_left: u32,
}

impl Bindings {
    fn insert(&mut self, id: u32, state: State) {
        self.has_first |= id == 0;
        self.highest = self.highest.max(id);
        self.by_id.entry(id).or_insert(Binding { state, exchanges: 0 }).state = state;
    }

    fn was_used(&self, id: u32) -> bool {
        if id == 0 { self.has_first } else { id <= self.highest }
    }

    // ---- both sides ----

    /// This tunnel is online, without a Bind.
    pub(super) fn bind_now(&mut self, id: u32) {
        self.insert(id, State::Bound);
    }

    /// How many tunnels there are, with those that are asked for.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Ends a tunnel; `false` if there is none of that id.
    pub(super) fn end(&mut self, id: u32) -> bool {
        match self.by_id.get_mut(&id) {
            None | Some(Binding { state: State::Withdrawn, .. }) => false,
            Some(binding) if binding.state == State::Asked => {
                binding.state = State::Withdrawn;
                true
            }
            Some(_) => self.by_id.remove(&id).is_some(),
        }
    }

    /// A Bind is answered. `None` if none of this id waits for an answer.
    fn settle(&mut self, id: u32, granted: bool) -> Option<Asker> {
        let binding = self.by_id.get_mut(&id)?;
        let asker = match binding.state {
            State::Asked => Asker::Waits,
            State::Withdrawn => Asker::Withdrew,
            State::Moving | State::Bound => return None,
        };
        self.asked -= 1;
        if granted && asker == Asker::Waits {
            binding.state = State::Bound;
        } else {
            self.by_id.remove(&id);
        }
        Some(asker)
    }

    /// An Unbind came. `false` if the tunnel has ended already, because both sides may end it at once.
    pub(super) fn receive_unbind(&mut self, id: u32) -> Result<bool, ProtocolError> {
        if !self.was_used(id) {
            return Err(ProtocolError::NeverBound { kind: "Unbind", id });
        }
        Ok(self.end(id))
    }

    // ---- the daemon's side ----

    /// A Bind came.
    pub(super) fn receive_bind(&mut self, id: u32) -> Result<(), ProtocolError> {
        if id <= self.highest {
            return Err(ProtocolError::Unexpected { kind: "Bind", why: "tunnel ids must rise" });
        }
        if self.asked + self.unsent >= MAX_UNANSWERED {
            return Err(ProtocolError::TooManyTunnels { what: "unanswered Binds", limit: MAX_UNANSWERED });
        }
        if self.by_id.len() >= MAX_BINDINGS {
            return Err(ProtocolError::TooManyTunnels { what: "tunnels", limit: MAX_BINDINGS });
        }
        self.asked += 1;
        self.insert(id, State::Asked);
        Ok(())
    }

    /// A Bind is answered. `None` if none of this id waits for an answer.
    pub(super) fn answer(&mut self, id: u32, granted: bool) -> Option<Asker> {
        let asker = self.settle(id, granted)?;
        self.unsent += 1;
        Some(asker)
    }

    /// All answers have gone out.
    pub(super) fn sent(&mut self) {
        self.unsent = 0;
    }

    /// Exchanges of this tunnel; `None` if it is not bound.
    pub(super) fn exchanges(&self, id: u32) -> Option<usize> {
        self.by_id.get(&id).filter(|binding| binding.state == State::Bound).map(|binding| binding.exchanges)
    }

    pub(super) fn opened(&mut self, id: u32) {
        if let Some(binding) = self.by_id.get_mut(&id) {
            binding.exchanges += 1;
        }
    }

    pub(super) fn released(&mut self, id: u32) {
        if let Some(binding) = self.by_id.get_mut(&id) {
            binding.exchanges = binding.exchanges.saturating_sub(1);
        }
    }

    // ---- the client's side ----

    /// Before Connect: this tunnel may move here from the replaced session.
    pub(super) fn expect_moved(&mut self, id: u32) {
        self.insert(id, State::Moving);
    }

    /// ConnectAck came: so many tunnels move here.
    pub(super) fn moved(&mut self, count: u32) {
        self.moved_left = count;
        self.forget_unmoved();
    }

    fn forget_unmoved(&mut self) {
        if self.moved_left == 0 {
            self.by_id.retain(|_, binding| binding.state != State::Moving);
        }
    }

    /// Asks for a tunnel; `false` if the id is used or there are too many.
    pub(super) fn ask(&mut self, id: u32) -> bool {
        let free = id > self.highest && self.asked < MAX_UNANSWERED && self.by_id.len() < MAX_BINDINGS;
        if free {
            self.asked += 1;
            self.insert(id, State::Asked);
        }
        free
    }

    /// A Bound or Refused came. `false` if the tunnel has ended meanwhile.
    pub(super) fn receive_answer(&mut self, kind: &'static str, id: u32, granted: bool) -> Result<bool, ProtocolError> {
        if let Some(asker) = self.settle(id, granted) {
            return Ok(asker == Asker::Waits);
        }
        if !self.was_used(id) {
            return Err(ProtocolError::NeverBound { kind, id });
        }
        let moves = granted && self.moved_left > 0;
        let known = match self.by_id.get_mut(&id) {
            Some(binding) if moves => {
                binding.state = State::Bound;
                true
            }
            Some(_) => return Err(ProtocolError::Unexpected { kind, why: "its Bind is answered already" }),
            None => false,
        };
        if moves {
            self.moved_left -= 1;
            self.forget_unmoved();
        }
        Ok(known)
    }

    /// A request for this tunnel came; `false` if the tunnel has ended. Over streams, a request may overtake Bound.
    pub(super) fn takes_request(&self, id: u32, carrier: Carrier) -> Result<bool, ProtocolError> {
        let kind = "HTTPRequest";
        match self.by_id.get(&id).map(|binding| binding.state) {
            Some(State::Withdrawn) => Ok(false),
            Some(state) if state == State::Bound || carrier == Carrier::Streams => Ok(true),
            Some(_) => Err(ProtocolError::Unexpected { kind, why: "its tunnel is not bound yet" }),
            None if self.was_used(id) => Ok(false),
            None => Err(ProtocolError::NeverBound { kind, id }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_answered_once() {
        let mut daemon = Bindings::default();
        daemon.receive_bind(1).unwrap();
        assert_eq!(daemon.exchanges(1), None);
        assert_eq!(daemon.answer(1, true), Some(Asker::Waits));
        assert_eq!((daemon.answer(1, true), daemon.answer(2, true)), (None, None));
        assert_eq!(daemon.exchanges(1), Some(0));
        assert!(daemon.receive_bind(1).is_err() && daemon.receive_bind(0).is_err());
        assert!(daemon.receive_unbind(1).unwrap() && !daemon.receive_unbind(1).unwrap());
        assert!(daemon.receive_unbind(0).is_err() && daemon.receive_unbind(2).is_err());
    }

    #[test]
    fn unanswered_binds_and_unsent_answers_are_bounded() {
        let mut daemon = Bindings::default();
        for id in 1..=MAX_UNANSWERED as u32 {
            daemon.receive_bind(id).unwrap();
            daemon.answer(id, false);
        }
        assert!(daemon.receive_bind(100).is_err());
        daemon.sent();
        for id in 101..101 + MAX_BINDINGS as u32 {
            daemon.receive_bind(id).unwrap();
            daemon.answer(id, true);
            daemon.sent();
        }
        assert!(daemon.receive_bind(5000).is_err());
    }

    #[test]
    fn a_withdrawn_bind_counts_until_its_answer() {
        for granted in [true, false] {
            let mut daemon = Bindings::default();
            daemon.receive_bind(3).unwrap();
            assert!(daemon.receive_unbind(3).unwrap() && !daemon.receive_unbind(3).unwrap());
            assert_eq!((daemon.asked, daemon.exchanges(3)), (1, None));
            assert_eq!((daemon.answer(3, granted), daemon.answer(3, granted)), (Some(Asker::Withdrew), None));
            assert_eq!((daemon.len(), daemon.asked), (0, 0));

            let mut client = Bindings::default();
            assert!(client.ask(3) && client.end(3) && !client.end(3));
            assert_eq!(client.takes_request(3, Carrier::Streams), Ok(false));
            assert_eq!(client.receive_answer("an answer", 3, granted), Ok(false));
            assert_eq!((client.len(), client.asked), (0, 0));
        }
    }

    #[test]
    fn binds_that_are_withdrawn_at_once_are_bounded() {
        let mut daemon = Bindings::default();
        for id in 1..=MAX_UNANSWERED as u32 {
            daemon.receive_bind(id).unwrap();
            daemon.receive_unbind(id).unwrap();
        }
        assert!(daemon.receive_bind(100).is_err());
    }

    #[test]
    fn a_tunnel_may_end_before_it_has_moved() {
        let mut client = Bindings::default();
        for id in [1, 2, 3] {
            client.expect_moved(id);
        }
        client.moved(2);
        assert!(client.end(1));
        assert_eq!(client.receive_answer("Bound", 1, true), Ok(false));
        assert_eq!(client.receive_answer("Bound", 2, true), Ok(true));
        assert_eq!(client.len(), 1, "the third has not moved");
        assert!(client.receive_answer("Bound", 2, true).is_err());
    }

    #[test]
    fn tunnels_move_under_their_ids() {
        let mut client = Bindings::default();
        for id in [0, 4, 7] {
            client.expect_moved(id);
        }
        client.moved(2);
        assert!(client.ask(8) && !client.ask(7));
        assert!(client.receive_answer("Bound", 7, true).unwrap());
        assert!(client.receive_answer("Bound", 0, true).unwrap());
        assert!(!client.receive_answer("Bound", 4, true).unwrap(), "it did not move");
        assert!(client.takes_request(0, Carrier::Pipe).unwrap() && !client.takes_request(4, Carrier::Pipe).unwrap());
        assert!(client.takes_request(8, Carrier::Pipe).is_err(), "it is not bound yet");
        assert!(client.takes_request(8, Carrier::Streams).unwrap());
        assert!(client.takes_request(9, Carrier::Streams).is_err());
        assert!(client.receive_answer("Bound", 7, true).is_err(), "it is bound already");
        assert!(client.receive_answer("Refused", 8, false).unwrap());
        assert!(!client.takes_request(8, Carrier::Streams).unwrap());
    }

    #[test]
    fn nothing_moves_from_an_unknown_session() {
        let mut client = Bindings::default();
        client.expect_moved(2);
        client.moved(0);
        assert_eq!(client.len(), 0);
        assert!(client.ask(3) && client.receive_answer("Bound", 1, true).is_ok_and(|known| !known));
    }
}
