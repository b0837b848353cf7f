//! The daemon's going away, as every connection hears of it: first that nothing new is to begin, and later, where
//! something still runs, that its time is up, and that it is about to be cut.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a daemon that stops waits for the first request of a connection that it has accepted just before. Silent ones
/// must not keep others waiting.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Says once, to everybody, that nothing new is to begin, once that what runs is to end, and once that it will be cut.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    start: Arc<Signal>,
    time_up: Arc<Signal>,
    last: Arc<Signal>,
}

impl Shutdown {
    /// From now on, nothing new begins.
    pub(crate) fn start(&self) {
        self.start.give();
    }

    /// Whether it has started.
    pub(crate) fn started(&self) -> bool {
        self.start.given()
    }

    /// Waits for it to start.
    pub(crate) async fn wait(&self) {
        self.start.token.cancelled().await;
    }

    /// Resolves when a connection that has not asked for anything by then is not waited for any more. Cheap to poll often, as
    /// it is beside a connection.
    pub(crate) async fn first_request(&self) {
        let mut start = self.watch();
        poll_fn(|cx| start.poll(cx)).await;
        sleep(FIRST_REQUEST).await;
    }

    /// A watcher for its start.
    pub(crate) fn watch(&self) -> Watch {
        Watch::new(&self.start)
    }

    /// What has not ended by itself is to say goodbye to its visitor now; soon after, it is cut.
    pub(crate) fn end_time(&self) {
        self.time_up.give();
    }

    /// Whether that time is over.
    pub(crate) fn time_ended(&self) -> bool {
        self.time_up.given()
    }

    /// Now or never: what still runs is cut within moments.
    pub(crate) fn last_moment(&self) {
        self.last.give();
    }

    /// Waits until what runs has `ended`, or else for the `limit`; whether it has. The time of what still runs ends
    /// at the `deadline`, and soon after it is cut.
    pub(crate) async fn see_off<T>(&self, ended: impl Future<Output = T>, deadline: Instant, limit: Instant) -> bool {
        let mut ended = pin!(ended);
        if tokio::time::timeout_at(deadline, &mut ended).await.is_ok() {
            return true;
        }
        self.end_time();
        self.last_moment();
        tokio::time::timeout_at(limit, ended).await.is_ok()
    }

    /// A watcher for the end of the time that running exchanges have.
    pub(crate) fn watch_time(&self) -> Watch {
        Watch::new(&self.time_up)
    }

    /// A watcher for the moment before what still runs is cut, for exchanges that end by themselves as a rule.
    pub(crate) fn watch_last(&self) -> Watch {
        Watch::new(&self.last)
    }
}

/// Something that is said once.
#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    token: CancellationToken,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }
}

/// For a task that is polled often: wakes it once, when a signal is given. Looking at the token takes a lock that all
/// connections share, so it is looked at once; from then on the atomic flag says enough, as the task is woken in any
/// case.
#[derive(Debug)]
pub(crate) struct Watch {
    signal: Arc<Signal>,
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    registered: bool,
}

impl Watch {
    fn new(signal: &Arc<Signal>) -> Self {
        let waiting = Box::pin(signal.token.clone().cancelled_owned());
        Self { signal: signal.clone(), waiting: Some(waiting), registered: false }
    }

    /// Registers the task; ready once when the signal has been given. Must always be polled by the same task.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        let mut given = self.signal.given();
        if !given && !self.registered {
            self.registered = true;
            given = waiting.as_mut().poll(cx).is_ready();
        }
        if !given {
            return Poll::Pending;
        }
        self.waiting = None;
        Poll::Ready(())
    }
}
