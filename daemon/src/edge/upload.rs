//! The upload of a request's body into a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_proto::ResetCode;
use cok_transport::SendHalf;
use http_body::Body as _;

use super::request::RequestBody;

/// Carries a request's body into the tunnel, chunk by chunk, as the tunnel takes it.
#[derive(Debug)]
pub(crate) struct Upload {
    body: RequestBody,
    send: Box<dyn SendHalf>,
    started: bool,
    broken: bool,
}

impl Upload {
    /// An upload that has read nothing yet.
    pub(crate) fn new(body: RequestBody, send: Box<dyn SendHalf>) -> Self {
        Self { body, send, started: false, broken: false }
    }

    /// Whether none of the body has been read, so that it can be sent over another session.
    pub(crate) fn is_unread(&self) -> bool {
        !self.started
    }

    /// Whether the visitor broke the body off.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What is left of the body.
    pub(crate) fn into_rest(self) -> RequestBody {
        self.body
    }

    /// What it sends to, once the body has ended.
    pub(crate) fn into_send(self) -> Box<dyn SendHalf> {
        self.send
    }

    /// Carries on. Ready once nothing is left to do: all is sent, it is not wanted any more, or the
    /// visitor has gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.send.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    // While the service reads nothing, the visitor may leave.
                    ready!(self.body.poll_abandoned(cx));
                    self.broken = true;
                    self.send.reset(ResetCode::Cancelled);
                    return Poll::Ready(());
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    // While the visitor is silent, the exchange may end.
                    return self.send.poll_broken(cx).map(|_| ());
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.started = true;
                    match frame.into_data() {
                        Ok(data) => {
                            let end = self.body.is_end_stream();
                            self.send.send_data(data, end);
                            if end {
                                return Poll::Ready(());
                            }
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            if self.send.send_trailers(trailers).is_err() {
                                self.send.break_off(ResetCode::TooLarge);
                            }
                            return Poll::Ready(());
                        }
                    }
                }
                Poll::Ready(None) => {
                    self.send.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Err(_))) => {
                    self.broken = true;
                    // The service may have all that was announced, and then reads no break behind it.
                    if self.body.size_hint().exact() == Some(0) {
                        self.send.reset(ResetCode::Cancelled);
                    } else {
                        self.send.break_off(ResetCode::Cancelled);
                    }
                    return Poll::Ready(());
                }
            }
        }
    }
}
