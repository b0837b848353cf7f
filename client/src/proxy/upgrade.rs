//! Exchanges that leave HTTP: once the service has answered 101, raw bytes go both ways.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use cok_proto::RequestHead;
use cok_transport::{Received, RecvHalf, SendHalf};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWrite};

use super::body::RequestBody;
use super::http1::{Answer, ask, respond};
use super::local::Io;
use super::request::Request;
use super::respond::head_of;
use super::{Failure, Proxy};

/// What an upgraded connection reads at once.
const READ_BUFFER: usize = 16 * 1024;
/// With less room than this, reading begins a new buffer.
const LEAST_ROOM: usize = 4 * 1024;

/// Sends the request and, after a 101, carries bytes until both ways have ended.
pub(super) async fn exchange(
    proxy: &Proxy,
    mut head: RequestHead,
    send: &mut Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
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
        return respond(connection, response, send, &proxy.local.pool).await;
    }
    let (parts, _no_body) = response.into_parts();
    send.send_response(head_of(parts), false).map_err(|_| Failure::TooLarge)?;
    let mut connection = connection;
    poll_fn(|cx| connection.poll(cx)).await;
    let (io, read) = connection.into_io();
    let mut up = Up { recv, chunk: Bytes::new(), unflushed: false, ending: false, done: false };
    let mut down = Down { read, buffer: BytesMut::new(), done: false };
    let mut io = io;
    poll_fn(|cx| {
        if let Poll::Ready(result) = up.poll(&mut io, cx) {
            result?;
        }
        if let Poll::Ready(result) = down.poll(&mut io, send, cx) {
            result?;
        }
        if up.done && down.done { Poll::Ready(Ok(())) } else { Poll::Pending }
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
    done: bool,
}

impl Down {
    fn poll(&mut self, io: &mut Io, send: &mut Box<dyn SendHalf>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.done {
            if ready!(send.poll_ready(cx)).is_err() {
                return Poll::Ready(Err(Failure::Gone));
            }
            if !self.read.is_empty() {
                send.send_data(std::mem::take(&mut self.read), false);
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
                Poll::Ready(Ok(_)) => send.send_data(self.buffer.split().freeze(), false),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broke(error: io::Error) -> Failure {
    Failure::Broke(error.to_string())
}
