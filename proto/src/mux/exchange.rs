//! One exchange as the multiplexer keeps it: its states, its queues, its credit, and the turns it waits for.

use std::time::Instant;

use super::{Config, ExchangeKey};
use crate::error::ResetCode;
use crate::exchange::{ExchangeError, Inbox, Outbox, RecvState, RecvWindow, SendState, WindowBudget};
use crate::session::TinyData;

/// Whether the exchange runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Each direction goes on to its own end.
    Running { send: SendState, recv: RecvState },
    /// It was abandoned, or the session ended under it.
    Broken(ExchangeError),
}

/// Which ring an exchange waits in for its turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    None,
    Urgent,
    Bulk,
}

/// Two facts about the two directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both {
    pub(super) send: bool,
    pub(super) recv: bool,
}

#[derive(Debug)]
pub(super) struct Exchange {
    /// 0 while its request waits to go out.
    pub(super) id: u32,
    /// The tunnel that the request is for.
    pub(super) tunnel: u32,
    pub(super) state: State,
    /// The peer knows the id. On the daemon, its request may still wait to go out.
    pub(super) announced: bool,
    /// Daemon: it counts among those whose requests wait to go out.
    pub(super) waits_for_id: bool,

    pub(super) inbox: Inbox,
    pub(super) window: RecvWindow,
    /// Tiny Data frames of the client.
    pub(super) tiny: TinyData,

    pub(super) outbox: Outbox,
    /// Body bytes that the peer still takes.
    pub(super) credit: u64,
    /// The first body bytes have gone out; the rest takes its turn behind other exchanges.
    pub(super) is_bulk: bool,
    /// The sender found no room and waits for an event.
    pub(super) writer_waits: bool,

    /// Our direction ends with a break.
    pub(super) broke_off: bool,
    /// Daemon: both handles are gone, and the client may still take a body that broke off.
    pub(super) lingers_until: Option<Instant>,
    /// A Reset that waits to go out.
    pub(super) reset: Option<ResetCode>,
    pub(super) ring: Ring,
    /// The next exchange of its tunnel in the same ring.
    pub(super) next: Option<ExchangeKey>,
    /// It waits in the ring for credit and Resets.
    pub(super) in_control: bool,

    /// Handles that the owner holds.
    pub(super) held: Both,
    /// Events that the owner has not taken.
    pub(super) noted: Both,
}

impl Exchange {
    pub(super) fn new(id: u32, tunnel: u32, state: State, config: &Config, send_credit: u32) -> Self {
        Self {
            id,
            tunnel,
            state,
            announced: false,
            waits_for_id: false,
            inbox: Inbox::default(),
            window: RecvWindow::new(config.initial_window),
            tiny: TinyData::default(),
            outbox: Outbox::default(),
            credit: u64::from(send_credit),
            is_bulk: false,
            writer_waits: false,
            broke_off: false,
            lingers_until: None,
            reset: None,
            ring: Ring::None,
            next: None,
            in_control: false,
            held: Both { send: true, recv: true },
            noted: Both { send: false, recv: false },
        }
    }

    /// Why it is over before its end.
    pub(super) fn broken(&self) -> Option<ExchangeError> {
        match self.state {
            State::Broken(error) => Some(error),
            State::Running { .. } => None,
        }
    }

    /// The direction towards the peer, while the exchange runs.
    pub(super) fn send(&mut self) -> Option<&mut SendState> {
        match &mut self.state {
            State::Running { send, .. } => Some(send),
            State::Broken(_) => None,
        }
    }

    /// The direction from the peer, while the exchange runs.
    pub(super) fn recv(&mut self) -> Option<&mut RecvState> {
        match &mut self.state {
            State::Running { recv, .. } => Some(recv),
            State::Broken(_) => None,
        }
    }

    /// Nothing more goes out, apart from a queued Reset.
    pub(super) fn send_is_over(&self) -> bool {
        match self.state {
            State::Running { send, .. } => send.is_over(),
            State::Broken(_) => true,
        }
    }

    /// Nothing more comes.
    pub(super) fn recv_is_over(&self) -> bool {
        match self.state {
            State::Running { recv, .. } => recv.is_over(),
            State::Broken(_) => true,
        }
    }

    /// Nothing more comes or goes on the wire, apart from a queued Reset.
    pub(super) fn is_over(&self) -> bool {
        self.send_is_over() && self.recv_is_over()
    }

    /// Returns what the window borrowed once nothing more comes and everything was read. Until then the memory is in
    /// use, whether or not the exchange is over.
    pub(super) fn settle_window(&mut self, budget: &WindowBudget) {
        if self.recv_is_over() && self.inbox.unread() == 0 {
            self.window.release(budget);
        }
    }

    /// The ring in which the exchange should wait, by what it could send now.
    pub(super) fn wanted_ring(&self) -> Ring {
        let body = &self.outbox.body;
        let body_ready = !body.is_empty() && self.credit > 0;
        let finish_ready = body.is_empty() && self.outbox.finish.is_some();
        if !self.outbox.heads.is_empty() {
            Ring::Urgent
        } else if body_ready || finish_ready {
            // First bytes go ahead of bulk: a visitor waits for them.
            if self.is_bulk { Ring::Bulk } else { Ring::Urgent }
        } else {
            Ring::None
        }
    }
}
