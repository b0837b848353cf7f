//! The time limit for the heads of one HTTP/1.1 connection. The HTTP library asks for a fresh timer before each head. All of
//! them share one timer of the runtime. It may wake the connection early; the next poll sets it to the current limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::time::{self, Instant, sleep_until};

/// Makes the timers of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Option<Pin<Box<time::Sleep>>>>>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
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
        let mut timer = self.timer.0.lock();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
        if timer.deadline() > self.deadline {
            timer.as_mut().reset(self.deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() == self.deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

impl Sleep for Until {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_whole_time() {
        let (timer, limit, began) = (HeadTimer::default(), Duration::from_secs(10), Instant::now());
        let mut first = timer.sleep(limit);
        assert!(first.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        time::advance(Duration::from_secs(7)).await;
        drop(first);
        timer.sleep(limit).await;
        assert_eq!(began.elapsed().as_secs(), 17);
        timer.sleep(limit).await;
        assert_eq!(began.elapsed().as_secs(), 27);
        timer.sleep_until(began.into()).await;
        assert_eq!(began.elapsed().as_secs(), 27);
    }
}
