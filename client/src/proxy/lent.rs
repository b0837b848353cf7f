//! The request's half of an upgrade: lent to the request's body, and back once that has ended, for the raw bytes behind it.

use std::sync::Arc;
use std::task::{Context, Poll};

use cok_proto::ResetCode;
use cok_transport::{ExchangeError, Received, RecvHalf};
use parking_lot::Mutex;

/// The half while a body reads it.
#[derive(Debug)]
struct Lent {
    recv: Option<Box<dyn RecvHalf>>,
    /// Everything of the body has been read.
    complete: bool,
    returned: Arc<Mutex<Option<Box<dyn RecvHalf>>>>,
}

/// Where the half comes back to.
#[derive(Debug)]
pub(super) struct Returned(Arc<Mutex<Option<Box<dyn RecvHalf>>>>);

/// Lends a half to a body.
pub(super) fn lend(recv: Box<dyn RecvHalf>) -> (Box<dyn RecvHalf>, Returned) {
    let returned = Arc::default();
    let lent = Lent { recv: Some(recv), complete: false, returned: Arc::clone(&returned) };
    (Box::new(lent), Returned(returned))
}

impl Returned {
    /// The half, if the body has ended.
    pub(super) fn take(self) -> Option<Box<dyn RecvHalf>> {
        self.0.lock().take()
    }
}

impl RecvHalf for Lent {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let Some(recv) = &mut self.recv else { return Poll::Pending };
        let polled = recv.poll_recv(cx);
        if let Poll::Ready(Ok(Received::Data { end: true, .. } | Received::Trailers(_))) = &polled {
            self.complete = true;
        }
        polled
    }

    fn reset(&mut self, code: ResetCode) {
        if let Some(recv) = &mut self.recv {
            recv.reset(code);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.complete {
            *self.returned.lock() = self.recv.take();
        }
    }
}
