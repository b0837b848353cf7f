//! Requests under way, as a daemon that stops waits for them: those of before apart from those that come while it waits,
//! and those that end by themselves apart from those that last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// All of a daemon's.
#[derive(Debug, Default)]
pub(crate) struct Running {
    now: ArcSwap<Generation>,
    /// Connections that were accepted, and whose first request is to come.
    fresh: TaskTracker,
}

/// Requests that began at one time of a daemon's life. Each holds a token to its end.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    ordinary: TaskTracker,
    lasting: TaskTracker,
}

impl Running {
    /// For a connection, up to its first request.
    pub(crate) fn fresh(&self) -> TaskTrackerToken {
        self.fresh.token()
    }

    /// For a request that ends by itself, as far as one can know.
    pub(crate) fn ordinary(&self) -> TaskTrackerToken {
        self.now.load().ordinary.token()
    }

    /// For what goes on until one of its ends has had enough: an upgraded connection, a stream of events.
    pub(crate) fn lasting(&self) -> TaskTrackerToken {
        self.now.load().lasting.token()
    }

    /// Those that have begun by now; those that begin from now on do not belong to them.
    pub(crate) fn so_far(&self) -> Arc<Generation> {
        self.now.swap(Arc::default())
    }

    /// Waits until none is under way that ends by itself, be it of this generation or of `older`, and none is about to
    /// come on a fresh connection.
    pub(crate) async fn settled(&self, older: &Older) {
        self.fresh.close();
        self.fresh.wait().await;
        for (_, generation) in &older.generations {
            generation.settled().await;
        }
        self.now.load_full().settled().await;
    }
}

/// Generations before that of now, each with a moment before its first request, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Older {
    generations: VecDeque<(Instant, Arc<Generation>)>,
}

impl Older {
    /// Adds the requests that have begun by now, after `since`, and forgets generations that have nothing left to wait
    /// for. For how long the request that began first has been under way, of those that end by themselves.
    pub(crate) fn age(&mut self, running: &Running, since: Instant) -> Option<Duration> {
        self.generations.push_back((since, running.so_far()));
        self.generations.retain(|(_, generation)| !generation.ordinary.is_empty());
        self.generations.front().map(|(began, _)| began.elapsed())
    }
}

impl Generation {
    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        self.settled().await;
        self.lasting.close();
        self.lasting.wait().await;
    }

    async fn settled(&self) {
        self.ordinary.close();
        self.ordinary.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn generations_and_kinds_are_told_apart() {
        let running = Running::default();
        let (old, old_lasting) = (running.ordinary(), running.lasting());
        let older = running.so_far();
        let (new, _lasting, fresh) = (running.ordinary(), running.lasting(), running.fresh());
        let all = Older { generations: [(Instant::now(), older.clone())].into() };
        let (mut ended, mut settled) = (pin!(older.ended()), pin!(running.settled(&all)));
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
        let (running, mut older) = (Running::default(), Older::default());
        let step = Duration::from_millis(10);
        let (mut since, _lasting, mut requests) = (Instant::now(), running.lasting(), VecDeque::new());
        let mut age = || {
            let began = std::mem::replace(&mut since, Instant::now());
            older.age(&running, began)
        };
        assert_eq!(age(), None, "what lasts does not count");
        for number in 1..4 {
            requests.push_back(running.ordinary());
            tokio::time::advance(step).await;
            assert_eq!(age(), Some(step * number));
        }
        requests.pop_front();
        assert_eq!(age(), Some(step * 2));
        requests.clear();
        assert_eq!(age(), None);
    }
}
