//! The pump between an in-memory connection and the scripted halves of an exchange.

use std::collections::VecDeque;
use std::task::Waker;

use cok_proto::head::HeadTooLarge;
use cok_proto::{ResetCode, ResponseHead};
use http::HeaderMap;
use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::websocket::going_away;

/// How many bytes the connection takes before its far end reads.
const CONNECTION: usize = 64;

/// A receiving half that delivers its parts and then stays silent.
#[derive(Debug, Default)]
struct Script(VecDeque<Result<Received, ExchangeError>>);

impl RecvHalf for Script {
    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn reset(&mut self, _code: ResetCode) {}
}

fn data(data: &'static [u8], end: bool) -> Received {
    Received::Data { data: Bytes::from_static(data), end }
}

fn script(parts: impl IntoIterator<Item = Received>) -> Box<dyn RecvHalf> {
    Box::new(Script(parts.into_iter().map(Ok).collect()))
}

/// A sending half that records what is sent.
#[derive(Debug, Default)]
struct Sent {
    data: Vec<u8>,
    ended: bool,
    broke_off: bool,
    /// The peer takes nothing for now.
    stalled: bool,
    not_ready: Option<ExchangeError>,
    broken: Option<ExchangeError>,
}

impl SendHalf for Sent {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        match self.not_ready {
            Some(error) => Poll::Ready(Err(error)),
            None if self.stalled => Poll::Pending,
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<ExchangeError> {
        self.broken.map_or(Poll::Pending, Poll::Ready)
    }

    fn send_response(&mut self, _head: ResponseHead, _end: bool) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        assert!(!self.ended, "nothing follows the end");
        self.data.extend_from_slice(&data);
        self.ended = end;
    }

    fn send_trailers(&mut self, _fields: HeaderMap) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn break_off(&mut self, _code: ResetCode) {
        self.broke_off = true;
    }

    fn reset(&mut self, _code: ResetCode) {}
}

fn pump<I: AsyncRead + AsyncWrite + Unpin>(connection: I, send: &mut Sent, recv: Box<dyn RecvHalf>) -> Pump<'_, I> {
    Pump::new(connection, Bytes::new(), send, recv, Visitor::Connection, None)
}

fn poll<I: AsyncRead + AsyncWrite + Unpin>(pump: &mut Pump<'_, I>) -> Poll<Result<(), PumpError>> {
    pump.poll(&mut Context::from_waker(Waker::noop()))
}

/// What the far end reads without waiting, and whether the connection ended.
fn read(far: &mut DuplexStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match pin!(far.read_buf(&mut bytes)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return (bytes, false),
            Poll::Ready(Ok(0)) => return (bytes, true),
            Poll::Ready(length) => assert!(length.is_ok()),
        }
    }
}

/// How many bytes the far end writes without waiting.
fn write(far: &mut DuplexStream, bytes: &[u8]) -> usize {
    match pin!(far.write(bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => 0,
        Poll::Ready(length) => length.unwrap(),
    }
}

#[tokio::test]
async fn the_connection_is_half_closed_when_the_tunnel_ends() {
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent::default();
    let mut pump = pump(near, &mut send, script([data(b"down", false), data(b"!", true)]));
    assert!(poll(&mut pump).is_pending(), "the other direction is open");
    assert_eq!(read(&mut far), (b"down!".to_vec(), true));
    far.write_all(b"up").await.unwrap();
    assert!(poll(&mut pump).is_pending());
    far.shutdown().await.unwrap();
    assert!(matches!(poll(&mut pump), Poll::Ready(Ok(()))));
    assert_eq!((send.data, send.ended), (b"up".to_vec(), true));
}

#[tokio::test]
async fn the_tunnel_is_half_closed_when_the_connection_ends() {
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent::default();
    let mut pump = Pump::new(near, Bytes::from_static(b"early "), &mut send, script([]), Visitor::Connection, None);
    far.write_all(b"up").await.unwrap();
    far.shutdown().await.unwrap();
    assert!(poll(&mut pump).is_pending(), "the other direction is open");
    assert!(pump.to_tunnel.done);
    pump.to_connection.recv = script([data(b"down", false), Received::Trailers(HeaderMap::new())]);
    assert!(matches!(poll(&mut pump), Poll::Ready(Ok(()))));
    assert_eq!(read(&mut far), (b"down".to_vec(), true));
    assert_eq!((send.data, send.ended), (b"early up".to_vec(), true));
}

#[tokio::test]
async fn an_error_of_the_exchange_ends_both_directions() {
    let lost = ExchangeError::SessionLost;
    for (mut send, recv) in [
        (Sent::default(), Box::new(Script([Err(lost)].into())) as Box<dyn RecvHalf>),
        (Sent { not_ready: Some(lost), ..Sent::default() }, script([])),
        (Sent { broken: Some(lost), ..Sent::default() }, script([])),
    ] {
        let (near, _far) = duplex(CONNECTION);
        let mut pump = pump(near, &mut send, recv);
        assert!(matches!(poll(&mut pump), Poll::Ready(Err(PumpError::Exchange(ExchangeError::SessionLost)))));
        assert!(!send.ended, "what broke must not look whole");
    }
}

/// A connection whose reads fail.
struct Reset;

impl AsyncRead for Reset {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Reset {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_error_of_the_connection_ends_both_directions() {
    let mut send = Sent::default();
    assert!(matches!(
        poll(&mut pump(Reset, &mut send, script([]))),
        Poll::Ready(Err(PumpError::Connection(error))) if error.kind() == io::ErrorKind::ConnectionReset
    ));
    assert!(send.broke_off && !send.ended, "what broke must not look whole");

    let (near, far) = duplex(CONNECTION);
    drop(far);
    assert!(matches!(
        poll(&mut pump(near, &mut send, script([data(b"down", false)]))),
        Poll::Ready(Err(PumpError::Connection(error))) if error.kind() == io::ErrorKind::BrokenPipe
    ));
}

#[tokio::test]
async fn a_connection_that_takes_nothing_stops_the_tunnel() {
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent::default();
    let parts = (0..10).map(|_| data(&[7; 100], false)).chain([data(b"", true)]);
    let mut pump = pump(near, &mut send, script(parts));
    for _ in 0..5 {
        assert!(poll(&mut pump).is_pending());
        assert_eq!(pump.to_connection.chunk.len(), 100 - CONNECTION, "no second chunk is taken");
    }
    let mut seen = Vec::new();
    loop {
        let (bytes, ended) = read(&mut far);
        seen.extend(bytes);
        if ended {
            break;
        }
        assert!(poll(&mut pump).is_pending());
    }
    assert_eq!(seen, [7; 1000]);
}

#[tokio::test]
async fn a_tunnel_that_takes_nothing_stops_the_connection() {
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent { stalled: true, ..Sent::default() };
    let mut stalled = pump(near, &mut send, script([]));
    assert_eq!(write(&mut far, &[7; 100]), CONNECTION);
    for _ in 0..5 {
        assert!(poll(&mut stalled).is_pending());
        assert_eq!(write(&mut far, &[7; 100]), 0, "nothing is read");
    }
    let near = stalled.connection;
    send.stalled = false;
    assert!(poll(&mut pump(near, &mut send, script([]))).is_pending());
    assert_eq!(send.data, [7; CONNECTION]);
}

#[tokio::test]
async fn the_connection_gets_the_close_after_the_frame_that_is_half_sent() {
    let close = going_away("bye");
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent::default();
    let recv = script([data(b"\x81\x02hi\x81\x02h", false)]);
    let farewell = Some(Farewell::new(close.clone()));
    let mut pump = Pump::new(near, Bytes::new(), &mut send, recv, Visitor::Connection, farewell);
    assert!(poll(&mut pump).is_pending());
    pump.close_websocket();
    assert!(poll(&mut pump).is_pending());
    assert!(!pump.is_websocket_closed());
    assert_eq!(read(&mut far).0, b"\x81\x02hi\x81\x02h");

    pump.to_connection.recv = script([data(b"o\x81\x02no", false), data(b"\x81\x02no", true)]);
    far.write_all(b"\x88\x00").await.unwrap();
    assert!(poll(&mut pump).is_pending(), "the visitor may answer");
    assert!(pump.is_websocket_closed());
    assert_eq!(read(&mut far), ([b"o", &close[..]].concat(), true));
    assert_eq!(send.data, b"\x88\x00", "the service gets the visitor's answer only");
}

#[tokio::test]
async fn the_tunnel_gets_the_close_after_the_frame_that_is_half_sent() {
    let close = going_away("bye");
    let (near, mut far) = duplex(CONNECTION);
    let mut send = Sent::default();
    let farewell = Some(Farewell::new(close.clone()));
    let early = Bytes::from_static(b"\x81\x02hi\x81");
    let mut pump = Pump::new(near, early, &mut send, script([]), Visitor::Tunnel, farewell);
    assert!(poll(&mut pump).is_pending());
    pump.close_websocket();
    assert!(poll(&mut pump).is_pending());
    assert!(!pump.is_websocket_closed());
    far.write_all(b"\x02ho\x81\x02no").await.unwrap();
    assert!(poll(&mut pump).is_pending());
    assert!(pump.is_websocket_closed());
    assert_eq!(read(&mut far).0, b"", "the service gets nothing from the pump");
    pump.end_to_tunnel();
    pump.end_to_tunnel();
    assert_eq!((send.data, send.ended), ([b"\x81\x02hi\x81\x02ho", &close[..]].concat(), true));
}
