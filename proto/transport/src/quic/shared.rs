//! What the parts of one session share: its control frames that wait to go out, its exchanges, and where it stands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cok_proto::frame::{self, FrameType};
use cok_proto::mux::Role;
use cok_proto::{Drain, DrainReason, ErrorMessage};
use quinn::Connection;
use slab::Slab;
use tokio::sync::{Notify, watch};

use super::windows::Windows;
use crate::{CloseReason, DRAIN_SLACK, OpenError, SessionError, Status};

/// Exchange ids stay below this; the daemon drains with [`DrainReason::Ids`] when it gets there.
const ID_LIMIT: u32 = 1 << 31;

pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) role: Role,
    pub(super) status: watch::Sender<Status>,
    /// Tells the driver of the control stream that there is something for it.
    pub(super) attention: Notify,
    /// How many Pongs have come.
    pub(super) pongs: watch::Sender<u64>,
    /// Daemon: the client gives no sign of life.
    pub(super) silent: watch::Sender<bool>,
    state: Mutex<State>,
}

pub(super) struct State {
    /// Control frames that wait to go out, bounded by what is said once a session and by one Pong and one Ping.
    pub(super) outbox: BytesMut,
    pub(super) pong: Option<[u8; 8]>,
    pub(super) ping: bool,
    /// Our Error frame is in the outbox: nothing follows it.
    pub(super) failed: Option<ErrorMessage>,
    pub(super) drain_by: Option<Instant>,
    pub(super) drain_sent: bool,
    pub(super) drain_received: bool,
    /// Client: how many exchanges the daemon says it has opened in all.
    last_exchange: Option<u32>,
    exchanges: Slab<Arc<Progress>>,
    /// The most exchanges at once.
    max_exchanges: usize,
    /// Daemon: the newest exchange. Client: how many streams were accepted.
    newest: u32,
    closed: bool,
    pub(super) windows: Windows,
    /// The driver looks after stalled readers.
    auditing: bool,
}

/// How one exchange's reader gets on.
#[derive(Debug, Default)]
struct Progress {
    /// It waits for the peer, or has ended.
    waits: AtomicBool,
    reads: AtomicU64,
    /// `reads` when it was last looked at.
    seen: AtomicU64,
}

impl Progress {
    /// Whether nothing was read since the last look though there is something.
    fn stalls(&self) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        self.seen.swap(reads, Ordering::Relaxed) == reads && !self.waits.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn new(connection: Connection, role: Role, config: &crate::Config) -> Arc<Self> {
        let windows = Windows::new(config.initial_window);
        connection.set_receive_window(windows.size());
        Arc::new(Self {
            connection,
            role,
            status: watch::Sender::new(Status::Open),
            attention: Notify::new(),
            pongs: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            state: Mutex::new(State {
                outbox: BytesMut::new(),
                pong: None,
                ping: false,
                failed: None,
                drain_by: None,
                drain_sent: false,
                drain_received: false,
                last_exchange: None,
                exchanges: Slab::new(),
                max_exchanges: config.max_exchanges as usize,
                newest: 0,
                closed: false,
                windows,
                auditing: false,
            }),
        })
    }

    /// No code panics while it holds the lock; should it ever happen, the session goes on rather than the process down.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that nothing new comes from this side.
    pub(super) fn drain(&self, reason: DrainReason, deadline: Duration) {
        self.lock().drain(self.role, reason, deadline);
        self.attention.notify_one();
    }

    /// Ends the session with an Error frame.
    pub(super) fn fail(&self, error: &ErrorMessage) {
        let mut state = self.lock();
        if state.failed.is_some() || state.closed {
            return;
        }
        frame::put_json(&mut state.outbox, FrameType::Error, error);
        state.failed = Some(error.clone());
        drop(state);
        self.attention.notify_one();
    }

    /// The peer drains.
    pub(super) fn drained_by_peer(&self, drain: Drain) {
        let mut state = self.lock();
        state.drain_received = true;
        state.last_exchange = drain.last_exchange;
        state.finish_by(drain.deadline() + DRAIN_SLACK);
        if self.role == Role::Daemon {
            state.drain(self.role, drain.reason.clone(), drain.deadline());
        }
        drop(state);
        self.status.send_if_modified(|status| {
            let open = matches!(status, Status::Open);
            if open {
                *status = Status::Draining(drain);
            }
            open
        });
    }

    pub(super) fn closed(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.closed = true;
        let reason = match &state.failed {
            Some(error) => SessionError::Local(error.clone()).into(),
            None => reason,
        };
        drop(state);
        self.status.send_if_modified(|status| {
            let first = !matches!(status, Status::Closed(_));
            if first {
                *status = Status::Closed(reason);
            }
            first
        });
    }

    /// Daemon: a place for a new exchange.
    pub(super) fn place(self: &Arc<Self>) -> Result<Slot, OpenError> {
        let state = self.lock();
        if state.closed || state.failed.is_some() || state.drain_sent || state.drain_received {
            return Err(OpenError::Unavailable);
        }
        if state.exchanges.len() >= state.max_exchanges {
            return Err(OpenError::Saturated);
        }
        Ok(self.slot(state))
    }

    /// Client: a place for an exchange that the daemon has opened; `None` if it comes behind our Drain. The daemon's
    /// number is bounded by the streams that were granted.
    pub(super) fn accept_place(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        state.newest += 1;
        if state.drain_sent || state.closed {
            drop(state);
            self.attention.notify_one();
            return None;
        }
        Some(self.slot(state))
    }

    fn slot(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Slot {
        let progress = Arc::<Progress>::default();
        let index = state.exchanges.insert(progress.clone());
        let begins = !std::mem::replace(&mut state.auditing, true);
        drop(state);
        if begins {
            self.attention.notify_one();
        }
        Slot(Arc::new(Place { session: self.clone(), index, progress }))
    }

    /// Daemon: a stream was opened for this exchange.
    pub(super) fn note_opened(&self, id: u32) {
        let mut state = self.lock();
        state.newest = state.newest.max(id);
        if id >= ID_LIMIT - 1 {
            state.drain(self.role, DrainReason::Ids, Duration::from_secs(3600));
            drop(state);
            self.attention.notify_one();
        }
    }

    /// How many exchanges are under way.
    pub(super) fn open_exchanges(&self) -> usize {
        self.lock().exchanges.len()
    }

    /// Makes room in the connection's window for what stalled readers hold in it. Whether to look again soon.
    pub(super) fn audit(&self) -> bool {
        let mut state = self.lock();
        let stalled = state.exchanges.iter().filter(|(_, progress)| progress.stalls()).count();
        if let Some(size) = state.windows.adjust(stalled) {
            self.connection.set_receive_window(size);
        }
        state.auditing = !state.exchanges.is_empty() || stalled > 0;
        state.auditing
    }
}

impl State {
    pub(super) fn drain(&mut self, role: Role, reason: DrainReason, deadline: Duration) {
        if self.drain_sent || self.failed.is_some() || self.closed {
            return;
        }
        self.drain_sent = true;
        self.finish_by(deadline);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let last_exchange = (role == Role::Daemon).then_some(self.newest);
        frame::put_json(&mut self.outbox, FrameType::Drain, &Drain { reason, deadline_ms, last_exchange });
    }

    /// The session is to be over by then; an earlier deadline stays.
    fn finish_by(&mut self, deadline: Duration) {
        if let Some(at) = Instant::now().checked_add(deadline) {
            self.drain_by = Some(self.drain_by.map_or(at, |before| before.min(at)));
        }
    }

    /// Whether this side of a draining session has nothing left to do. A client must first have seen every exchange
    /// that the daemon has opened: their streams may come behind the Drain.
    pub(super) fn is_drained(&self, role: Role) -> bool {
        let announced = match role {
            Role::Daemon => self.drain_sent,
            Role::Client => self.drain_received && self.last_exchange.is_none_or(|last| self.newest >= last),
        };
        announced && self.exchanges.is_empty()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain_sent || self.drain_received
    }

    pub(super) fn set_max_exchanges(&mut self, most: u32) {
        self.max_exchanges = most as usize;
    }
}

/// An exchange's place in its session; the last to be dropped frees it.
pub(super) struct Slot(Arc<Place>);

struct Place {
    session: Arc<Shared>,
    index: usize,
    progress: Arc<Progress>,
}

impl Slot {
    pub(super) fn session(&self) -> &Arc<Shared> {
        &self.0.session
    }

    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// The exchange was read from, and now `waits` for the peer or not.
    pub(super) fn note_read(&self, waits: bool) {
        self.0.progress.reads.fetch_add(1, Ordering::Relaxed);
        self.0.progress.waits.store(waits, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.exchanges.try_remove(self.index);
        let last = state.exchanges.is_empty() && (state.drain_sent || state.drain_received);
        drop(state);
        if last {
            self.session.attention.notify_one();
        }
    }
}
