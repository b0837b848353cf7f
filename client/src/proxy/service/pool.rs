//! HTTP/1.1 connections to the service: how many there may be, who waits for one, and the idle ones.
//!
//! A small service has few threads and a short queue. So at first only a few connections are open at once, and a request
//! beyond them waits for one to fall idle. The number grows as the service proves able to keep more, and a request that has
//! waited long opens one anyway.
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

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

pub(crate) use super::connection::Connection;

/// The connections at first. A browser opens six to a host, and the queue of Python's server holds six.
const AT_FIRST: usize = 6;
/// How long a request waits for a connection to fall idle before it opens one.
const PATIENCE: Duration = Duration::from_millis(250);
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
    /// Requests that wait, the oldest first.
    waiting: VecDeque<Waiting>,
    /// Fresh connections without a response that need an idle one to end.
    starving: VecDeque<Arc<Starving>>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    connection: Connection,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    grant: oneshot::Sender<Grant>,
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
}

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Grant {
    /// A connection that was idle.
    Connection(Connection),
    /// The right to open one.
    Open(Permit),
}

/// Counts a connection as busy while it exists.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    is_opening: bool,
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
            waiting: VecDeque::new(),
            starving: VecDeque::new(),
        };
        let pool = Arc::new(Self { state: Mutex::new(state), is_distrusted: AtomicBool::new(false) });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// The most recently used connection that is still open, or the right to open one. It may have to wait for either.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Grant {
        let grant = match self.try_acquire() {
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

    fn try_acquire(self: &Arc<Self>) -> Result<Grant, oneshot::Receiver<Grant>> {
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
            state.waiting.push_back(Waiting { since: Instant::now(), grant });
            return Err(granted);
        }
    }

    async fn wait(self: &Arc<Self>, mut granted: oneshot::Receiver<Grant>) -> Grant {
        let patience = Instant::now() + PATIENCE;
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
            // The oldest request gets what there is, and so this one's turn comes.
            let mut state = self.state.lock();
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
    pub(crate) fn put(self: &Arc<Self>, mut connection: Connection) {
        let is_open = connection.rest();
        self.note(&connection);
        let is_distrusted = self.is_distrusted.load(Ordering::Relaxed);
        let is_expired = connection.expires.is_some_and(|expires| expires <= Instant::now());
        if !is_open || is_expired || (connection.is_bodiless && is_distrusted) {
            return;
        }
        let is_first = !connection.reused;
        connection.reused = true;
        let mut state = self.state.lock();
        if let Some(starving) = state.starved_by(connection.took) {
            state.give_to(&starving);
            drop(state);
            return;
        }
        if is_first {
            state.limit += 1;
        }
        let permit = connection.permit.take();
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

    /// Passes a connection to the oldest request that waits; without one, it is idle.
    fn pass_on(self: &Arc<Self>, mut connection: Connection) {
        loop {
            let mut state = self.state.lock();
            let Some(waiting) = state.waiting.pop_front() else {
                let permit = connection.permit.take();
                if state.idle.len() < MAX_IDLE {
                    state.idle.push(Idle { since: Instant::now(), connection });
                }
                drop(state);
                drop(permit);
                return;
            };
            drop(state);
            match waiting.grant.send(Grant::Connection(connection)) {
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

    /// Lets the oldest request that waits open a connection, if there is room for one or it has waited long. One that has
    /// waited long does so when no other is being opened.
    fn let_open(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        while let Some(oldest) = state.waiting.front() {
            let is_late = oldest.since.elapsed() >= PATIENCE && state.opening == 0;
            if state.busy >= state.limit && !is_late {
                return;
            }
            let Some(waiting) = state.waiting.pop_front() else { return };
            if waiting.grant.is_closed() {
                continue;
            }
            let permit = state.open(self);
            drop(state);
            // A permit that is not taken comes back here.
            let _sent = waiting.grant.send(Grant::Open(permit));
            return;
        }
    }
}

impl State {
    /// Counts a connection as busy.
    fn occupy(&mut self, pool: &Arc<Pool>) -> Permit {
        self.busy += 1;
        Permit { pool: pool.clone(), is_opening: false }
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
        let is_starving = |starving: &Arc<Starving>| starving.since.elapsed() >= STARVED.max(took * 2);
        if self.starving.front().is_some_and(is_starving) { self.starving.pop_front() } else { None }
    }

    /// An idle connection ends for a fresh one. No other takes its place.
    fn give_to(&mut self, starving: &Starving) {
        if self.limit > 1 && starving.taken.load(Ordering::Relaxed) < MAX_TAKEN {
            self.limit -= 1;
            starving.taken.fetch_add(1, Ordering::Relaxed);
        }
        *starving.last.lock() = Some(Instant::now());
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
