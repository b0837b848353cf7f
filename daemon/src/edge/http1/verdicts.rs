//! What the layer under the HTTP library knows of a connection's requests, next to what the library hands out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::edge::judge::Fault;
use crate::edge::request::Doubt;

/// What was seen of one request.
#[derive(Debug, Default)]
pub(in crate::edge) struct Seen {
    /// The rule that its head breaks. The library has a harmless head in its place.
    pub(in crate::edge) fault: Option<Fault>,
    /// Its target, if the library has another one in its place.
    pub(in crate::edge) target: Option<Bytes>,
    /// What is wrong with its body, as soon as that is known. `None` without a body.
    pub(in crate::edge) doubt: Option<Doubt>,
}

/// A request of a connection that was judged.
#[derive(Debug)]
pub(in crate::edge) struct Judged {
    pub(in crate::edge) verdicts: Arc<Verdicts>,
    pub(in crate::edge) seen: Seen,
}

impl Judged {
    /// The request that the library hands out next.
    pub(in crate::edge) fn next(verdicts: &Arc<Verdicts>) -> Self {
        Self { verdicts: verdicts.clone(), seen: verdicts.next() }
    }
}

/// Passes on what was seen, in the order of the requests, and brings back what became of an upgrade.
#[derive(Debug, Default)]
pub(in crate::edge) struct Verdicts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: VecDeque<Seen>,
    /// Whether the last upgrade was granted, once that is decided.
    switched: Option<bool>,
    /// Wakes the reader, which waits for the decision.
    waiting: Option<Waker>,
    /// The visitor may still send after the last response.
    lingers: bool,
}

impl Verdicts {
    pub(in crate::edge) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Of the request that the library hands out next.
    pub(super) fn next(&self) -> Seen {
        self.0.lock().seen.pop_front().unwrap_or_default()
    }

    /// Decides about an upgrade: what follows its request are raw bytes, or the next request.
    pub(in crate::edge) fn decide(&self, switched: bool) {
        let mut inner = self.0.lock();
        inner.switched = Some(switched);
        if let Some(waker) = inner.waiting.take() {
            waker.wake();
        }
    }

    /// Notes that the connection ends with the current response, whatever the visitor still sends.
    pub(in crate::edge) fn end(&self) {
        self.0.lock().lingers = true;
    }

    pub(super) fn push(&self, seen: Seen) {
        self.0.lock().seen.push_back(seen);
    }

    pub(super) fn poll_switched(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.0.lock();
        let switched = inner.switched.take();
        if switched.is_none() {
            inner.waiting = Some(cx.waker().clone());
        }
        switched.map_or(Poll::Pending, Poll::Ready)
    }

    #[cfg(test)]
    pub(super) fn has_next(&self) -> bool {
        !self.0.lock().seen.is_empty()
    }

    pub(super) fn lingers(&self) -> bool {
        self.0.lock().lingers
    }
}
