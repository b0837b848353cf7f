//! A peer that breaks a rule loses its session, and gets the reason.

use bytes::{BufMut as _, BytesMut};
use cok_proto::frame::{self, FrameType};
use cok_proto::{ErrorCode, Frame, ResetCode};
use cok_transport::{Received, quic};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, ReadError, VarInt};

use crate::pair::{Ends, LIMIT, ack, config, connect, head, ok, soon};

/// A client that writes any bytes.
struct Raw {
    connection: quinn::Connection,
    control: (quinn::SendStream, quinn::RecvStream),
    daemon: std::sync::Arc<dyn cok_transport::Transport>,
    _endpoint: Endpoint,
}

async fn raw_connection(ends: &Ends) -> (quinn::Connection, Endpoint) {
    let mut tls = ends.tls.clone();
    tls.alpn_protocols = vec![quic::ALPN.to_vec()];
    let crypto = std::sync::Arc::new(QuicClientConfig::try_from(tls).unwrap());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(crypto), ends.address(), "localhost").unwrap();
    (connecting.await.unwrap(), endpoint)
}

impl Raw {
    async fn new(ends: &Ends) -> Self {
        let ((connection, endpoint), accepted) =
            tokio::join!(raw_connection(ends), async { ends.server.accept().await.unwrap().await.unwrap() });
        let mut control = connection.open_bi().await.unwrap();
        let mut ask = BytesMut::new();
        frame::put_json(&mut ask, FrameType::Connect, &connect());
        control.0.write_all(&ask).await.unwrap();
        let handshake = soon(quic::accept(accepted, config(), LIMIT)).await.unwrap();
        let daemon = handshake.accept(&ack(), &[]).uncork();
        let mut raw = Self { connection, control, daemon, _endpoint: endpoint };
        assert!(matches!(raw.read_frame().await, Frame::ConnectAck(_)));
        raw
    }

    async fn read_frame(&mut self) -> Frame {
        let mut header = [0; 7];
        soon(self.control.1.read_exact(&mut header)).await.unwrap();
        let parsed = frame::FrameHeader::parse(&header).unwrap().unwrap();
        let mut payload = vec![0; parsed.length];
        self.control.1.read_exact(&mut payload).await.unwrap();
        Frame::decode_payload(parsed, payload.into()).unwrap()
    }

    /// The session ends with this code, in an Error frame and on the connection.
    async fn ends_with(mut self, code: ErrorCode) {
        loop {
            match self.read_frame().await {
                Frame::Error(error) => {
                    assert_eq!(error.code, code, "{error}");
                    break;
                }
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        match soon(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(closed) => {
                assert_eq!(closed.error_code, VarInt::from_u32(code.to_u32()));
            }
            other => panic!("{other:?}"),
        }
        soon(self.daemon.closed()).await;
    }
}

fn bytes(build: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    build(&mut out);
    out
}

#[tokio::test]
async fn control_frames_out_of_place() {
    let ends = Ends::new();
    let ack = ack();
    for (wrong, code) in [
        (bytes(|out| frame::put_json(out, FrameType::Connect, &connect())), ErrorCode::Protocol),
        (bytes(|out| frame::put_json(out, FrameType::ConnectAck, &ack)), ErrorCode::Protocol),
        (bytes(|out| frame::put_data_header(out, 1, 0, true)), ErrorCode::Protocol),
        (bytes(|out| frame::put_reset(out, 1, ResetCode::Cancelled)), ErrorCode::Protocol),
        (bytes(|out| frame::put_window_update(out, 1, 1)), ErrorCode::Protocol),
        (bytes(|out| out.put_slice(&[2, 0xF0, 0, 0, 0, 0, 8])), ErrorCode::Version),
        (bytes(|out| out.put_slice(&[1, 0x22, 0, 0, 0, 0, 0])), ErrorCode::Protocol),
        (bytes(|out| out.put_slice(&[1, 0x80, 0, 0, 0x10, 0, 1])), ErrorCode::TooLarge),
        (bytes(|out| out.put_slice(&[1, 0x03, 0, 0, 0, 0x40, 1])), ErrorCode::TooLarge),
    ] {
        let mut raw = Raw::new(&ends).await;
        raw.control.0.write_all(&wrong).await.unwrap();
        raw.ends_with(code).await;
    }
}

#[tokio::test]
async fn exchange_frames_out_of_place() {
    let ends = Ends::new();
    let head = head("/");
    for (wrong, code) in [
        (bytes(|out| frame::put_response(out, 2, &ok(), true)), ErrorCode::Protocol),
        (bytes(|out| frame::put_data_header(out, 1, 5, false)), ErrorCode::Protocol),
        (bytes(|out| frame::put_trailers(out, 1, &http::HeaderMap::new())), ErrorCode::Protocol),
        (bytes(|out| frame::put_request(out, 1, 0, &head, true)), ErrorCode::Protocol),
        (bytes(|out| frame::put_ping(out, [0; 8])), ErrorCode::Protocol),
        (bytes(|out| out.put_slice(&[1, 0x11, 0, 0, 1, 0, 1])), ErrorCode::TooLarge),
        (bytes(|out| out.put_slice(&[1, 0x12, 0, 0, 0, 0, 3, 0, 0, 1])), ErrorCode::Protocol),
    ] {
        let raw = Raw::new(&ends).await;
        let mut asked = raw.daemon.open(0, head.clone(), true).unwrap();
        let (mut send, _recv) = soon(raw.connection.accept_bi()).await.unwrap();
        send.write_all(&wrong).await.unwrap();
        assert!(soon(asked.recv.recv()).await.is_err());
        raw.ends_with(code).await;
    }
}

#[tokio::test]
async fn fin_without_end_breaks_only_its_exchange() {
    let ends = Ends::new();
    let raw = Raw::new(&ends).await;
    let mut asked = raw.daemon.open(0, head("/"), true).unwrap();
    let (mut send, _recv) = soon(raw.connection.accept_bi()).await.unwrap();
    send.write_all(&bytes(|out| frame::put_response(out, 1, &ok(), false))).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(soon(asked.recv.recv()).await, Ok(Received::Head { .. })));
    let error = soon(asked.recv.recv()).await.unwrap_err();
    assert_eq!(error, cok_transport::ExchangeError::Reset(ResetCode::LocalBroken));
    assert!(raw.daemon.open(0, head("/"), true).is_ok());
}

#[tokio::test]
async fn anything_before_connect_ends_the_connection() {
    let ends = Ends::new();
    let reset = bytes(|out| frame::put_reset(out, 1, ResetCode::Cancelled));
    let nonsense = bytes(|out| out.put_slice(b"GET / HTTP/1.1\r\n\r\n"));
    for (wrong, code) in [(reset, ErrorCode::Protocol), (nonsense, ErrorCode::Version)] {
        let ((connection, _endpoint), accepted) =
            tokio::join!(raw_connection(&ends), async { ends.server.accept().await.unwrap().await.unwrap() });
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&wrong).await.unwrap();
        assert!(soon(quic::accept(accepted, config(), LIMIT)).await.is_err());
        match soon(recv.read_chunk(10, true)).await {
            Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(closed))) => {
                assert_eq!(closed.error_code, VarInt::from_u32(code.to_u32()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn unknown_frames_are_skipped_within_their_budget() {
    let ends = Ends::new();
    let mut raw = Raw::new(&ends).await;
    let mut skipped = BytesMut::new();
    skipped.put_slice(&[1, 0x80, 0, 0, 0, 0x10, 0]);
    skipped.put_slice(&[7; 0x1000]);
    frame::put_ping(&mut skipped, *b"12345678");
    raw.control.0.write_all(&skipped).await.unwrap();
    assert_eq!(raw.read_frame().await, Frame::Pong(*b"12345678"));
    let mut long = BytesMut::new();
    for _ in 0..2 {
        long.put_slice(&[1, 0x80, 0, 0, 0x0F, 0xFF, 0xFF]);
        long.put_bytes(7, 0x000F_FFFF);
    }
    let (mut send, recv) = raw.control;
    let writer = tokio::spawn(async move { drop((send.write_all(&long).await, send)) });
    let (spare, _) = raw.connection.open_bi().await.unwrap();
    Raw { control: (spare, recv), ..raw }.ends_with(ErrorCode::Protocol).await;
    soon(writer).await.unwrap();
}
