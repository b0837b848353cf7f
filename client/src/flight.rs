//! Exchanges under way, and how they hear that the client stops.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// All exchanges of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: AtomicUsize,
    streams: AtomicUsize,
    stopping: AtomicBool,
    token: CancellationToken,
    /// Wakes those who wait until nothing is under way.
    ended: Notify,
}

/// The numbers of exchanges under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// Exchanges that end by themselves.
    pub(crate) requests: usize,
    /// WebSockets and event streams, which last until a peer ends them.
    pub(crate) streams: usize,
}

impl InFlight {
    /// Counts a request for as long as the result lives.
    pub(crate) fn begin(self: &Arc<Self>) -> Flight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Flight { all: self.clone(), lasts: false }
    }

    /// The current numbers.
    pub(crate) fn under_way(&self) -> UnderWay {
        UnderWay { requests: self.requests.load(Ordering::Relaxed), streams: self.streams.load(Ordering::Relaxed) }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.under_way() == UnderWay::default() {
                return;
            }
            ended.await;
        }
    }

    /// Has WebSockets and event streams end, since the client stops.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.token.cancel();
    }
}

/// One exchange, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    all: Arc<InFlight>,
    lasts: bool,
}

impl Flight {
    /// Counts the exchange as one that lasts until a peer ends it. The result says when the client stops.
    pub(crate) fn lasts(&mut self) -> Stop {
        if !self.lasts {
            self.all.requests.fetch_sub(1, Ordering::Relaxed);
            self.all.streams.fetch_add(1, Ordering::Relaxed);
            self.lasts = true;
        }
        let waiting = Box::pin(self.all.token.clone().cancelled_owned());
        Stop { all: self.all.clone(), waiting, registered: false }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let count = if self.lasts { &self.all.streams } else { &self.all.requests };
        if count.fetch_sub(1, Ordering::Release) == 1 {
            self.all.ended.notify_waiters();
        }
    }
}

/// Wakes one task when the client stops. The first poll registers the task with the token, which takes a lock. Later polls
/// read a flag.
#[derive(Debug)]
pub(crate) struct Stop {
    all: Arc<InFlight>,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
}

impl Stop {
    /// Ready once the client stops. Must always be polled by the same task.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.all.stopping.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if self.registered {
            return Poll::Pending;
        }
        self.registered = true;
        self.waiting.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn each_exchange_is_counted_once() {
        let all = Arc::<InFlight>::default();
        let (one, mut two) = (all.begin(), all.begin());
        assert_eq!(all.under_way(), UnderWay { requests: 2, streams: 0 });
        let (_first, _again) = (two.lasts(), two.lasts());
        assert_eq!(all.under_way(), UnderWay { requests: 1, streams: 1 });
        drop((one, two));
        assert_eq!(all.under_way(), UnderWay { requests: 0, streams: 0 });
    }

    #[tokio::test]
    async fn a_stop_wakes_those_who_wait_and_is_seen_by_those_who_come_later() {
        let all = Arc::<InFlight>::default();
        let mut stop = all.begin().lasts();
        let waits = tokio::spawn(async move { poll_fn(|cx| stop.poll(cx)).await });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        all.stop();
        waits.await.unwrap();
        let mut late = all.begin().lasts();
        poll_fn(|cx| late.poll(cx)).await;
    }
}
