//! How a visitor's connection goes from its first request to its end: one machine for all versions of HTTP.
//!
//! ```text
//!         first request awaited ──┐          (HTTP/1.1 without a request)
//!        ╱                        ▼
//!   Open ───────────────────────► Due ──────► Finishing ──► Closing ──► (over)
//!        ╲                                    ▲             (HTTP/2 and HTTP/3)
//!         Crossing ───────────────────────────┘              (HTTP/3)
//! ```
//!
//! It says what happens next. The connection's task carries it out on the wire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::visitor::Visitor;
use crate::drain::{FIRST_REQUEST, Phase, Watch};

/// The rules by which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1. The library has a time-out for idle connections. No message can turn away a fresh connection.
    Http1,
    /// The library sends both GOAWAYs by itself.
    Http2,
    /// Both GOAWAYs are sent here: the first names no last request, since some may be under way.
    Http3,
}

/// What a connection's task has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Announce the end, without a last request.
    Announce,
    /// Take nothing new, and finish what has begun.
    Finish,
    /// The same, but wait for nothing. The visitor may be in the middle of its first head, and the library would wait on.
    /// Or the connection is idle, and others need its room.
    Abandon,
    /// Close the connection: nothing is left.
    Close,
}

#[derive(Debug)]
enum State {
    /// Requests may come.
    Open,
    /// The daemon goes away. The first request may still come until the timer ends.
    AwaitingFirst(Pin<Box<Sleep>>),
    /// The end is due, but waits while an upgrade is undecided. If the library finished now, it would add `close` to a
    /// 101, which some clients refuse.
    Due(Action),
    /// The end is announced. Requests that cross the announcement may come until the timer ends.
    Crossing(Pin<Box<Sleep>>),
    /// Nothing new is taken.
    Finishing,
    /// All is answered. The timer gives the last GOAWAY time to arrive, and to be acknowledged over HTTP/2.
    Closing(Pin<Box<Sleep>>),
    Over,
}

/// One connection's way to its end.
pub(super) struct Lifecycle {
    visitor: Arc<Visitor>,
    protocol: Protocol,
    state: State,
    going_away: Watch,
    /// Resolves when the connection has been idle for too long.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Keeps the connection counted as fresh until its first request.
    fresh: Option<TaskTrackerToken>,
}

impl Lifecycle {
    /// Of a connection that was just opened, and counts as `fresh` until its first request.
    pub(super) fn new(visitor: &Arc<Visitor>, protocol: Protocol, fresh: TaskTrackerToken) -> Self {
        let idle = (protocol != Protocol::Http1).then(|| {
            let visitor = visitor.clone();
            Box::pin(async move { visitor.idle().await }) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        let going_away = visitor.edge.drain.watch(Phase::GoingAway);
        let visitor = visitor.clone();
        Self { visitor, protocol, state: State::Open, going_away, idle, fresh: Some(fresh) }
    }

    /// Notes that a request has come.
    pub(super) fn asked(&mut self) {
        self.fresh = None;
    }

    /// Whether new requests are refused.
    pub(super) fn is_finishing(&self) -> bool {
        matches!(self.state, State::Finishing | State::Closing(_) | State::Over)
    }

    /// Whether requests that have begun are still waited for.
    pub(super) fn has_requests(&self) -> bool {
        matches!(self.state, State::Finishing)
    }

    /// Notes that nothing is in flight any more on a connection that finishes.
    pub(super) fn all_answered(&mut self) {
        if let State::Finishing = self.state {
            self.state = State::Closing(Box::pin(sleep(self.visitor.crossing_time())));
        }
    }

    /// What to do next. To be polled by the connection's task, after each step of the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        if self.visitor.has_asked() {
            self.fresh = None;
        }
        loop {
            let next = match &mut self.state {
                State::Open => {
                    let going_away = self.going_away.poll(cx).is_ready();
                    let idle = self.idle.as_mut().is_some_and(|idle| idle.as_mut().poll(cx).is_ready());
                    if !going_away && !idle {
                        if self.visitor.poll_shed(cx).is_pending() {
                            return Poll::Pending;
                        }
                        self.state = State::Due(Action::Abandon);
                        continue;
                    }
                    self.idle = None;
                    match self.protocol {
                        Protocol::Http1 if self.fresh.is_some() => State::AwaitingFirst(Box::pin(sleep(FIRST_REQUEST))),
                        Protocol::Http1 | Protocol::Http2 => State::Due(Action::Finish),
                        Protocol::Http3 => State::Due(Action::Announce),
                    }
                }
                State::AwaitingFirst(limit) => {
                    if self.fresh.is_none() {
                        State::Due(Action::Finish)
                    } else if limit.as_mut().poll(cx).is_ready() {
                        State::Due(Action::Abandon)
                    } else {
                        return Poll::Pending;
                    }
                }
                State::Due(_) if self.visitor.is_upgrading() => return Poll::Pending,
                State::Due(action) => {
                    let action = *action;
                    self.state = if action == Action::Announce && self.fresh.is_none() {
                        State::Crossing(Box::pin(sleep(self.visitor.crossing_time())))
                    } else {
                        State::Finishing
                    };
                    return Poll::Ready(action);
                }
                State::Crossing(limit) => {
                    if limit.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.state = State::Finishing;
                    return Poll::Ready(Action::Finish);
                }
                State::Closing(limit) => {
                    if limit.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // A request may have crossed the GOAWAY.
                    if self.protocol == Protocol::Http2 && !self.visitor.is_answered() {
                        self.state = State::Finishing;
                        return Poll::Pending;
                    }
                    self.state = State::Over;
                    return Poll::Ready(Action::Close);
                }
                // The library waits until the visitor has acknowledged the GOAWAY, without a limit.
                State::Finishing if self.protocol == Protocol::Http2 && self.visitor.is_answered() => {
                    State::Closing(Box::pin(sleep(self.visitor.edge.exchanges.config().stall_timeout)))
                }
                State::Finishing | State::Over => return Poll::Pending,
            };
            self.state = next;
        }
    }
}
