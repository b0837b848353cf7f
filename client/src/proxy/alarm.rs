//! A timer that one exchange after the other uses. A timer of the runtime costs a lock when it is set and another when it is
//! dropped, and hardly ever does an exchange need it. So this one stays set, and is set again only when it goes off too early.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once this time has come.
    pub(super) fn poll_at(&mut self, cx: &mut Context<'_>, time: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if timer.deadline() > time {
            timer.as_mut().reset(time);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= time {
                return Poll::Ready(());
            }
            timer.as_mut().reset(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_time_of_the_last_exchange() {
        let (mut alarm, began) = (Alarm::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for time in [at(10), at(20), at(5)] {
            let early = poll_fn(|cx| Poll::Ready(alarm.poll_at(cx, time))).await;
            assert!(early.is_pending());
        }
        for seconds in [3, 9, 9, 30] {
            poll_fn(|cx| alarm.poll_at(cx, at(seconds))).await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
    }
}
