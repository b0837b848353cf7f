//! A session through the multiplexer of `cok-proto`, over any pipe of messages.
//!
//! The multiplexer is behind one short lock. One task, the driver, owns the pipe; bodies poll their own exchange. No
//! channel and no further task is between a chunk and the pipe.

mod driver;
mod handles;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cok_proto::mux::{Event, ExchangeKey, Mux};
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, DrainReason, ErrorMessage, RequestHead, ResetCode, TunnelFrame, Unbind,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use self::handles::{MuxRecv, MuxSend};
use crate::{
    CloseReason, Config, Corked, ExchangeHalves, Handshake, HandshakeError, Incoming, OpenError, SessionError,
    SignsOfLife, Status, Transport, set_waker,
};

pub(crate) use self::driver::Pipe;

/// Daemon: waits on `pipe` for the client's Connect, at most for `limit`.
pub(crate) async fn accept(
    name: &'static str,
    pipe: impl Pipe,
    config: Config,
    limit: Duration,
) -> Result<Box<dyn Handshake>, HandshakeError> {
    let shared = Shared::start(name, pipe, Mux::daemon(config, Instant::now()));
    let guard = CloseOnDrop(&shared);
    let asked = poll_fn(|cx| {
        let mut state = shared.lock();
        if let Some(connect) = state.connect.take() {
            return Poll::Ready(Ok(connect));
        }
        state.poll_handshake(cx)
    });
    let connect = tokio::time::timeout(limit, asked).await.map_err(|_| HandshakeError::TimedOut(limit))??;
    std::mem::forget(guard);
    Ok(Box::new(MuxHandshake { shared, connect }))
}

/// Client: sends `connect` on `pipe` and waits for the daemon's answer, at most for `limit`.
pub(crate) async fn connect(
    name: &'static str,
    pipe: impl Pipe,
    config: Config,
    connect: &Connect,
    moving: &[u32],
    limit: Duration,
) -> Result<(Arc<dyn Transport>, ConnectAck), HandshakeError> {
    let shared = Shared::start(name, pipe, Mux::client(config, connect, moving, Instant::now()));
    let guard = CloseOnDrop(&shared);
    let answered = poll_fn(|cx| {
        let mut state = shared.lock();
        if let Some(ack) = state.ack.take() {
            return Poll::Ready(Ok(ack));
        }
        state.poll_handshake(cx)
    });
    let ack = tokio::time::timeout(limit, answered).await.map_err(|_| HandshakeError::TimedOut(limit))??;
    std::mem::forget(guard);
    Ok((Arc::new(MuxSession(shared)), ack))
}

/// An established session.
struct MuxSession(Arc<Shared>);

impl Transport for MuxSession {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn open(&self, tunnel: u32, head: Arc<RequestHead>, end: bool) -> Result<ExchangeHalves, OpenError> {
        let key = self.0.act(|state| state.mux.open(tunnel, head, end))?;
        Ok(self.0.exchange(key))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let mut state = self.0.lock();
        if let Some(Request { key, tunnel, head, end }) = state.incoming.pop_front() {
            drop(state);
            return Poll::Ready(Some(Incoming { tunnel, head, end, exchange: self.0.exchange(key) }));
        }
        if state.mux.is_closed() {
            return Poll::Ready(None);
        }
        set_waker(&mut state.acceptor, cx);
        Poll::Pending
    }

    fn bind(&self, id: u32, bind: &Bind) -> bool {
        self.0.act(|state| state.mux.bind(id, bind))
    }

    fn answer_bind(&self, id: u32, answer: Result<Bound, ErrorMessage>) -> bool {
        self.0.act(|state| match answer {
            Ok(bound) => state.mux.bound(id, bound),
            Err(error) => state.mux.refuse_bind(id, &error),
        })
    }

    fn unbind(&self, id: u32, unbind: &Unbind) -> bool {
        self.0.act(|state| state.mux.unbind(id, unbind))
    }

    fn reset_tunnel(&self, id: u32, code: ResetCode) {
        self.0.act(|state| state.mux.reset_tunnel(id, code));
    }

    fn poll_tunnel(&self, cx: &mut Context<'_>) -> Poll<Option<(u32, TunnelFrame)>> {
        let mut state = self.0.lock();
        if let Some(frame) = state.tunnel_frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if state.mux.is_closed() {
            return Poll::Ready(None);
        }
        set_waker(&mut state.tunnel_waiter, cx);
        Poll::Pending
    }

    fn drain(&self, reason: DrainReason, deadline: Duration) {
        let attention = self.0.act(|state| {
            state.mux.drain(reason, deadline, Instant::now());
            state.attention.clone()
        });
        if let Some(driver) = attention {
            driver.wake();
        }
    }

    fn close(&self, error: ErrorMessage) {
        self.0.fail(&error);
    }

    fn ping(&self) {
        self.0.act(|state| state.mux.ping(Instant::now()));
    }

    fn round_trip(&self) -> Option<Duration> {
        self.0.lock().mux.round_trip()
    }

    fn signs_of_life(&self) -> SignsOfLife {
        let mut state = self.0.lock();
        state.probed = true;
        let signs = SignsOfLife { received: state.mux.messages(), progress: state.progress };
        let driver = state.attention.clone();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        signs
    }

    fn cork(&self, corked: bool) {
        self.0.act(|state| state.corked = corked);
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }
}

impl fmt::Debug for MuxSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxSession").field("transport", &self.0.name).finish_non_exhaustive()
    }
}

/// A client that waits for the daemon's decision.
struct MuxHandshake {
    shared: Arc<Shared>,
    connect: Connect,
}

impl Handshake for MuxHandshake {
    fn connect(&self) -> &Connect {
        &self.connect
    }

    fn accept(self: Box<Self>, ack: &ConnectAck, moved: &[(u32, Bound)]) -> Corked {
        let corked = Corked::new(Arc::new(MuxSession(self.shared.clone())));
        self.shared.act(|state| state.mux.accept(ack, moved));
        corked
    }

    fn refuse(self: Box<Self>, error: &ErrorMessage) {
        self.shared.fail(error);
    }
}

impl fmt::Debug for MuxHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxHandshake").field("connect", &self.connect).finish_non_exhaustive()
    }
}

/// Guard that ends a session whose handshake was abandoned.
struct CloseOnDrop<'a>(&'a Arc<Shared>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.act(|state| state.mux.close());
    }
}

/// The state that the driver and the handles of one session share.
pub(crate) struct Shared {
    name: &'static str,
    state: Mutex<State>,
    status: watch::Sender<Status>,
}

struct State {
    mux: Mux,
    /// The tasks that wait for an exchange, by [`ExchangeKey::index`].
    waiting: Vec<Waiting>,
    /// Wakes the driver to send. Set while it has nothing to send, and not while it waits for the pipe.
    driver: Option<Waker>,
    /// Wakes the driver in any case: the session has ended, or a deadline was set.
    attention: Option<Waker>,
    /// Requests that wait to be accepted.
    incoming: VecDeque<Request>,
    acceptor: Option<Waker>,
    /// Frames about tunnels that wait to be taken. The session bounds how many come unanswered.
    tunnel_frames: VecDeque<(u32, TunnelFrame)>,
    tunnel_waiter: Option<Waker>,
    connect: Option<Connect>,
    ack: Option<ConnectAck>,
    handshake: Option<Waker>,
    close_reason: Option<CloseReason>,
    /// The pipe's progress when the driver last looked.
    progress: u64,
    /// Somebody wants to know `progress`.
    probed: bool,
    /// Wakers that are called once the lock is free.
    woken: Vec<Waker>,
    /// A Drain that arrived and is not in `status` yet.
    drain: Option<cok_proto::Drain>,
    /// Nothing goes out.
    corked: bool,
}

/// A request that waits to be accepted.
struct Request {
    key: ExchangeKey,
    tunnel: u32,
    head: RequestHead,
    end: bool,
}

#[derive(Default)]
struct Waiting {
    recv: Option<Waker>,
    send: Option<Waker>,
    broken: Option<Waker>,
}

impl Shared {
    fn start(name: &'static str, pipe: impl Pipe, mux: Mux) -> Arc<Self> {
        let shared = Arc::new(Self {
            name,
            state: Mutex::new(State {
                mux,
                waiting: Vec::new(),
                driver: None,
                attention: None,
                incoming: VecDeque::new(),
                acceptor: None,
                tunnel_frames: VecDeque::new(),
                tunnel_waiter: None,
                connect: None,
                ack: None,
                handshake: None,
                close_reason: None,
                progress: 0,
                probed: false,
                woken: Vec::new(),
                drain: None,
                corked: false,
            }),
            status: watch::Sender::new(Status::Open),
        });
        tokio::spawn(driver::Driver::new(shared.clone(), pipe));
        shared
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Acts on the multiplexer from outside the driver, then wakes the tasks that this concerns.
    fn act<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = action(&mut state);
        state.collect_events();
        let driver = if state.mux.is_closed() || state.mux.is_drained() {
            state.attention.clone()
        } else if state.has_transmit() {
            state.driver.take()
        } else {
            None
        };
        let woken = if state.woken.is_empty() { Vec::new() } else { std::mem::take(&mut state.woken) };
        drop(state);
        for waker in woken {
            waker.wake();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    fn fail(&self, error: &ErrorMessage) {
        self.act(|state| {
            state.close_reason.get_or_insert(SessionError::Local(error.clone()).into());
            state.mux.fail(error);
        });
    }

    fn exchange(self: &Arc<Self>, key: ExchangeKey) -> ExchangeHalves {
        ExchangeHalves {
            send: Box::new(MuxSend::new(self.clone(), key)),
            recv: Box::new(MuxRecv::new(self.clone(), key)),
        }
    }
}

impl State {
    /// Whether something is to be sent now.
    fn has_transmit(&self) -> bool {
        !self.corked && self.mux.has_transmit()
    }

    fn waiting(&mut self, key: ExchangeKey) -> &mut Waiting {
        if self.waiting.len() <= key.index() {
            self.waiting.resize_with(key.index() + 1, Waiting::default);
        }
        &mut self.waiting[key.index()]
    }

    /// Turns the multiplexer's events into wakers.
    fn collect_events(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                Event::Readable(key) => {
                    let waker = self.waiting(key).recv.take();
                    self.woken.extend(waker);
                }
                Event::Writable(key) => {
                    let waiting = self.waiting(key);
                    let wakers = [waiting.send.take(), waiting.broken.take()];
                    self.woken.extend(wakers.into_iter().flatten());
                }
                Event::Tunnel { id, frame } => {
                    self.tunnel_frames.push_back((id, frame));
                    self.woken.extend(self.tunnel_waiter.take());
                }
                Event::Opened { key, tunnel, head, end } => {
                    self.incoming.push_back(Request { key, tunnel, head, end });
                    self.woken.extend(self.acceptor.take());
                }
                Event::Connect(connect) => {
                    self.connect = Some(connect);
                    self.woken.extend(self.handshake.take());
                }
                Event::Established(ack) => {
                    self.ack = Some(ack);
                    self.woken.extend(self.handshake.take());
                }
                Event::Drain(drain) => self.drain = Some(drain),
            }
        }
        if self.mux.is_closed() {
            self.woken.extend(self.acceptor.take());
            self.woken.extend(self.tunnel_waiter.take());
            self.woken.extend(self.handshake.take());
        }
    }

    /// Waits for the handshake, which fails with the session's close reason.
    fn poll_handshake<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, HandshakeError>> {
        if self.mux.is_closed()
            && let Some(reason) = &self.close_reason
        {
            return Poll::Ready(Err(reason.clone().into()));
        }
        set_waker(&mut self.handshake, cx);
        Poll::Pending
    }
}
