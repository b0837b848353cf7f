//! The time limit for the heads of one HTTP/1.1 connection. The HTTP library asks for a fresh timer before each head. All of
//! them share one timer of the runtime. It may wake the connection early; the next poll sets it to the current limit.
//!
//! The same timer notices that the connection is quiet. It also runs while the connection does without the library.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::time::{self, Instant, sleep_until};

/// How long a connection waits for a head before it counts as quiet. A visitor with requests one after the other is faster.
const QUIET: Duration = Duration::from_secs(1);

/// Makes the timers of one connection.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The time that is left for the head when the connection becomes quiet. `None` if the limit is too short for that.
    rest: Option<Duration>,
    /// The library has waited for the current head for so long that the connection is quiet.
    quiet: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    timer: Option<Pin<Box<time::Sleep>>>,
    /// When the head that was last waited for is due.
    deadline: Instant,
}

impl HeadTimer {
    /// Of a connection whose first head is waited for from now on.
    pub(super) fn new(limit: Duration) -> Self {
        let inner = Mutex::new(Inner { timer: None, deadline: Instant::now() + limit });
        let rest = limit.checked_sub(QUIET);
        Self(Arc::new(Shared { rest, quiet: AtomicBool::new(false), inner }))
    }

    /// Whether the library waits for a head now, and has done so for some time.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.quiet.load(Ordering::Relaxed)
    }

    /// Ready once the head that was last waited for is due. For the time without the library.
    pub(super) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.inner.lock();
        let deadline = inner.deadline;
        inner.poll(deadline, cx)
    }
}

impl Inner {
    /// Ready at `due`.
    fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() == due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.0.quiet.store(false, Ordering::Relaxed);
        Box::pin(Until { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

/// The limit for one head.
#[derive(Debug)]
struct Until {
    deadline: Instant,
    timer: HeadTimer,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.timer.0;
        let mut inner = shared.inner.lock();
        inner.deadline = self.deadline;
        if !shared.quiet.load(Ordering::Relaxed)
            && let Some(quiet) = shared.rest.and_then(|rest| self.deadline.checked_sub(rest))
        {
            if inner.poll(quiet, cx).is_pending() {
                return Poll::Pending;
            }
            shared.quiet.store(true, Ordering::Relaxed);
        }
        inner.poll(self.deadline, cx)
    }
}

impl Sleep for Until {}

impl Drop for Until {
    /// The library drops it once the head has come, and the connection is no longer quiet.
    fn drop(&mut self) {
        self.timer.0.quiet.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Polls a timer once.
    fn is_over(timer: &mut Pin<Box<dyn Sleep>>) -> bool {
        timer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_whole_time() {
        let (timer, began) = (HeadTimer::new(LIMIT), Instant::now());
        let mut first = timer.sleep(LIMIT);
        assert!(!is_over(&mut first));
        time::advance(Duration::from_secs(7)).await;
        drop(first);
        timer.sleep(LIMIT).await;
        assert_eq!(began.elapsed().as_secs(), 17);
        timer.sleep(LIMIT).await;
        assert_eq!(began.elapsed().as_secs(), 27);
        timer.sleep_until(began.into()).await;
        assert_eq!(began.elapsed().as_secs(), 27);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_for_a_while_before_a_head_is_due() {
        let (timer, began) = (HeadTimer::new(LIMIT), Instant::now());
        for _ in 0..3 {
            let mut head = timer.sleep(LIMIT);
            assert!(!is_over(&mut head));
            time::advance(QUIET.mul_f64(0.99)).await;
            assert!(!is_over(&mut head) && !timer.is_quiet());
        }
        let (mut head, waited) = (timer.sleep(LIMIT), Instant::now());
        assert!(!is_over(&mut head));
        time::advance(QUIET + Duration::from_millis(1)).await;
        assert!(!is_over(&mut head) && timer.is_quiet());
        // The library drops it once the head has come.
        drop(head);
        assert!(!timer.is_quiet());
        poll_fn(|cx| timer.poll_due(cx)).await;
        assert_eq!(waited.elapsed().as_secs(), 10);
        assert!(began.elapsed() > LIMIT);
        let _next = timer.sleep(LIMIT);
        assert!(!timer.is_quiet());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_due_without_the_library() {
        let (timer, began) = (HeadTimer::new(LIMIT), Instant::now());
        poll_fn(|cx| timer.poll_due(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
