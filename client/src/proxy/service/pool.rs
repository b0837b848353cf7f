//! HTTP/1.1 connections to the service: how many there may be, who waits for one, and the idle ones.
//!
//! A small service has few threads and a short queue. So at first only a few connections are open at once, and a request
//! beyond them waits for one to fall idle. The number grows as the service proves able to keep more, and a request that has
//! waited long opens one anyway. Visitors who wait take turns.
//!
//! An idle connection waits here together with its driver, which is not polled meanwhile. The exchange that takes the
//! connection polls the driver from its own task. This saves a task for each connection and a hop for each chunk. The price:
//! only an exchange that takes a connection, or the sweep, notices that the service has closed it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

pub(crate) use super::connection::Connection;
use super::turns::{Turns, Visitor};

/// The connections at first. A browser opens six to a host, and the queue of Python's server holds six.
const AT_FIRST: usize = 6;
/// How long a request waits for a connection to fall idle before it opens one: this many usual responses, within bounds. It
/// is the most until the first response.
const PATIENCE: u32 = 10;
const LEAST_PATIENCE: Duration = Duration::from_millis(25);
const MOST_PATIENCE: Duration = Duration::from_millis(250);
/// How long a connection rests after a response that has no body by rule. A body that the service sends all the same
/// arrives meanwhile.
const QUIET: Duration = Duration::from_millis(50);
/// The most connections that rest. Each may use up one of the service's threads.
const MAX_RESTING: usize = 64;
/// How long a fresh connection waits for its first response before an idle one is given up for it.
const STARVED: Duration = Duration::from_millis(100);
/// How long it then waits at most until another one is given up.
const MAX_STARVED: Duration = Duration::from_secs(1);
/// By how much one fresh connection lowers the limit while it waits.
const MAX_TAKEN: usize = 2;
/// The most idle connections. Each may hold a read buffer of a hundred kilobytes.
const MAX_IDLE: usize = 512;
/// How long a connection may stay idle: less than services usually allow.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How often the sweep removes closed and old connections.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The connections of one service.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// The service has once sent bytes that belonged to no response.
    is_distrusted: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// The most recently used last.
    idle: Vec<Idle>,
    /// Those that may not be used again yet, the oldest first.
    resting: VecDeque<Idle>,
    /// Connections in use or being opened.
    busy: usize,
    /// Those of them that are being opened. If the service's queue is full, that takes long, and more would not help.
    opening: usize,
    /// How many may be busy before requests wait.
    limit: usize,
    /// Requests that wait.
    waiting: Turns<oneshot::Sender<Grant>>,
    /// One of them has waited too long. Until none waits, they open connections, one at a time.
    is_late: bool,
    /// How long the service usually takes from the end of a request to its response.
    usual: Option<Duration>,
    /// Fresh connections without a response that need an idle one to end.
    starving: VecDeque<Arc<Starving>>,
    /// When a connection last ended for one of them.
    given_up: Option<Instant>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    connection: Box<Connection>,
}

#[derive(Debug)]
struct Starving {
    since: Instant,
    /// By how much the limit is lower for it.
    taken: AtomicUsize,
    /// When an idle connection last ended for it.
    last: Mutex<Option<Instant>>,
}

impl Starving {
    fn new() -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), taken: AtomicUsize::new(0), last: Mutex::default() })
    }

    /// Whether it has waited so much longer than a response of `took` that the service seems to have no thread for it.
    fn is_starved_by(&self, took: Duration) -> bool {
        self.since.elapsed() >= STARVED.max(took * 2)
    }
}

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Grant {
    /// A connection that was idle.
    Connection(Box<Connection>),
    /// The right to open one.
    Open(Permit),
}

/// Counts a connection as busy while it exists.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    is_opening: bool,
    /// The limit is higher by one for it, and stays so only if its response ends in order.
    is_extra: bool,
}

impl Pool {
    /// An empty pool. A task sweeps it while it exists.
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            idle: Vec::new(),
            resting: VecDeque::new(),
            busy: 0,
            opening: 0,
            limit: AT_FIRST,
            waiting: Turns::default(),
            is_late: false,
            usual: None,
            starving: VecDeque::new(),
            given_up: None,
        };
        let pool = Arc::new(Self { state: Mutex::new(state), is_distrusted: AtomicBool::new(false) });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// The most recently used connection that is still open, or the right to open one. A request with these fields may have to
    /// wait for either.
    pub(crate) async fn acquire(self: &Arc<Self>, headers: &HeaderMap) -> Grant {
        let grant = match self.try_acquire(headers) {
            Ok(grant) => return grant,
            // Waiting is rare. A box keeps it out of every exchange's future.
            Err(granted) => Box::pin(self.wait(granted)).await,
        };
        let mut connection = match grant {
            Grant::Connection(connection) => connection,
            open @ Grant::Open(_) => return open,
        };
        if connection.is_usable() {
            return Grant::Connection(connection);
        }
        self.note(&connection);
        Grant::Open(connection.permit.take().unwrap_or_else(|| self.open()))
    }

    /// The right to open a connection at once.
    pub(crate) fn open(self: &Arc<Self>) -> Permit {
        self.state.lock().open(self)
    }

    fn try_acquire(self: &Arc<Self>, headers: &HeaderMap) -> Result<Grant, oneshot::Receiver<Grant>> {
        loop {
            let mut state = self.state.lock();
            state.wake_rested();
            if let Some(Idle { mut connection, .. }) = state.idle.pop() {
                connection.permit = Some(state.occupy(self));
                drop(state);
                if connection.is_usable() {
                    return Ok(Grant::Connection(connection));
                }
                self.note(&connection);
                continue;
            }
            if state.busy < state.limit {
                return Ok(Grant::Open(state.open(self)));
            }
            let (grant, granted) = oneshot::channel();
            state.waiting.push(Visitor::of(headers), grant);
            return Err(granted);
        }
    }

    async fn wait(self: &Arc<Self>, mut granted: oneshot::Receiver<Grant>) -> Grant {
        let patience = Instant::now() + self.state.lock().patience();
        loop {
            let rested = self.state.lock().resting.front().map(|resting| resting.since + QUIET);
            let until =
                [rested, Some(patience).filter(|patience| Instant::now() < *patience)].into_iter().flatten().min();
            let granted = &mut granted;
            let grant = match until {
                Some(until) => timeout_at(until, granted).await.ok(),
                None => Some(granted.await),
            };
            if let Some(grant) = grant {
                return grant.unwrap_or_else(|_| Grant::Open(self.open()));
            }
            // The request whose turn it is gets what there is, and so this one's turn comes.
            let mut state = self.state.lock();
            state.is_late |= Instant::now() >= patience && !state.waiting.is_empty();
            state.wake_rested();
            match state.idle.pop() {
                Some(Idle { mut connection, .. }) => {
                    connection.permit = Some(state.occupy(self));
                    drop(state);
                    self.pass_on(connection);
                }
                None => self.let_open(state),
            }
        }
    }

    /// Keeps a connection whose response has ended, or passes it to a request that waits.
    pub(crate) fn put(self: &Arc<Self>, mut connection: Box<Connection>) {
        let is_open = connection.rest();
        self.note(&connection);
        let is_distrusted = self.is_distrusted.load(Ordering::Relaxed);
        let is_expired = connection.expires.is_some_and(|expires| expires <= Instant::now());
        if !is_open || is_expired || (connection.is_bodiless && is_distrusted) {
            return;
        }
        let is_first = !std::mem::replace(&mut connection.reused, true);
        let mut state = self.state.lock();
        state.note_usual(connection.first_byte);
        if is_first {
            connection.took = state.took(&connection);
        }
        if let Some(starving) = state.starved_by(connection.took) {
            state.give_to(&starving);
            drop(state);
            return;
        }
        let mut permit = connection.permit.take();
        let has_grown = permit.as_mut().is_some_and(|permit| std::mem::take(&mut permit.is_extra));
        if is_first && !has_grown {
            state.limit += 1;
        }
        if connection.is_bodiless || is_distrusted {
            state.resting.push_back(Idle { since: Instant::now(), connection });
            let most = state.resting.len() > MAX_RESTING;
            let oldest = if most { state.resting.pop_front() } else { None };
            drop(state);
            drop((oldest, permit));
            return;
        }
        connection.permit = Some(permit.unwrap_or_else(|| state.occupy(self)));
        drop(state);
        self.pass_on(connection);
    }

    /// Lets one more connection be busy, since the service has begun its first response on this one, and keeps it. The end of
    /// the response may be far: its visitor may take it slowly.
    pub(crate) fn grow(self: &Arc<Self>, connection: &mut Connection) {
        let mut state = self.state.lock();
        let took = state.took(connection);
        let is_starved = state.starving.front().is_some_and(|starving| starving.is_starved_by(took));
        if !is_starved && let Some(permit) = &mut connection.permit {
            permit.is_extra = true;
            state.limit += 1;
            self.let_open(state);
        }
    }

    /// Passes a connection to the request that waits and whose turn it is; without one, it is idle.
    fn pass_on(self: &Arc<Self>, mut connection: Box<Connection>) {
        loop {
            let mut state = self.state.lock();
            let Some(grant) = state.next_waiting() else {
                let permit = connection.permit.take();
                if state.idle.len() < MAX_IDLE {
                    state.idle.push(Idle { since: Instant::now(), connection });
                }
                drop(state);
                drop(permit);
                return;
            };
            drop(state);
            match grant.send(Grant::Connection(connection)) {
                Err(Grant::Connection(back)) => connection = back,
                _ => return self.let_open(self.state.lock()),
            }
        }
    }

    /// Remembers a service that sends bytes which belong to no response.
    fn note(&self, connection: &Connection) {
        if connection.is_spoiled {
            self.is_distrusted.store(true, Ordering::Relaxed);
        }
    }

    /// Ends an idle connection for a fresh one that has waited since `since`. Without one, the next that falls idle ends.
    fn give_up(&self, starving: &Arc<Starving>) {
        let mut state = self.state.lock();
        let waited = starving.since.elapsed();
        let oldest = state.idle.iter().position(|idle| waited >= idle.connection.took * 2);
        let given_up = match oldest {
            Some(oldest) => Some(state.idle.remove(oldest)),
            None => state.resting.pop_front(),
        };
        if given_up.is_some() {
            state.give_to(starving);
        } else if !state.starving.iter().any(|other| Arc::ptr_eq(other, starving)) {
            state.starving.push_back(starving.clone());
        }
    }

    /// Lets the request whose turn it is open a connection, if there is room for one. Without room, it may once one of them has
    /// waited too long and no other connection is being opened.
    fn let_open(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        while state.busy < state.limit || (state.is_late && state.opening == 0) {
            let Some(grant) = state.next_waiting() else { return };
            if grant.is_closed() {
                continue;
            }
            let permit = state.open(self);
            drop(state);
            // A permit that is not taken comes back here.
            let _sent = grant.send(Grant::Open(permit));
            return;
        }
    }
}

impl State {
    /// How long a request waits before it opens a connection.
    fn patience(&self) -> Duration {
        self.usual.map_or(MOST_PATIENCE, |usual| (usual * PATIENCE).clamp(LEAST_PATIENCE, MOST_PATIENCE))
    }

    /// Notes how long a response took.
    fn note_usual(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        }
    }

    /// How long the service took to begin the first response of a connection.
    fn took(&self, connection: &Connection) -> Duration {
        // Until an idle connection was given up, the service had no thread for this one.
        self.given_up.map_or(connection.took, |given_up| connection.took.min(given_up.elapsed()))
    }

    /// Takes the request whose turn it is.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Grant>> {
        let next = self.waiting.pop();
        self.is_late &= !self.waiting.is_empty();
        next
    }

    /// Counts a connection as busy.
    fn occupy(&mut self, pool: &Arc<Pool>) -> Permit {
        self.busy += 1;
        Permit { pool: pool.clone(), is_opening: false, is_extra: false }
    }

    /// Counts a connection as busy that is about to be opened.
    fn open(&mut self, pool: &Arc<Pool>) -> Permit {
        self.opening += 1;
        let mut permit = self.occupy(pool);
        permit.is_opening = true;
        permit
    }

    /// Makes those idle that have rested.
    fn wake_rested(&mut self) {
        while self.resting.front().is_some_and(|resting| resting.since.elapsed() >= QUIET) {
            self.idle.extend(self.resting.pop_front());
        }
    }

    /// The fresh connection that has waited so much longer than a response of `took` that the service seems to have no
    /// thread for it.
    fn starved_by(&mut self, took: Duration) -> Option<Arc<Starving>> {
        if self.starving.front().is_some_and(|starving| starving.is_starved_by(took)) {
            self.starving.pop_front()
        } else {
            None
        }
    }

    /// An idle connection ends for a fresh one. No other takes its place.
    fn give_to(&mut self, starving: &Starving) {
        if self.limit > 1 && starving.taken.load(Ordering::Relaxed) < MAX_TAKEN {
            self.limit -= 1;
            starving.taken.fetch_add(1, Ordering::Relaxed);
        }
        let now = Instant::now();
        *starving.last.lock() = Some(now);
        self.given_up = Some(now);
    }
}

impl Permit {
    /// The connection is open.
    pub(super) fn opened(&mut self) {
        if std::mem::take(&mut self.is_opening) {
            let mut state = self.pool.state.lock();
            state.opening -= 1;
            self.pool.let_open(state);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.busy -= 1;
        state.opening -= usize::from(self.is_opening);
        if self.is_extra {
            state.limit = AT_FIRST.max(state.limit - 1);
        }
        self.pool.let_open(state);
    }
}

/// Gives up idle connections while a fresh one waits for its first response.
pub(crate) struct Starvation {
    pool: Arc<Pool>,
    starving: Arc<Starving>,
    timer: Pin<Box<Sleep>>,
    every: Duration,
}

impl Starvation {
    /// Watches the connection that a permit is for, from now on.
    pub(super) fn of(permit: &Permit) -> Self {
        Self { pool: permit.pool.clone(), starving: Starving::new(), timer: Box::pin(sleep(STARVED)), every: STARVED }
    }

    /// Gives up a connection whenever it is time. `waits_for_visitor` says that the service is not late.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, waits_for_visitor: bool) {
        while let Poll::Ready(()) = self.timer.as_mut().poll(cx) {
            if !waits_for_visitor {
                self.pool.give_up(&self.starving);
                // A slow response alone costs only a few idle connections.
                self.every = MAX_STARVED.min(self.every * 2);
            }
            self.timer.as_mut().reset(Instant::now() + self.every);
        }
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.starving.retain(|other| !Arc::ptr_eq(other, &self.starving));
        // A response right behind the end of an idle connection shows that the service had no thread for both. Otherwise
        // the service was only slow.
        let helped = self.starving.last.lock().is_some_and(|last| last.elapsed() < STARVED);
        if !helped {
            state.limit += self.starving.taken.load(Ordering::Relaxed);
        }
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state.lock();
        state.wake_rested();
        state.idle.retain_mut(|idle| idle.since.elapsed() < IDLE_FOR && idle.connection.is_usable());
        state.limit = AT_FIRST.max(state.busy + state.idle.len());
    }
}
