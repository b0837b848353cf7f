//! The phases of a drain. Every part watches this one value.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a daemon in [`Phase::GoingAway`] waits for the first request of an accepted connection. A silent connection
/// must not delay the stop.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The phase of the drain. Later phases compare greater, and the daemon never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Serves normally.
    Serving,
    /// Still serves, but reports that it is not ready, so that load balancers choose another daemon.
    Draining,
    /// Accepts nothing new. Connections finish their requests (GOAWAY, `connection: close`).
    GoingAway,
    /// Long-lived exchanges end: WebSockets with 1001, event streams with a proper end.
    Farewell,
    /// Cuts what still runs.
    Cut,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Serving, Self::Draining, Self::GoingAway, Self::Farewell, Self::Cut];
}

/// The current phase, and a token for the beginning of each.
#[derive(Debug, Default)]
pub(super) struct Phases(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    now: AtomicU8,
    begun: [CancellationToken; Phase::ALL.len()],
}

impl Shared {
    fn reached(&self, phase: Phase) -> bool {
        self.now.load(Ordering::Acquire) >= phase as u8
    }

    fn token(&self, phase: Phase) -> &CancellationToken {
        &self.begun[phase as usize]
    }
}

impl Phases {
    pub(super) fn now(&self) -> Phase {
        let now = self.0.now.load(Ordering::Acquire);
        Phase::ALL.into_iter().rfind(|phase| *phase as u8 <= now).unwrap_or(Phase::Serving)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.now.fetch_max(phase as u8, Ordering::AcqRel);
        for begun in Phase::ALL.into_iter().filter(|begun| *begun <= phase) {
            self.0.token(begun).cancel();
        }
    }

    pub(super) fn watch(&self, phase: Phase) -> Watch {
        let waiting = Box::pin(self.0.token(phase).clone().cancelled_owned());
        Watch { shared: self.0.clone(), phase, waiting: Some(waiting), registered: false }
    }

    pub(super) async fn reached(&self, phase: Phase) {
        if !self.0.reached(phase) {
            self.0.token(phase).cancelled().await;
        }
    }

    pub(super) async fn first_request(&self) {
        let mut going_away = self.watch(Phase::GoingAway);
        poll_fn(|cx| going_away.poll(cx)).await;
        sleep(FIRST_REQUEST).await;
    }
}

/// Wakes a task once, when a phase begins, and is cheap to poll often. All connections share a token's lock, so it is
/// taken only at registration. After that the atomic phase is enough, since the token wakes the task.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    phase: Phase,
    /// `None` once the phase has begun.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    registered: bool,
}

impl Watch {
    /// Registers the task and is ready when the phase has begun, once. The same task must poll it every time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        let mut begun = self.shared.reached(self.phase);
        if !begun && !self.registered {
            self.registered = true;
            begun = waiting.as_mut().poll(cx).is_ready();
        }
        if !begun {
            return Poll::Pending;
        }
        self.waiting = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn phases_only_advance_and_wake_all_watchers_up_to_them() {
        let phases = Phases::default();
        let (mut going, mut cut) = (phases.watch(Phase::GoingAway), phases.watch(Phase::Cut));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(phases.now(), Phase::Serving);
        assert!(going.poll(&mut cx).is_pending());
        phases.enter(Phase::Farewell);
        assert!(going.poll(&mut cx).is_ready(), "a later phase includes the earlier ones");
        assert!(going.poll(&mut cx).is_pending(), "a watch is ready once");
        assert!(cut.poll(&mut cx).is_pending());
        phases.enter(Phase::Draining);
        assert_eq!(phases.now(), Phase::Farewell, "no phase comes back");
        phases.enter(Phase::Cut);
        assert!(cut.poll(&mut cx).is_ready());
        assert_eq!(phases.now(), Phase::Cut);
    }
}
