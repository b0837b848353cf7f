//! Open sessions: one, and the set of all that have not ended.

use std::sync::Arc;
use std::time::Duration;

use cok_proto::{DrainReason, ErrorCode, ErrorMessage, SessionError};
use cok_transport::{CloseReason, Status, Transport, quic};

use super::tunnels::Current;

/// A session as its loop sees it.
#[derive(Debug)]
pub(super) struct Session {
    /// The session, and what events say of it.
    pub(super) current: Current,
    /// The liveness of its path; only over QUIC.
    pub(super) health: Option<quic::PathLiveness>,
}

/// Why another session is needed.
#[derive(Debug)]
pub(super) enum Ended {
    /// The daemon takes no new requests on this one, and waits for the next.
    Replace,
    /// The daemon shuts down. Another one may start.
    Leaving,
    /// It is over.
    Closed(CloseReason),
}

impl Ended {
    /// Whether the daemon may still hold the session's tunnels, so that the next session can take them over.
    pub(super) fn leaves_tunnels(&self) -> bool {
        match self {
            Self::Replace | Self::Leaving => true,
            Self::Closed(reason) => !matches!(reason, CloseReason::Session(SessionError::Peer(_))),
        }
    }
}

impl Session {
    /// Waits until another session is needed.
    pub(super) async fn ended(&self) -> Ended {
        let mut status = self.current.transport.status();
        match status.wait_for(|status| *status != Status::Open).await.as_deref() {
            Ok(Status::Draining(drain)) if drain.reason == DrainReason::Shutdown => Ended::Leaving,
            // A quick drain shows only at its end.
            Ok(Status::Draining(_) | Status::Closed(CloseReason::Drained)) => Ended::Replace,
            Ok(Status::Closed(reason)) => Ended::Closed(reason.clone()),
            _ => Ended::Closed(CloseReason::Lost("its driver is gone".to_owned())),
        }
    }
}

fn is_closed(transport: &dyn Transport) -> bool {
    matches!(*transport.status().borrow(), Status::Closed(_))
}

/// The sessions that have not ended. They are closed when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Arc<dyn Transport>>);

impl Sessions {
    /// Adds a session, and removes those that have ended.
    pub(super) fn add(&mut self, transport: Arc<dyn Transport>) {
        self.0.retain(|session| !is_closed(&**session));
        self.0.push(transport);
    }

    /// Announces to the daemon that no new requests are taken. Running exchanges may finish until `deadline`.
    pub(super) fn announce(&self, deadline: Duration) {
        for session in &self.0 {
            session.drain(DrainReason::Shutdown, deadline);
        }
    }

    /// Waits for the end of all of them.
    pub(super) async fn ended(&self) {
        for session in &self.0 {
            // Each ends by itself at its deadline.
            session.closed().await;
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in &self.0 {
            session.close(ErrorMessage {
                code: ErrorCode::Shutdown,
                message: "the client has stopped".to_owned(),
                retryable: true,
            });
        }
    }
}
