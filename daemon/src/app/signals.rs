//! SIGTERM and SIGINT: the first starts an orderly stop, the second ends the wait.

use std::io;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask the program to stop.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts to listen for both signals.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Polls `serving` to its end. The first signal calls `stop`. Returns `None` if a second signal comes before the
    /// end.
    pub(crate) async fn until_stopped<T>(mut self, serving: impl Future<Output = T>, stop: impl FnOnce()) -> Option<T> {
        let mut serving = pin!(serving);
        tokio::select! {
            result = &mut serving => return Some(result),
            () = self.next() => stop(),
        }
        tokio::select! {
            result = serving => Some(result),
            () = self.next() => None,
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
