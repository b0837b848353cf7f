//! The byte-exact vectors: valid ones decode to their meaning, invalid ones are refused, and the specification shows
//! all.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

#[path = "support/encode.rs"]
mod encode;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cok_proto::frame::Frame;
use cok_proto::mux::{Config, Mux};
use cok_proto::rate::Rate;
use cok_proto::rules::parse_network;
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, Drain, DrainReason, ErrorCode, ErrorMessage, RequestHead, ResetCode,
    ResponseHead, Rules, Scheme, SessionError, TunnelFrame, Unbind, UnbindReason, WindowBudget,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

const VALID: &str = include_str!("../vectors/valid.json");
const INVALID: &str = include_str!("../vectors/invalid.json");
const SPECIFICATION: &str = include_str!("../PROTOCOL.md");

#[derive(Deserialize)]
struct Valid {
    name: String,
    hex: String,
    meaning: String,
}

#[derive(Deserialize)]
struct Invalid {
    name: String,
    to: String,
    state: String,
    hex: String,
    error: ErrorCode,
    meaning: String,
}

fn valid() -> Vec<Valid> {
    serde_json::from_str(VALID).unwrap()
}

fn invalid() -> Vec<Invalid> {
    serde_json::from_str(INVALID).unwrap()
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn fields(fields: &[(&str, &[u8])]) -> HeaderMap {
    let parse = |(name, value): &(&str, &[u8])| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    fields.iter().map(parse).collect()
}

/// The meaning of each valid vector.
fn expected() -> BTreeMap<&'static str, Frame> {
    let authority = "demo.tunnel.example.com".parse().unwrap();
    let get = RequestHead {
        method: Method::GET,
        target: "/a%20b?q=1".parse().unwrap(),
        scheme: Scheme::Https,
        authority,
        headers: fields(&[("accept", b"*/*"), ("x-empty", b"")]),
    };
    let upgrade = RequestHead {
        target: "/chat".parse().unwrap(),
        headers: fields(&[("upgrade", b"websocket"), ("sec-websocket-version", b"13")]),
        ..get.clone()
    };
    let options = RequestHead {
        method: Method::OPTIONS,
        target: "*".parse().unwrap(),
        scheme: Scheme::Http,
        headers: HeaderMap::new(),
        ..get.clone()
    };
    let head =
        |status, headers: &[(&str, &[u8])]| ResponseHead::new(StatusCode::from_u16(status).unwrap(), fields(headers));
    BTreeMap::from([
        (
            "connect",
            Frame::Connect(Connect {
                key: "ck_0123456789".to_owned(),
                tunnel: true,
                subdomain: Some("demo".to_owned()),
                instance: "4f6c1d".to_owned(),
                replaces: Some("s-41".to_owned()),
                initial_window: 262_144,
                version: "cok-client 0.1.0".to_owned(),
                features: Vec::new(),
                fallback: None,
            }),
        ),
        (
            "connect-ack",
            Frame::ConnectAck(ConnectAck {
                session: "s-42".to_owned(),
                subdomain: Some("demo".to_owned()),
                url: Some("https://demo.tunnel.example.com".to_owned()),
                moved: 0,
                initial_window: 262_144,
                max_exchanges: 1000,
                features: Vec::new(),
            }),
        ),
        (
            "connect-no-tunnel",
            Frame::Connect(Connect {
                key: "ck_0123456789".to_owned(),
                tunnel: false,
                instance: "4f6c1d".to_owned(),
                ..Connect::default()
            }),
        ),
        ("connect-ack-no-tunnel", Frame::ConnectAck(ack("s-42", 0))),
        ("connect-ack-moved", Frame::ConnectAck(ack("s-43", 2))),
        (
            "drain-daemon",
            Frame::Drain(Drain { reason: DrainReason::Restart, deadline_ms: 30_000, last_exchange: Some(7) }),
        ),
        (
            "drain-client",
            Frame::Drain(Drain { reason: DrainReason::Shutdown, deadline_ms: 5_000, last_exchange: None }),
        ),
        ("bind", tunnel(1, TunnelFrame::Bind(Bind::default()))),
        (
            "bind-full",
            tunnel(
                2,
                TunnelFrame::Bind(Bind {
                    subdomain: Some("api".to_owned()),
                    rules: serde_json::json!({"basic_auth": ["a:b"]}),
                    take_over: false,
                    ..Bind::default()
                }),
            ),
        ),
        (
            "bind-rules",
            tunnel(
                3,
                TunnelFrame::Bind(Bind {
                    subdomain: Some("api".to_owned()),
                    rules: rules().to_value(),
                    ..Bind::default()
                }),
            ),
        ),
        (
            "bound",
            tunnel(
                2,
                TunnelFrame::Bound(Bound {
                    subdomain: "api".to_owned(),
                    url: "https://api.tunnel.example.com".to_owned(),
                }),
            ),
        ),
        ("refused", tunnel(2, refused(ErrorCode::NameTaken, "api is in use", true))),
        (
            "refused-unsupported",
            tunnel(2, refused(ErrorCode::Unsupported, "the rule \"basic_auth\" is not supported", false)),
        ),
        ("unbind", unbind(2, Unbind::new(UnbindReason::Closed, Duration::from_secs(5)))),
        (
            "unbind-replaced",
            unbind(
                0,
                Unbind {
                    address: Some("192.0.2.7:4711".to_owned()),
                    version: Some("cok-client 0.1.0".to_owned()),
                    ..Unbind::new(UnbindReason::Replaced, Duration::from_secs(30))
                },
            ),
        ),
        ("unbind-revoked", unbind(1 << 31, Unbind::new(UnbindReason::Revoked, Duration::ZERO))),
        ("request", Frame::Request { id: 1, tunnel: 0, head: get.clone(), end: true }),
        ("request-upgrade", Frame::Request { id: 2, tunnel: 0, head: upgrade, end: false }),
        ("request-options", Frame::Request { id: 3, tunnel: 0, head: options, end: true }),
        ("request-tunnel", Frame::Request { id: 4, tunnel: 2, head: post(), end: false }),
        ("response-interim", Frame::Response { id: 1, head: head(103, &[("link", b"</a.css>")]), end: false }),
        (
            "response",
            Frame::Response {
                id: 1,
                head: head(200, &[("set-cookie", b"a=1"), ("set-cookie", b"b=2"), ("x-name", b"caf\xe9 \xff\x80")]),
                end: false,
            },
        ),
        ("response-no-body", Frame::Response { id: 1, head: head(204, &[]), end: true }),
        (
            "response-reason",
            Frame::Response {
                id: 1,
                head: ResponseHead {
                    reason: Bytes::from_static(b"Not here"),
                    first_byte: Some(Duration::from_micros(1500)),
                    ..head(404, &[])
                },
                end: true,
            },
        ),
        ("data", Frame::Data { id: 1, body: Bytes::from_static(b"hello"), end: false }),
        ("data-end", Frame::Data { id: 1, body: Bytes::from_static(b"bye"), end: true }),
        ("data-empty-end", Frame::Data { id: 0x7fff_ffff, body: Bytes::new(), end: true }),
        ("trailers", Frame::Trailers { id: 1, fields: fields(&[("grpc-status", b"0")]) }),
        ("trailers-empty", Frame::Trailers { id: 1, fields: HeaderMap::new() }),
        ("reset-no-error", Frame::Reset { id: 1, code: ResetCode::NoError }),
        ("reset-cancelled", Frame::Reset { id: 1, code: ResetCode::Cancelled }),
        ("reset-unprocessed", Frame::Reset { id: 1, code: ResetCode::Unprocessed }),
        ("reset-local-refused", Frame::Reset { id: 1, code: ResetCode::LocalRefused }),
        ("reset-local-timeout", Frame::Reset { id: 1, code: ResetCode::LocalTimeout }),
        ("reset-local-broken", Frame::Reset { id: 1, code: ResetCode::LocalBroken }),
        ("reset-too-large", Frame::Reset { id: 1, code: ResetCode::TooLarge }),
        ("reset-local-unresolved", Frame::Reset { id: 1, code: ResetCode::LocalUnresolved }),
        ("reset-local-untrusted", Frame::Reset { id: 1, code: ResetCode::LocalUntrusted }),
        ("reset-local-mismatch", Frame::Reset { id: 1, code: ResetCode::LocalMismatch }),
        ("reset-local-invalid", Frame::Reset { id: 1, code: ResetCode::LocalInvalid }),
        ("break-local-broken", Frame::Break { id: 1, code: ResetCode::LocalBroken }),
        ("break-cancelled", Frame::Break { id: 1, code: ResetCode::Cancelled }),
        ("window-update", Frame::WindowUpdate { id: 1, increment: 131_072 }),
        ("ping", Frame::Ping(*b"\x01\x02\x03\x04\x05\x06\x07\x08")),
        ("pong", Frame::Pong(*b"\x01\x02\x03\x04\x05\x06\x07\x08")),
        (
            "error",
            Frame::Error(ErrorMessage {
                code: ErrorCode::NameTaken,
                message: "demo is in use".to_owned(),
                retryable: false,
            }),
        ),
    ])
}

fn ack(session: &str, moved: u32) -> ConnectAck {
    ConnectAck {
        session: session.to_owned(),
        moved,
        initial_window: 262_144,
        max_exchanges: 1000,
        ..ConnectAck::default()
    }
}

fn tunnel(id: u32, frame: TunnelFrame) -> Frame {
    Frame::Tunnel { id, frame }
}

fn refused(code: ErrorCode, message: &str, retryable: bool) -> TunnelFrame {
    TunnelFrame::Refused(ErrorMessage { code, message: message.to_owned(), retryable })
}

fn unbind(id: u32, unbind: Unbind) -> Frame {
    tunnel(id, TunnelFrame::Unbind(unbind))
}

fn rules() -> Rules {
    let networks = |texts: &[&str]| texts.iter().map(|text| parse_network(text).unwrap()).collect();
    Rules {
        basic_auth: vec!["me:secret".parse().unwrap()],
        allow_cidr: networks(&["192.0.2.0/24", "2001:db8::/32"]),
        deny_cidr: networks(&["192.0.2.7"]),
        allow_path: vec!["/hooks".parse().unwrap()],
        share: Some("0123456789abcdef".repeat(4).parse().unwrap()),
        share_revoked: Vec::new(),
        rate: Some(Rate::new(10, 50)),
    }
}

fn post() -> RequestHead {
    RequestHead {
        method: Method::POST,
        target: "/".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.tunnel.example.com".parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

#[test]
fn valid_vectors_decode_to_their_meaning_and_back() {
    let mut expected = expected();
    for vector in valid() {
        let bytes = unhex(&vector.hex);
        let mut rest = bytes.clone();
        let frame = Frame::decode(&mut rest).unwrap().expect("whole");
        assert!(rest.is_empty(), "{}", vector.name);
        let expected = expected.remove(vector.name.as_str()).unwrap_or_else(|| panic!("{} is unknown", vector.name));
        assert_eq!(frame, expected, "{}", vector.name);
        let mut encoded = BytesMut::new();
        assert!(encode::encode(&mut encoded, &frame));
        assert_eq!(hex(&encoded), vector.hex, "{}", vector.name);
        for length in 0..bytes.len() {
            assert_eq!(Frame::decode(&mut bytes.slice(..length)), Ok(None), "{} of {length} bytes", vector.name);
        }
    }
    assert!(expected.is_empty(), "no vectors for {:?}", expected.keys());
}

/// One side in the state that a vector names.
fn side(to: &str, state: &str) -> Mux {
    let now = Instant::now();
    let window = 8;
    let config = Config { initial_window: window, max_exchanges: 2, budget: WindowBudget::new(0) };
    let connect = Connect { initial_window: window, ..Connect::default() };
    let ack = ConnectAck {
        subdomain: Some("demo".to_owned()),
        url: Some("https://demo.tunnel.example.com".to_owned()),
        initial_window: window,
        max_exchanges: 2,
        ..ConnectAck::default()
    };
    let mut head = post();
    if state == "upgrade" {
        head.headers.insert("upgrade", HeaderValue::from_static("x"));
    }
    let receive = |mux: &mut Mux, frame: &Frame| {
        let mut bytes = BytesMut::new();
        encode::encode(&mut bytes, frame);
        mux.receive(bytes.freeze(), now).unwrap();
    };
    let mut mux = match to {
        "daemon" => Mux::daemon(config, now),
        _ => Mux::client(config, &connect, &[], now),
    };
    if state != "new" {
        if to == "daemon" {
            receive(&mut mux, &Frame::Connect(connect));
            mux.accept(&ack, &[]);
        } else {
            receive(&mut mux, &Frame::ConnectAck(ack));
        }
    }
    match (to, state) {
        ("client", "asked") => assert!(mux.bind(1, &Bind::default())),
        ("daemon", "exchange" | "upgrade") => drop(mux.open(0, head.into(), false).unwrap()),
        (_, "exchange") => receive(&mut mux, &Frame::Request { id: 1, tunnel: 0, head, end: false }),
        _ => assert!(["new", "established"].contains(&state), "{state}"),
    }
    mux.transmit(&mut BytesMut::new());
    mux
}

#[test]
fn invalid_vectors_are_refused_with_their_code() {
    for vector in invalid() {
        assert!(["daemon", "client"].contains(&vector.to.as_str()), "{}", vector.name);
        let mut mux = side(&vector.to, &vector.state);
        let result = mux.receive(unhex(&vector.hex), Instant::now());
        let Err(SessionError::Protocol(error)) = result else { panic!("{}: {result:?}", vector.name) };
        assert_eq!(error.code(), vector.error, "{}: {error}", vector.name);
        let mut answer = BytesMut::new();
        assert!(mux.transmit(&mut answer), "{}", vector.name);
        let answer = Frame::decode(&mut answer.freeze());
        let Ok(Some(Frame::Error(sent))) = answer else { panic!("{}: {answer:?}", vector.name) };
        assert_eq!(sent.code, vector.error);
    }
}

#[test]
fn the_specification_shows_every_vector() {
    for row in valid().iter().map(valid_row).chain(invalid().iter().map(invalid_row)) {
        assert!(SPECIFICATION.contains(&row), "PROTOCOL.md lacks this row:\n{row}");
    }
}

fn valid_row(vector: &Valid) -> String {
    format!("| {} | {} | `{}` |", vector.name, vector.meaning, vector.hex)
}

fn invalid_row(vector: &Invalid) -> String {
    let Invalid { name, to, state, hex, error, meaning } = vector;
    format!("| {name} | {to}, {state} | {meaning} | `{error}` | `{hex}` |")
}
