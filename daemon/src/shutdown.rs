//! The daemon's going away, as every connection hears of it.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Says once, to everybody, that nothing new is to begin.
#[derive(Debug, Default)]
pub struct Shutdown {
    started: AtomicBool,
    token: CancellationToken,
}

impl Shutdown {
    /// From now on, nothing new begins.
    pub fn start(&self) {
        self.started.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has started.
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// A watcher for a task that is polled often.
    pub fn watch(&self) -> Watch {
        Watch { waiting: Some(Box::pin(self.token.clone().cancelled_owned())), registered: false }
    }
}

/// Wakes one task when the shutdown starts. Looking at the token takes a lock that all connections share, so it is
/// looked at once; from then on the atomic flag says enough, as the task is woken in any case.
#[derive(Debug)]
pub struct Watch {
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    registered: bool,
}

impl Watch {
    /// Registers the task; ready once when the shutdown has started. Must always be polled by the same task.
    pub fn poll(&mut self, shutdown: &Shutdown, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        let mut started = shutdown.started();
        if !started && !self.registered {
            self.registered = true;
            started = waiting.as_mut().poll(cx).is_ready();
        }
        if !started {
            return Poll::Pending;
        }
        self.waiting = None;
        Poll::Ready(())
    }
}
