//! When a visitor's WebSocket is closed: once the daemon's time is up.

use std::task::{Context, Poll};

use cok_http::websocket::{Farewell, going_away};

use crate::shutdown::Watch;

/// Why, as the visitor hears it.
const RESTARTING: &str = "the server is restarting";

/// A farewell, and the time at which it is due.
#[derive(Debug)]
pub(super) struct TimedFarewell {
    pub(super) farewell: Farewell,
    time: Watch,
}

impl TimedFarewell {
    /// For a WebSocket of which nothing has passed yet.
    pub(super) fn new(time: Watch) -> Self {
        Self { farewell: Farewell::new(going_away(RESTARTING)), time }
    }

    /// Ready once, when the time is up. Must always be polled by the same task.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.time.poll(cx);
        if due.is_ready() {
            self.farewell.set_due();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::shutdown::Shutdown;

    #[test]
    fn the_close_is_due_once_when_the_time_is_up() {
        let shutdown = Shutdown::default();
        let mut timed = TimedFarewell::new(shutdown.watch_time());
        let due = |timed: &mut TimedFarewell| timed.poll_due(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!due(&mut timed));
        assert_eq!(timed.farewell.close(), None);
        shutdown.end_time();
        assert!(due(&mut timed));
        assert!(!due(&mut timed), "once is enough");
        assert_eq!(timed.farewell.close(), Some(going_away(RESTARTING)));
    }
}
