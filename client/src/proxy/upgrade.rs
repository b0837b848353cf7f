//! Exchanges that leave HTTP: once the service has answered 101, raw bytes go both ways. When the client stops, the visitor
//! of a WebSocket gets a Close frame; other protocols know nothing of the kind.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use cok_http::websocket::{Farewell, going_away, is_websocket};
use cok_proto::RequestHead;
use cok_transport::{Received, RecvHalf, SendHalf};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use tokio::io::{AsyncReadExt as _, AsyncWrite};
use tokio::time::sleep;

use super::body::RequestBody;
use super::flight::Flight;
use super::http1::{Answer, ask, respond};
use super::local::Io;
use super::request::Request;
use super::respond::head_of;
use super::{Failure, Proxy};

/// What an upgraded connection reads at once.
const READ_BUFFER: usize = 16 * 1024;
/// With less room than this, reading begins a new buffer.
const LEAST_ROOM: usize = 4 * 1024;
/// How long an upgraded connection may go on once the client stops: the closing handshake of a WebSocket takes one round trip
/// to the visitor.
const CLOSING: Duration = Duration::from_secs(1);
/// Why the client closes a WebSocket, as the visitor hears it.
const STOPPING: &str = "the tunnel is being closed";

/// Sends the request and, after a 101, carries bytes until both ways have ended.
pub(super) async fn exchange(
    proxy: &Proxy,
    mut head: RequestHead,
    send: &mut Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    flight: &mut Flight,
) -> Result<(), Failure> {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut request = Request::new(head, RequestBody::empty(), proxy.local.own_host(), &proxy.host);
    let (connection, response) = loop {
        let mut connection = proxy.local.connect_http1().await?;
        match ask(&mut connection, request, send, proxy.response_timeout).await? {
            Answer::Response(response) => break (connection, response),
            Answer::None(_) if !connection.reused => return Err(Failure::Broke("it closed the connection".to_owned())),
            Answer::None(again) => request = *again,
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return respond(connection, response, send, &proxy.local.pool, flight).await;
    }
    let (parts, _no_body) = response.into_parts();
    let closes = parts.headers.get(UPGRADE).is_some_and(|protocol| is_websocket(protocol.as_bytes()));
    let farewell = closes.then(|| Farewell::new(going_away(STOPPING)));
    send.send_response(head_of(parts), false).map_err(|_| Failure::TooLarge)?;
    let mut connection = connection;
    poll_fn(|cx| connection.poll(cx)).await;
    let (mut io, read) = connection.into_io();
    let mut up = Up { recv, chunk: Bytes::new(), unflushed: false, ending: false, done: false };
    let mut down = Down { read, buffer: BytesMut::new(), farewell, done: false };
    let (mut stop, mut limit) = (flight.lasts(), None);
    poll_fn(|cx| {
        if limit.is_none() && stop.poll(cx).is_ready() {
            limit = Some(Box::pin(sleep(CLOSING)));
            down.close();
        }
        if let Poll::Ready(result) = up.poll(&mut io, cx) {
            result?;
        }
        if let Poll::Ready(result) = down.poll(&mut io, send, cx) {
            result?;
        }
        if up.done && down.done {
            return Poll::Ready(Ok(()));
        }
        match &mut limit {
            Some(limit) => limit.as_mut().poll(cx).map(|()| down.end(send)),
            None => Poll::Pending,
        }
    })
    .await
}

/// From the tunnel to the service.
struct Up {
    recv: Box<dyn RecvHalf>,
    /// What the service does not take yet.
    chunk: Bytes,
    unflushed: bool,
    /// Nothing follows the chunk.
    ending: bool,
    done: bool,
}

impl Up {
    fn poll(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.done {
            if !self.chunk.is_empty() {
                let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.chunk)).map_err(broke)?;
                if written == 0 {
                    return Poll::Ready(Err(broke(io::ErrorKind::WriteZero.into())));
                }
                self.chunk.advance(written);
                self.unflushed = true;
                continue;
            }
            if self.ending {
                ready!(Pin::new(&mut *io).poll_shutdown(cx)).map_err(broke)?;
                self.done = true;
                break;
            }
            match self.recv.poll_recv(cx) {
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(broke)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(Received::Data { data, end })) => (self.chunk, self.ending) = (data, end),
                Poll::Ready(Ok(Received::Trailers(_))) => self.ending = true,
                // The multiplexer lets no head come from a daemon but the one that opened the exchange.
                Poll::Ready(Ok(Received::Head { .. })) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// From the service to the tunnel.
struct Down {
    /// What came right behind the 101.
    read: Bytes,
    buffer: BytesMut,
    /// What a WebSocket's visitor hears when the client stops.
    farewell: Option<Farewell>,
    done: bool,
}

impl Down {
    fn poll(&mut self, io: &mut Io, send: &mut Box<dyn SendHalf>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.done {
            if ready!(send.poll_ready(cx)).is_err() {
                return Poll::Ready(Err(Failure::Gone));
            }
            if let Some(close) = self.farewell.as_mut().and_then(Farewell::close) {
                send.send_data(close, false);
                continue;
            }
            if !self.read.is_empty() {
                let read = std::mem::take(&mut self.read);
                self.pass(read, send);
                continue;
            }
            if self.buffer.capacity() < LEAST_ROOM {
                // Takes the same memory again once the tunnel is done with it.
                self.buffer.reserve(READ_BUFFER);
            }
            match pin!(io.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Pending => return send.poll_broken(cx).map(|_| Err(Failure::Gone)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broke(error))),
                Poll::Ready(Ok(0)) => {
                    send.send_data(Bytes::new(), true);
                    self.done = true;
                }
                Poll::Ready(Ok(_)) => {
                    let read = self.buffer.split().freeze();
                    self.pass(read, send);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, data: Bytes, send: &mut Box<dyn SendHalf>) {
        let data = match &mut self.farewell {
            Some(farewell) => farewell.pass(data),
            None => data,
        };
        if !data.is_empty() {
            send.send_data(data, false);
        }
    }

    /// The client stops: the visitor of a WebSocket gets a Close frame as soon as one may stand there.
    fn close(&mut self) {
        if let Some(farewell) = &mut self.farewell {
            farewell.set_due();
        }
    }

    /// Ends what has not ended in time. A visitor with a Close frame knows all; what others have must not look whole.
    fn end(&mut self, send: &mut Box<dyn SendHalf>) -> Result<(), Failure> {
        if !self.farewell.as_ref().is_some_and(Farewell::is_said) {
            return Err(Failure::Stopped);
        }
        if !self.done {
            send.send_data(Bytes::new(), true);
            self.done = true;
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broke(error: io::Error) -> Failure {
    Failure::Broke(error.to_string())
}
