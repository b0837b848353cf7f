//! The request's direction of an upgrade: a body first, if there is one, and raw bytes after a 101.

use std::future::poll_fn;
use std::task::Context;

use cok_transport::SendHalf;

use crate::edge::linger::linger;
use crate::edge::request::RequestBody;
use crate::edge::upload::Upload;

/// The request's direction of an upgrade.
pub(in crate::edge) struct Sending {
    kind: Kind,
    /// Nothing of a body is left.
    ended: bool,
}

enum Kind {
    Body(Upload),
    NoBody(Box<dyn SendHalf>),
}

impl Sending {
    /// Of a request that was just opened.
    pub(in crate::edge) fn new(body: Option<RequestBody>, send: Box<dyn SendHalf>) -> Self {
        match body {
            Some(body) => Self { kind: Kind::Body(Upload::new(body, send)), ended: false },
            None => Self { kind: Kind::NoBody(send), ended: true },
        }
    }

    /// Carries on with the body.
    pub(in crate::edge) fn poll(&mut self, cx: &mut Context<'_>) {
        if let Kind::Body(upload) = &mut self.kind
            && !self.ended
        {
            self.ended = upload.poll(cx).is_ready();
        }
    }

    /// The upgrade was granted, which happens only behind the body.
    pub(in crate::edge) fn into_send(self) -> Box<dyn SendHalf> {
        match self.kind {
            Kind::Body(upload) => upload.into_send(),
            Kind::NoBody(send) => send,
        }
    }

    /// The upgrade was declined. The rest of the body continues in a task and ends with the exchange.
    pub(in crate::edge) fn decline(self) {
        let Self { kind: Kind::Body(mut upload), ended } = self else { return };
        tokio::spawn(async move {
            if !ended {
                poll_fn(|cx| upload.poll(cx)).await;
            }
            linger(upload.into_rest());
        });
    }

    /// The exchange has broken. The rest of the body is dropped.
    pub(in crate::edge) fn give_up(self) {
        if let Kind::Body(upload) = self.kind {
            linger(upload.into_rest());
        }
    }
}
