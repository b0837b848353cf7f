//! Requests in flight, which a stop waits for. They are grouped by epoch, finite ones apart from long-lived ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// All requests in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    current: ArcSwap<Epoch>,
    /// Holds a token for each accepted connection until its first request.
    fresh: TaskTracker,
}

/// Requests that began between two calls of [`InFlight::close_epoch`]. Each holds a token until it ends.
#[derive(Debug, Default)]
pub(super) struct Epoch {
    finite: TaskTracker,
    long_lived: TaskTracker,
}

impl InFlight {
    /// A token for a new connection. Drop it at the first request.
    pub(crate) fn fresh(&self) -> TaskTrackerToken {
        self.fresh.token()
    }

    /// A token for a request that is expected to end by itself.
    pub(crate) fn finite(&self) -> TaskTrackerToken {
        self.current.load().finite.token()
    }

    /// A token for an exchange that lasts until either end closes it: an upgraded connection or an event stream.
    pub(crate) fn long_lived(&self) -> TaskTrackerToken {
        self.current.load().long_lived.token()
    }

    /// Ends the current epoch and returns it. Requests that begin later belong to the next one.
    pub(super) fn close_epoch(&self) -> Arc<Epoch> {
        self.current.swap(Arc::default())
    }

    /// Waits until no finite request is in flight, in the current epoch or in `older` ones. Also waits for fresh
    /// connections, which could bring one.
    pub(super) async fn settled(&self, older: &Epochs) {
        self.fresh.close();
        self.fresh.wait().await;
        for (_, epoch) in &older.0 {
            epoch.settled().await;
        }
        self.current.load_full().settled().await;
    }
}

/// Closed epochs, the oldest first, each with a time before its first request.
#[derive(Debug, Default)]
pub(super) struct Epochs(VecDeque<(Instant, Arc<Epoch>)>);

impl Epochs {
    /// Closes the current epoch, which began after `since`, and drops epochs without finite requests. Returns the age
    /// of the oldest finite request.
    pub(super) fn oldest_age(&mut self, requests: &InFlight, since: Instant) -> Option<Duration> {
        self.0.push_back((since, requests.close_epoch()));
        self.0.retain(|(_, epoch)| !epoch.finite.is_empty());
        self.0.front().map(|(began, _)| began.elapsed())
    }
}

impl Epoch {
    /// Waits until all requests have ended.
    pub(super) async fn ended(&self) {
        self.settled().await;
        self.long_lived.close();
        self.long_lived.wait().await;
    }

    async fn settled(&self) {
        self.finite.close();
        self.finite.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn older_epochs_and_long_lived_requests_do_not_count() {
        let requests = InFlight::default();
        let (old, old_lasting) = (requests.finite(), requests.long_lived());
        let older = requests.close_epoch();
        let (new, _lasting, fresh) = (requests.finite(), requests.long_lived(), requests.fresh());
        let all = Epochs([(Instant::now(), older.clone())].into());
        let (mut ended, mut settled) = (pin!(older.ended()), pin!(requests.settled(&all)));
        let mut cx = Context::from_waker(Waker::noop());
        drop(old);
        assert!(ended.as_mut().poll(&mut cx).is_pending());
        drop(old_lasting);
        assert_eq!(ended.as_mut().poll(&mut cx), Poll::Ready(()), "what began later does not count");
        assert!(settled.as_mut().poll(&mut cx).is_pending());
        drop(new);
        assert!(settled.as_mut().poll(&mut cx).is_pending());
        drop(fresh);
        assert_eq!(settled.as_mut().poll(&mut cx), Poll::Ready(()), "what lasts does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_request_counts() {
        let (requests, mut older) = (InFlight::default(), Epochs::default());
        let step = Duration::from_millis(10);
        let (mut since, _lasting, mut tokens) = (Instant::now(), requests.long_lived(), VecDeque::new());
        let mut age = || {
            let began = std::mem::replace(&mut since, Instant::now());
            older.oldest_age(&requests, began)
        };
        assert_eq!(age(), None, "what lasts does not count");
        for number in 1..4 {
            tokens.push_back(requests.finite());
            tokio::time::advance(step).await;
            assert_eq!(age(), Some(step * number));
        }
        tokens.pop_front();
        assert_eq!(age(), Some(step * 2));
        tokens.clear();
        assert_eq!(age(), None);
    }
}
