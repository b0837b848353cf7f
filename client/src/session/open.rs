//! Open sessions: one, and the set of all that have not ended.

use std::sync::Arc;
use std::time::Duration;

use cok_proto::{DrainReason, ErrorCode, ErrorMessage};
use cok_transport::{CloseReason, Status, Transport, quic};

/// A session as its loop sees it.
#[derive(Debug)]
pub(super) struct Session {
    /// Its id, for the successor's `replaces`.
    pub(super) id: String,
    /// Where its exchanges come from.
    pub(super) transport: Arc<dyn Transport>,
    /// Over QUIC: whether the path still carries data.
    pub(super) health: Option<quic::PathLiveness>,
}

/// Why another session is needed.
#[derive(Debug)]
pub(super) enum Ended {
    /// The daemon takes nothing new on this one and waits for the next.
    Replace,
    /// The daemon goes away; another may come.
    Leaving,
    /// It is over.
    Closed(CloseReason),
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        is_closed(&*self.transport)
    }

    /// Waits until another session is needed.
    pub(super) async fn ended(&self) -> Ended {
        let mut status = self.transport.status();
        match status.wait_for(|status| *status != Status::Open).await.as_deref() {
            Ok(Status::Draining(drain)) if drain.reason == DrainReason::Shutdown => Ended::Leaving,
            // What drained quickly was seen only at its end.
            Ok(Status::Draining(_) | Status::Closed(CloseReason::Drained)) => Ended::Replace,
            Ok(Status::Closed(reason)) => Ended::Closed(reason.clone()),
            _ => Ended::Closed(CloseReason::Lost("its driver is gone".to_owned())),
        }
    }
}

fn is_closed(transport: &dyn Transport) -> bool {
    matches!(*transport.status().borrow(), Status::Closed(_))
}

/// The sessions that have not ended. Dropped before their end, they are broken off.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Arc<dyn Transport>>);

impl Sessions {
    /// Adds one, and forgets those that have ended.
    pub(super) fn add(&mut self, transport: Arc<dyn Transport>) {
        self.0.retain(|session| !is_closed(&**session));
        self.0.push(transport);
    }

    /// Announces that nothing new is taken. Running exchanges may finish, at most until `deadline`.
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
