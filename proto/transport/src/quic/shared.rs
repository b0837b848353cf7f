//! The state that the parts of one session share: its rules, its exchanges, and control frames that wait to go out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cok_proto::exchange::RecvWindow;
use cok_proto::frame::{self, FrameType};
use cok_proto::ids::ById;
use cok_proto::session::{Admission, LeastRoundTrip, Said, Session, Signal};
use cok_proto::{Drain, DrainReason, ErrorMessage, Frame, ProtocolError, ResetCode, Role, TunnelFrame, WindowBudget};
use parking_lot::{Mutex, MutexGuard};
use quinn::Connection;
use slab::Slab;
use tokio::sync::{Notify, watch};

use super::settings::stream_window;
use super::turns::Turns;
use super::window::ConnectionWindow;
use crate::{CloseReason, Holding, OpenError, SessionError, Status, set_waker};

pub(super) struct Shared {
    pub(super) connection: Connection,
    pub(super) role: Role,
    /// Body bytes that the peer takes of each exchange at first.
    pub(super) peer_window: u32,
    /// Body bytes that we take of each exchange at first.
    initial_window: u32,
    /// The budget for the growth of windows.
    pub(super) budget: WindowBudget,
    round_trip: Mutex<LeastRoundTrip>,
    /// Body bytes and Data frames that have gone out since the last WindowUpdate came.
    sent: AtomicU64,
    sent_frames: AtomicU32,
    pub(super) status: watch::Sender<Status>,
    /// Wakes the driver of the control stream.
    pub(super) attention: Notify,
    /// Pongs that have come.
    pub(super) pongs: watch::Sender<u64>,
    /// Daemon: true while the client does not answer on its path.
    pub(super) silent: watch::Sender<bool>,
    /// Several tunnels have exchanges, so that they take turns to send.
    contended: AtomicBool,
    /// Writers of first bytes that wait for room in quinn's send buffers.
    first_bytes: AtomicUsize,
    state: Mutex<State>,
    turns: Mutex<Turns>,
}

pub(super) struct State {
    pub(super) session: Session,
    /// Control frames that wait to go out. WindowUpdates are bounded by what was read, and each other kind waits at most once.
    pub(super) outbox: BytesMut,
    /// Control frames wait.
    pub(super) corked: bool,
    pub(super) pong: Option<[u8; 8]>,
    pub(super) ping: bool,
    exchanges: Slab<Entry>,
    /// Where the exchange of an id is.
    by_id: ById<usize>,
    window: ConnectionWindow,
    /// The driver counts stalled readers.
    auditing: bool,
    /// Frames about tunnels that wait to be taken. The session bounds how many come unanswered.
    tunnel_frames: VecDeque<(u32, TunnelFrame)>,
    tunnel_waiter: Option<Waker>,
}

/// What a session does to an exchange when its tunnel ends. The session knows its exchanges by this alone.
pub(super) trait Abandon: Send + Sync {
    /// Abandons the exchange unless it is over.
    fn abandon(&self, code: ResetCode);

    /// The peer takes so many body bytes more.
    fn credit(&self, _increment: u32) {}

    /// Notes whether bytes have come for a reader that waited, and did not come for them.
    fn look(&self) {}
}

/// Stands for the exchange of a slot that has none yet.
struct NoExchange;

impl Abandon for NoExchange {
    fn abandon(&self, _code: ResetCode) {}
}

/// An exchange, as its session knows it.
struct Entry {
    progress: Arc<Progress>,
    /// The tunnel that it is for. On the client, it is known once the head has come.
    tunnel: Option<u32>,
    /// Its id, once it has one.
    id: Option<u32>,
    exchange: Weak<dyn Abandon>,
}

/// The progress of one exchange's reader.
#[derive(Debug, Default)]
struct Progress {
    /// The reader waits for the peer, or has left.
    waits: AtomicBool,
    reads: AtomicU64,
    /// `reads` at the last audit.
    seen: AtomicU64,
    /// The reader has waited for the peer since the last audit.
    kept_up: AtomicBool,
    /// Where a stalled reader is charged for what it may hold.
    holding: OnceLock<Arc<Holding>>,
    /// Bytes that are charged.
    charged: AtomicUsize,
    /// The size of its credit window in bytes.
    window: AtomicU32,
}

impl Progress {
    /// Whether nothing was read since the last audit though something could be. While tunnels are `contended`, also
    /// whether the reader never kept up: slow readers of one tunnel must not take the connection window from another.
    fn stalls(&self, contended: bool) -> bool {
        let reads = self.reads.load(Ordering::Relaxed);
        let none_read = self.seen.swap(reads, Ordering::Relaxed) == reads;
        let kept_up = self.kept_up.swap(false, Ordering::Relaxed);
        (none_read || (contended && !kept_up)) && !self.waits.load(Ordering::Relaxed)
    }

    /// Whether the reader waits for the peer, and has since the last audit.
    fn is_quiet(&self) -> bool {
        self.waits.load(Ordering::Relaxed) && self.reads.load(Ordering::Relaxed) == self.seen.load(Ordering::Relaxed)
    }

    /// Charges what the reader may hold, or gives it back.
    fn charge(&self, bytes: usize) {
        let Some(holding) = self.holding.get() else { return };
        let before = self.charged.swap(bytes, Ordering::Relaxed);
        holding.add(bytes.saturating_sub(before));
        holding.sub(before.saturating_sub(bytes));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.charge(0);
    }
}

impl Shared {
    /// For a session whose handshake is done. `peer_window` is the initial window that the peer has announced.
    pub(super) fn new(connection: Connection, session: Session, config: &crate::Config, peer_window: u32) -> Arc<Self> {
        let window = ConnectionWindow::new();
        connection.set_receive_window(window.size());
        let now = Instant::now();
        let mut round_trip = LeastRoundTrip::new(now);
        round_trip.add(connection.rtt(), now);
        Arc::new(Self {
            connection,
            role: session.role(),
            peer_window,
            initial_window: config.initial_window,
            budget: config.budget.clone(),
            round_trip: Mutex::new(round_trip),
            sent: AtomicU64::new(0),
            sent_frames: AtomicU32::new(0),
            status: watch::Sender::new(Status::Open),
            attention: Notify::new(),
            pongs: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            contended: AtomicBool::new(false),
            first_bytes: AtomicUsize::new(0),
            turns: Mutex::new(Turns::new()),
            state: Mutex::new(State {
                session,
                outbox: BytesMut::new(),
                corked: false,
                pong: None,
                ping: false,
                exchanges: Slab::new(),
                by_id: ById::default(),
                window,
                auditing: false,
                tunnel_frames: VecDeque::new(),
                tunnel_waiter: None,
            }),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The least round trip of the last minutes. quinn's own least one never expires while a connection keeps its path.
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        let mut round_trip = self.round_trip.lock();
        round_trip.add(self.connection.rtt(), now);
        round_trip.get()
    }

    /// Whether several tunnels have exchanges.
    pub(super) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
    }

    /// Whether first bytes of an exchange wait for room.
    pub(super) fn first_bytes_wait(&self) -> bool {
        self.first_bytes.load(Ordering::Relaxed) > 0
    }

    /// First bytes begin or cease to wait.
    pub(super) fn count_first(&self, waits: bool) {
        if waits {
            self.first_bytes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.first_bytes.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn take_turns<T>(&self, act: impl FnOnce(&mut Turns) -> T) -> T {
        let mut turns = self.turns.lock();
        let result = act(&mut turns);
        self.contended.store(turns.is_contended(), Ordering::Relaxed);
        result
    }

    /// Announces that nothing new comes from this side.
    pub(super) fn drain(&self, reason: DrainReason, deadline: Duration) {
        let mut state = self.lock();
        state.session.drain(reason, deadline, Instant::now());
        state.queue_drain();
        drop(state);
        self.attention.notify_one();
    }

    /// Ends the session with an Error frame.
    pub(super) fn fail(&self, error: &ErrorMessage) {
        let mut state = self.lock();
        if let Some(error) = state.session.fail(error) {
            frame::put_json(&mut state.outbox, FrameType::Error, &error);
            drop(state);
            self.attention.notify_one();
        }
    }

    /// Acts on a frame of the control stream. An error means that the peer has ended the session.
    pub(super) fn receive(&self, frame: Frame) -> Result<(), SessionError> {
        let mut state = self.lock();
        match state.session.receive(frame, Instant::now()) {
            Ok(Some(Signal::Ping(opaque))) => state.pong = Some(opaque),
            Ok(Some(Signal::Pong(_))) => self.pongs.send_modify(|pongs| *pongs += 1),
            Ok(Some(Signal::Tunnel { id, frame })) => {
                state.tunnel_frames.push_back((id, frame));
                if let Some(waiter) = state.tunnel_waiter.take() {
                    drop(state);
                    waiter.wake();
                }
            }
            Ok(Some(Signal::RefuseBind { id, error })) => {
                drop(state);
                self.say(id, |session| session.refuse_bind(id, &error));
            }
            Ok(Some(Signal::Drain(drain))) => {
                state.queue_drain();
                drop(state);
                self.note_drain(drain);
            }
            Ok(Some(Signal::Exchange(Frame::WindowUpdate { id, increment }))) => {
                let exchange = state.by_id.get(&id).and_then(|index| state.exchanges.get(*index));
                let exchange = exchange.and_then(|entry| entry.exchange.upgrade());
                let charged = self.charge_update(&mut state.session, id, exchange.is_some());
                drop(state);
                match (charged, exchange) {
                    (Err(error), _) => self.fail(&(&error).into()),
                    (Ok(()), Some(exchange)) => exchange.credit(increment),
                    (Ok(()), None) => {}
                }
            }
            Err(SessionError::Protocol(error)) => {
                drop(state);
                self.fail(&(&error).into());
            }
            Err(error) => return Err(error),
            // The reader of the control stream lets nothing else through.
            Ok(_) => {}
        }
        Ok(())
    }

    /// Judges a WindowUpdate for the exchange of this id, which is over or is `open`.
    fn charge_update(&self, session: &mut Session, id: u32, open: bool) -> Result<(), ProtocolError> {
        if !session.was_opened(id) {
            return Err(ProtocolError::NeverOpened { kind: "WindowUpdate", id });
        }
        let (frames, bytes) = (self.sent_frames.swap(0, Ordering::Relaxed), self.sent.swap(0, Ordering::Relaxed));
        session.earn_data(frames, usize::try_from(bytes).unwrap_or(usize::MAX));
        session.charge_exchange(&Frame::WindowUpdate { id, increment: 0 }, open, Instant::now())
    }

    /// Counts Data frames and body bytes that go out.
    pub(super) fn note_sent(&self, frames: u32, bytes: u64) {
        self.sent_frames.fetch_add(frames, Ordering::Relaxed);
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The credit window of a new exchange.
    pub(super) fn new_window(&self) -> RecvWindow {
        RecvWindow::growing_to(self.initial_window, stream_window(self.initial_window))
    }

    /// Sends what `what` says about a tunnel, if it says anything; whether that has an effect.
    pub(super) fn say(&self, id: u32, what: impl FnOnce(&mut Session) -> Option<Said>) -> bool {
        let mut state = self.lock();
        let Some(Said { frame, counts }) = what(&mut state.session) else { return false };
        frame::put_tunnel(&mut state.outbox, id, &frame);
        drop(state);
        self.attention.notify_one();
        counts
    }

    pub(super) fn poll_tunnel(&self, cx: &mut Context<'_>) -> Poll<Option<(u32, TunnelFrame)>> {
        let mut state = self.lock();
        if let Some(frame) = state.tunnel_frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if state.session.is_closed() {
            return Poll::Ready(None);
        }
        set_waker(&mut state.tunnel_waiter, cx);
        Poll::Pending
    }

    /// The exchanges of a tunnel.
    pub(super) fn exchanges_of(&self, tunnel: u32) -> Vec<Arc<dyn Abandon>> {
        let state = self.lock();
        let of_tunnel = state.exchanges.iter().filter(|(_, entry)| entry.tunnel == Some(tunnel));
        of_tunnel.filter_map(|(_, entry)| entry.exchange.upgrade()).collect()
    }

    /// Client: judges the tunnel of a request.
    pub(super) fn request_for(&self, tunnel: u32) -> Result<Admission, ProtocolError> {
        self.lock().session.request_for(tunnel)
    }

    fn note_drain(&self, drain: Drain) {
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
        state.session.close();
        let waiter = state.tunnel_waiter.take();
        let reason = match state.session.error() {
            Some(error) => SessionError::Local(error.clone()).into(),
            None => reason,
        };
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        self.status.send_if_modified(|status| {
            let first = !matches!(status, Status::Closed(_));
            if first {
                *status = Status::Closed(reason);
            }
            first
        });
    }

    /// Daemon: a slot for a new exchange of a tunnel.
    pub(super) fn open_slot(self: &Arc<Self>, tunnel: u32) -> Result<Slot, OpenError> {
        let mut state = self.lock();
        state.session.may_open(tunnel, state.exchanges.len())?;
        state.session.held(tunnel);
        Ok(self.slot(state, Some(tunnel)))
    }

    /// Client: a slot for the exchange that the daemon has opened under this id. `None` if it is refused.
    pub(super) fn accept_slot(self: &Arc<Self>, id: u32) -> Option<Slot> {
        let mut state = self.lock();
        let held = state.exchanges.len();
        match state.session.request(id, held, held) {
            Ok(Admission::Accept) => Some(self.slot(state, None)),
            // Quinn returns streams in the order of their ids, so the daemon can break no rule here.
            Ok(Admission::Refuse) | Err(_) => {
                drop(state);
                self.attention.notify_one();
                None
            }
        }
    }

    fn slot(self: &Arc<Self>, mut state: MutexGuard<'_, State>, tunnel: Option<u32>) -> Slot {
        let progress = Arc::<Progress>::default();
        progress.window.store(self.initial_window, Ordering::Relaxed);
        let entry = Entry { progress: progress.clone(), tunnel, id: None, exchange: Weak::<NoExchange>::new() };
        let index = state.exchanges.insert(entry);
        if let Some(size) = state.window.grant(self.initial_window.into()) {
            self.connection.set_receive_window(size);
        }
        if let Some(tunnel) = tunnel {
            self.take_turns(|turns| turns.opened(tunnel));
        }
        let begins = !std::mem::replace(&mut state.auditing, true);
        drop(state);
        if begins {
            self.attention.notify_one();
        }
        Slot(Arc::new(SlotGuard { session: self.clone(), index, progress }))
    }

    /// Daemon: a stream was opened for this exchange.
    pub(super) fn note_opened(&self, id: u32) {
        let mut state = self.lock();
        state.session.opened(id, Instant::now());
        state.session.announced(id);
        if state.queue_drain() {
            drop(state);
            self.attention.notify_one();
        }
    }

    /// The number of open exchanges.
    pub(super) fn open_exchanges(&self) -> usize {
        self.lock().exchanges.len()
    }

    /// Looks after readers that waited for the peer at the last audit and still do. A visitor's side that writes reads
    /// nothing meanwhile, so that it may have been woken and not have come.
    fn look(&self) {
        let state = self.lock();
        let quiet = state.exchanges.iter().filter(|(_, entry)| entry.progress.is_quiet());
        let quiet: Vec<_> = quiet.filter_map(|(_, entry)| entry.exchange.upgrade()).collect();
        drop(state);
        for exchange in quiet {
            exchange.look();
        }
    }

    /// Charges stalled readers for what they may hold. Whether another audit is needed.
    pub(super) fn audit(&self) -> bool {
        self.look();
        let mut state = self.lock();
        let mut turns = self.turns.lock();
        let contended = turns.is_contended();
        if let Some(size) = turns.adjust(self.connection.stats().path.cwnd) {
            self.connection.set_send_window(size);
        }
        drop(turns);
        for (_, Entry { progress, .. }) in &state.exchanges {
            let stalls = progress.stalls(contended);
            progress.charge(if stalls { progress.window.load(Ordering::Relaxed) as usize } else { 0 });
        }
        if let Some(size) = state.window.settle() {
            self.connection.set_receive_window(size);
        }
        state.auditing = !state.exchanges.is_empty();
        state.auditing
    }
}

impl State {
    /// Moves our Drain to the control frames that wait to go out; `false` if there is none.
    fn queue_drain(&mut self) -> bool {
        let drain = self.session.take_drain();
        if let Some(drain) = &drain {
            frame::put_json(&mut self.outbox, FrameType::Drain, drain);
        }
        drain.is_some()
    }

    /// Whether this side of a draining session has nothing left to do.
    pub(super) fn is_drained(&self) -> bool {
        self.session.is_drained(self.exchanges.len())
    }
}

/// An exchange's slot in its session. The last share that is dropped frees it.
pub(super) struct Slot(Arc<SlotGuard>);

struct SlotGuard {
    session: Arc<Shared>,
    index: usize,
    progress: Arc<Progress>,
}

impl Slot {
    pub(super) fn session(&self) -> &Arc<Shared> {
        &self.0.session
    }

    /// The exchange that uses the slot.
    pub(super) fn attach(&self, exchange: Weak<dyn Abandon>) {
        if let Some(entry) = self.0.session.lock().exchanges.get_mut(self.0.index) {
            entry.exchange = exchange;
        }
    }

    /// The exchange's id.
    pub(super) fn set_id(&self, id: u32) {
        let mut state = self.0.session.lock();
        state.by_id.insert(id, self.0.index);
        if let Some(entry) = state.exchanges.get_mut(self.0.index) {
            entry.id = Some(id);
        }
    }

    /// Returns credit to the peer. It includes `grown` bytes by which the window is larger now.
    pub(super) fn grant(&self, id: u32, increment: u32, grown: u32) {
        let session = &self.0.session;
        let mut state = session.lock();
        if state.session.is_closed() {
            return;
        }
        frame::put_window_update(&mut state.outbox, id, increment);
        if grown > 0 {
            self.0.progress.window.fetch_add(grown, Ordering::Relaxed);
            if let Some(size) = state.window.grant(grown.into()) {
                session.connection.set_receive_window(size);
            }
        }
        drop(state);
        session.attention.notify_one();
    }

    /// Client: the tunnel that the exchange is for.
    pub(super) fn set_tunnel(&self, tunnel: u32) {
        if let Some(entry) = self.0.session.lock().exchanges.get_mut(self.0.index) {
            entry.tunnel = Some(tunnel);
            self.0.session.take_turns(|turns| turns.opened(tunnel));
        }
    }

    /// Charges what the reader may hold while it stalls.
    pub(super) fn charge_to(&self, holding: Arc<Holding>) {
        let _first_counts = self.0.progress.holding.set(holding);
    }

    /// Whether the reader waited for the peer when it last looked.
    pub(super) fn waits(&self) -> bool {
        self.0.progress.waits.load(Ordering::Relaxed)
    }

    /// Notes that bytes wait for the reader.
    pub(super) fn note_unread(&self) {
        self.0.progress.waits.store(false, Ordering::Relaxed);
    }

    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// Notes that the exchange was read, and whether its reader now waits for the peer.
    pub(super) fn note_read(&self, waits: bool) {
        self.0.progress.reads.fetch_add(1, Ordering::Relaxed);
        self.0.progress.waits.store(waits, Ordering::Relaxed);
        if waits {
            self.0.progress.kept_up.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.window.take_back(self.progress.window.load(Ordering::Relaxed).into());
        if let Some(entry) = state.exchanges.try_remove(self.index) {
            if let Some(id) = entry.id {
                state.by_id.remove(&id);
            }
            if let Some(tunnel) = entry.tunnel {
                state.session.released(tunnel);
                self.session.take_turns(|turns| turns.ended(tunnel));
            }
        }
        let last = state.exchanges.is_empty() && state.session.is_draining();
        drop(state);
        if last {
            self.session.attention.notify_one();
        }
    }
}
