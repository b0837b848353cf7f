//! Reports requests to those who listen to the client's events. It wraps the response's half of an exchange.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, SendHalf};
use http::HeaderMap;

use crate::event::{Event, TunnelHandle};
use crate::events::Hub;

/// The tunnel whose requests are reported.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Where events go.
    pub(crate) hub: Arc<Hub>,
    /// The tunnel.
    pub(crate) tunnel: TunnelHandle,
}

impl Watch {
    /// Reports the beginning of a request, and its end once the result is dropped. Leaves `send` alone without listeners.
    pub(super) fn begin(&self, head: &RequestHead, send: Box<dyn SendHalf>) -> Box<dyn SendHalf> {
        if !self.hub.has_listeners() {
            return send;
        }
        let request = self.hub.number();
        let (method, path) = (head.method.clone(), head.target.to_text().into_owned());
        self.hub.publish(&Event::RequestBegan { tunnel: self.tunnel, request, method, path });
        let watch = self.clone();
        Box::new(Watched { send, watch, request, began: Instant::now(), status: None, bytes: 0, complete: false })
    }
}

#[derive(Debug)]
struct Watched {
    send: Box<dyn SendHalf>,
    watch: Watch,
    request: u64,
    began: Instant,
    status: Option<u16>,
    bytes: u64,
    complete: bool,
}

impl SendHalf for Watched {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        self.send.poll_ready(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        self.send.poll_broken(cx)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let status = head.status.as_u16();
        self.send.send_response(head, end)?;
        (self.status, self.complete) = (Some(status), end);
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.bytes += data.len() as u64;
        self.complete |= end;
        self.send.send_data(data, end);
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.send.send_trailers(fields)?;
        self.complete = true;
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.complete = false;
        self.send.break_off(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.complete = false;
        self.send.reset(code);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.hub.publish(&Event::RequestEnded {
            tunnel: self.watch.tunnel,
            request: self.request,
            status: self.status,
            bytes: self.bytes,
            time: self.began.elapsed(),
            complete: self.complete,
        });
    }
}
