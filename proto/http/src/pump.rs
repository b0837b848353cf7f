//! Raw bytes between a connection and an exchange that has left HTTP: both directions, in one task.
//!
//! A direction that ends half-closes its other side, and the other direction goes on. An error ends both. The pump can
//! send a Close frame to the visitor of a WebSocket. The caller decides when to send it and how long to wait afterwards.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use cok_transport::{ExchangeError, Received, RecvHalf, ResetCode, SendHalf};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::websocket::Farewell;

/// The size of the buffer for reads from the connection. TLS delivers at most 16 KiB at once.
const READ_BUFFER: usize = 16 * 1024;
/// The pump refills its buffer if less room is left. Shorter reads would cost more than they save.
const LEAST_ROOM: usize = 4 * 1024;

/// The side on which the visitor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// Behind the connection: the pump runs in the daemon.
    Connection,
    /// Behind the tunnel: the pump runs in the client.
    Tunnel,
}

/// Why a pump stopped early.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The exchange was abandoned, or its session ended.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// Carries raw bytes in both directions until both have ended.
#[derive(Debug)]
pub struct Pump<'a, I> {
    connection: I,
    to_connection: ToConnection,
    to_tunnel: ToTunnel<'a>,
}

impl<'a, I: AsyncRead + AsyncWrite + Unpin> Pump<'a, I> {
    /// A pump between `connection` and the two halves of an exchange. `read` was read from the connection before.
    /// `farewell` closes a WebSocket towards its visitor; other protocols have none.
    pub fn new(
        connection: I,
        read: Bytes,
        send: &'a mut dyn SendHalf,
        recv: Box<dyn RecvHalf>,
        visitor: Visitor,
        farewell: Option<Farewell>,
    ) -> Self {
        let (to_connection, to_tunnel, breaks_with) = match visitor {
            Visitor::Connection => (farewell, None, ResetCode::Cancelled),
            Visitor::Tunnel => (None, farewell, ResetCode::LocalBroken),
        };
        Self {
            connection,
            to_connection: ToConnection {
                recv,
                chunk: Bytes::new(),
                needs_flush: false,
                last_chunk: false,
                farewell: to_connection,
                done: false,
            },
            to_tunnel: ToTunnel { send, read, buffer: BytesMut::new(), breaks_with, farewell: to_tunnel, done: false },
        }
    }

    /// Moves what can be moved. Ready once both directions have ended or one has failed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let to_connection = self.to_connection.poll(&mut self.connection, cx)?;
        let to_tunnel = self.to_tunnel.poll(&mut self.connection, cx)?;
        if to_connection.is_ready() && to_tunnel.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Asks for the Close frame. The next poll sends it as soon as no frame is half sent.
    pub fn close_websocket(&mut self) {
        if let Some(farewell) = self.to_connection.farewell.as_mut().or(self.to_tunnel.farewell.as_mut()) {
            farewell.set_due();
        }
    }

    /// Whether the visitor of a WebSocket got a Close frame, from the pump or from the service.
    pub fn is_websocket_closed(&self) -> bool {
        self.to_connection.farewell.as_ref().or(self.to_tunnel.farewell.as_ref()).is_some_and(Farewell::is_said)
    }

    /// Ends the direction into the tunnel, unless it has ended. Unsent bytes of the connection are lost.
    pub fn end_to_tunnel(&mut self) {
        if !self.to_tunnel.done {
            self.to_tunnel.end();
        }
    }
}

/// The direction from the tunnel to the connection. It takes the next chunk once the connection has taken the last one.
#[derive(Debug)]
struct ToConnection {
    recv: Box<dyn RecvHalf>,
    /// Bytes that the connection has not taken yet.
    chunk: Bytes,
    /// True if bytes were written since the last flush.
    needs_flush: bool,
    /// Nothing follows the chunk.
    last_chunk: bool,
    /// The Close frame, if the visitor is on this side.
    farewell: Option<Farewell>,
    done: bool,
}

impl ToConnection {
    fn poll<I: AsyncWrite + Unpin>(&mut self, connection: &mut I, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        while !self.done {
            if !self.chunk.is_empty() {
                let written = ready!(Pin::new(&mut *connection).poll_write(cx, &self.chunk))?;
                if written == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                self.chunk.advance(written);
                self.needs_flush = true;
                continue;
            }
            if let Some(close) = self.farewell.as_mut().and_then(Farewell::close) {
                self.chunk = close;
                continue;
            }
            if self.last_chunk {
                ready!(Pin::new(&mut *connection).poll_shutdown(cx))?;
                self.done = true;
                break;
            }
            match self.recv.poll_recv(cx)? {
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(&mut *connection).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Received::Data { data, end }) => {
                    self.chunk = pass(&mut self.farewell, data);
                    self.last_chunk = end;
                }
                Poll::Ready(Received::Trailers(_)) => self.last_chunk = true,
                // The transport lets no head follow the final one.
                Poll::Ready(Received::Head { .. }) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The direction from the connection to the tunnel. It reads only while the tunnel takes bytes.
#[derive(Debug)]
struct ToTunnel<'a> {
    send: &'a mut dyn SendHalf,
    /// Bytes that were read before the pump began.
    read: Bytes,
    buffer: BytesMut,
    /// What the tunnel gets if the connection fails.
    breaks_with: ResetCode,
    /// The Close frame, if the visitor is on this side.
    farewell: Option<Farewell>,
    done: bool,
}

impl ToTunnel<'_> {
    fn poll<I: AsyncRead + Unpin>(&mut self, connection: &mut I, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        while !self.done {
            ready!(self.send.poll_ready(cx))?;
            if let Some(close) = self.farewell.as_mut().and_then(Farewell::close) {
                self.send.send_data(close, false);
                continue;
            }
            if !self.read.is_empty() {
                let read = std::mem::take(&mut self.read);
                self.pass(read);
                continue;
            }
            if self.buffer.capacity() < LEAST_ROOM {
                // Uses the same memory again once the tunnel has dropped the earlier chunks.
                self.buffer.reserve(READ_BUFFER);
            }
            match pin!(connection.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Pending => return self.send.poll_broken(cx).map(|error| Err(error.into())),
                Poll::Ready(Err(error)) => {
                    self.send.break_off(self.breaks_with);
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Ready(Ok(0)) => self.end(),
                Poll::Ready(Ok(_)) => {
                    let read = self.buffer.split().freeze();
                    self.pass(read);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, data: Bytes) {
        let data = pass(&mut self.farewell, data);
        if !data.is_empty() {
            self.send.send_data(data, false);
        }
    }

    fn end(&mut self) {
        self.send.send_data(Bytes::new(), true);
        self.done = true;
    }
}

/// The part of `data` that the visitor may still get.
fn pass(farewell: &mut Option<Farewell>, data: Bytes) -> Bytes {
    match farewell {
        Some(farewell) => farewell.pass(data),
        None => data,
    }
}

#[cfg(test)]
mod tests;
