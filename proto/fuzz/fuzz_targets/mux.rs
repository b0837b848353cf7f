//! Each side of an established multiplexer against a peer that sends anything at any time, while the owner uses its
//! exchanges. Nothing may panic, and unread bytes must stay within the granted windows.

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::{BufMut, Bytes, BytesMut};
use cok_proto::frame::{self, Frame, FrameType, MAX_MESSAGE};
use cok_proto::mux::{Config, Event, ExchangeKey, Mux};
use cok_proto::session::MAX_UNANSWERED;
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, Drain, DrainReason, ErrorCode, ErrorMessage, RequestHead, ResetCode, ResponseHead,
    Role, Scheme, TunnelFrame, Unbind, UnbindReason, WindowBudget,
};
use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;

const WINDOW: u32 = 20_000;
const BUDGET: usize = 100_000;
const MAX_EXCHANGES: u32 = 4;

#[derive(Arbitrary, Debug)]
struct Input {
    client: bool,
    peer_window: u16,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Receive(Vec<Sent>),
    ReceiveRaw(Vec<u8>),
    Open { tunnel: u8, end: bool },
    Bind { id: u8 },
    Answer { id: u8, granted: bool },
    Unbind { id: u8 },
    ResetTunnel { id: u8 },
    Head { exchange: u8, status: u16, end: bool },
    Send { exchange: u8, length: u16, end: bool },
    Trailers { exchange: u8 },
    Reset { exchange: u8, code: u32 },
    BreakOff { exchange: u8, code: u32 },
    ReleaseSend { exchange: u8 },
    ReleaseRecv { exchange: u8 },
    Read { exchange: u8, times: u8 },
    Transmit,
    Wait { millis: u16 },
    Drain,
}

/// A frame from the peer. Its id is small, so that it often names an exchange.
#[derive(Arbitrary, Debug)]
enum Sent {
    Request { id: u8, tunnel: u8, upgrade: bool, end: bool },
    Bind(u8),
    Bound(u8),
    Refused(u8),
    Unbind(u8),
    Response { id: u8, status: u16, end: bool },
    Data { id: u8, length: u16, end: bool },
    Trailers { id: u8 },
    Reset { id: u8, code: u32 },
    Break { id: u8, code: u32 },
    WindowUpdate { id: u8, increment: u32 },
    Drain,
    Ping(u8),
    Pong(u8),
    Unknown { kind: u8, length: u16 },
}

struct Held {
    key: ExchangeKey,
    send: bool,
    recv: bool,
    final_head: bool,
}

struct Side {
    mux: Mux,
    role: Role,
    budget: WindowBudget,
    now: Instant,
    held: Vec<Held>,
    opened: usize,
}

fuzz_target!(|input: Input| {
    let mut side = Side::new(input.client, u32::from(input.peer_window));
    for step in input.steps {
        side.step(step);
        side.check();
    }
    side.end();
});

impl Side {
    fn new(client: bool, peer_window: u32) -> Self {
        let now = Instant::now();
        let budget = WindowBudget::new(BUDGET);
        let config = Config { initial_window: WINDOW, max_exchanges: MAX_EXCHANGES, budget: budget.clone() };
        let connect = Connect { initial_window: peer_window, ..Connect::default() };
        let ack = ConnectAck {
            subdomain: Some("a".to_owned()),
            url: Some("https://a".to_owned()),
            initial_window: peer_window,
            max_exchanges: MAX_EXCHANGES,
            ..ConnectAck::default()
        };
        let mut hello = BytesMut::new();
        let mut mux;
        if client {
            mux = Mux::client(config, &connect, &[], now);
            frame::put_json(&mut hello, FrameType::ConnectAck, &ack);
            mux.receive(hello.freeze(), now).unwrap();
        } else {
            mux = Mux::daemon(config, now);
            frame::put_json(&mut hello, FrameType::Connect, &connect);
            mux.receive(hello.freeze(), now).unwrap();
            mux.accept(&ack, &[]);
        }
        let role = if client { Role::Client } else { Role::Daemon };
        Self { mux, role, budget, now, held: Vec::new(), opened: 0 }
    }

    fn choose(&mut self, pick: u8) -> Option<&mut Held> {
        let count = self.held.len();
        (count > 0).then(|| &mut self.held[usize::from(pick) % count])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Receive(frames) => {
                let mut message = BytesMut::new();
                frames.iter().for_each(|frame| put(&mut message, frame));
                self.receive(message.freeze());
            }
            Step::ReceiveRaw(bytes) => self.receive(bytes.into()),
            Step::Open { tunnel, end } => {
                if let Ok(key) = self.mux.open(tunnel.into(), request(tunnel % 2 == 1).into(), end) {
                    self.held.push(Held { key, send: true, recv: true, final_head: true });
                }
            }
            Step::Bind { id } => {
                self.mux.bind(id.into(), &Bind::default());
            }
            Step::Answer { id, granted: true } => {
                self.mux.bound(id.into(), bound());
            }
            Step::Answer { id, granted: false } => {
                self.mux.refuse_bind(id.into(), &refusal());
            }
            Step::Unbind { id } => {
                self.mux.unbind(id.into(), &unbind());
            }
            Step::ResetTunnel { id } => self.mux.reset_tunnel(id.into(), ResetCode::Cancelled),
            Step::Head { exchange, status, end } => {
                let client = self.role == Role::Client;
                let head = response(status);
                if let Some(held) = self.choose(exchange)
                    && held.send
                    && client
                {
                    held.final_head |= !head.is_interim();
                    let key = held.key;
                    self.mux.send_response(key, head, end).unwrap();
                }
            }
            Step::Send { exchange, length, end } => {
                if let Some(key) = self.writable(exchange) {
                    self.mux.send_data(key, Bytes::from(vec![1; length.into()]), end);
                }
            }
            Step::Trailers { exchange } => {
                if let Some(key) = self.writable(exchange) {
                    self.mux.send_trailers(key, HeaderMap::new()).unwrap();
                }
            }
            Step::Reset { exchange, code } => {
                if let Some(key) = self.choose(exchange).map(|held| held.key) {
                    self.mux.reset(key, code.into());
                }
            }
            Step::BreakOff { exchange, code } => {
                if let Some(key) = self.choose(exchange).filter(|held| held.send).map(|held| held.key) {
                    self.mux.break_off(key, code.into());
                }
            }
            Step::ReleaseSend { exchange } => {
                if let Some(key) =
                    self.choose(exchange).and_then(|held| std::mem::take(&mut held.send).then_some(held.key))
                {
                    self.mux.release_send(key);
                }
            }
            Step::ReleaseRecv { exchange } => {
                if let Some(key) =
                    self.choose(exchange).and_then(|held| std::mem::take(&mut held.recv).then_some(held.key))
                {
                    self.mux.release_recv(key);
                }
            }
            Step::Read { exchange, times } => {
                if let Some(key) = self.choose(exchange).filter(|held| held.recv).map(|held| held.key) {
                    for _ in 0..times {
                        if !matches!(self.mux.recv(key), Some(Ok(_))) {
                            break;
                        }
                    }
                }
            }
            Step::Transmit => {
                self.transmit();
            }
            Step::Wait { millis } => {
                self.now += Duration::from_millis(millis.into());
                let _ = self.mux.handle_timeout(self.now);
            }
            Step::Drain => self.mux.drain(DrainReason::Restart, Duration::from_secs(1), self.now),
        }
        self.held.retain(|held| held.send || held.recv);
    }

    fn receive(&mut self, message: Bytes) {
        let was_closed = self.mux.is_closed();
        if self.mux.receive(message, self.now).is_err() {
            assert!(!was_closed && self.mux.is_closed());
        }
    }

    fn writable(&mut self, exchange: u8) -> Option<ExchangeKey> {
        let key = self.choose(exchange).filter(|held| held.send && held.final_head).map(|held| held.key)?;
        (self.mux.send_ready(key) == Ok(true)).then_some(key)
    }

    fn transmit(&mut self) -> bool {
        let mut out = BytesMut::new();
        if !self.mux.transmit(&mut out) {
            return false;
        }
        assert!(!out.is_empty() && out.len() <= MAX_MESSAGE);
        let mut out = out.freeze();
        while !out.is_empty() {
            Frame::decode(&mut out).expect("we send what is valid").expect("and it is whole");
        }
        true
    }

    fn check(&mut self) {
        let mut events = 0;
        while let Some(event) = self.mux.poll_event() {
            events += 1;
            if let Event::Opened { key, .. } = event {
                self.opened += 1;
                self.held.push(Held { key, send: true, recv: true, final_head: false });
            }
        }
        let slots = 2 * MAX_EXCHANGES as usize;
        assert!(self.held.len() <= slots);
        assert!(events <= 3 * slots + 4 + 2 * MAX_UNANSWERED + 256, "{events} events");
        let granted = self.held.len() * WINDOW as usize + BUDGET - self.budget.available();
        assert!(self.mux.unread_bytes() <= granted);
        assert!(self.mux.open_exchanges() <= MAX_EXCHANGES as usize || self.role == Role::Client);
    }

    fn end(mut self) {
        let mut messages = 0;
        while self.transmit() {
            messages += 1;
            assert!(messages < 2000, "what waits to go out is bounded");
        }
        self.check();
        self.mux.close();
        while self.transmit() {}
        let keys: Vec<ExchangeKey> = self.held.iter().map(|held| held.key).collect();
        for held in std::mem::take(&mut self.held) {
            if held.send {
                self.mux.release_send(held.key);
            }
            if held.recv {
                self.mux.release_recv(held.key);
            }
        }
        assert_eq!((self.mux.open_exchanges(), self.mux.unread_bytes()), (0, 0));
        assert_eq!(self.budget.available(), BUDGET);
        assert!(keys.iter().all(|key| self.mux.recv(*key).is_none()), "every slot is free");
    }
}

fn put(out: &mut BytesMut, frame: &Sent) {
    match *frame {
        Sent::Request { id, tunnel, upgrade, end } => {
            frame::put_request(out, id.into(), tunnel.into(), &request(upgrade), end);
        }
        Sent::Bind(id) => frame::put_tunnel(out, id.into(), &TunnelFrame::Bind(Bind::default())),
        Sent::Bound(id) => frame::put_tunnel(out, id.into(), &TunnelFrame::Bound(bound())),
        Sent::Refused(id) => frame::put_tunnel(out, id.into(), &TunnelFrame::Refused(refusal())),
        Sent::Unbind(id) => frame::put_tunnel(out, id.into(), &TunnelFrame::Unbind(unbind())),
        Sent::Response { id, status, end } => frame::put_response(out, id.into(), &response(status), end),
        Sent::Data { id, length, end } => {
            let length = usize::from(length % 16_000);
            frame::put_data_header(out, id.into(), length, end);
            out.put_bytes(0, length);
        }
        Sent::Trailers { id } => frame::put_trailers(out, id.into(), &HeaderMap::new()),
        Sent::Reset { id, code } => frame::put_reset(out, id.into(), code.into()),
        Sent::Break { id, code } => frame::put_break(out, id.into(), code.into()),
        Sent::WindowUpdate { id, increment } => frame::put_window_update(out, id.into(), increment),
        Sent::Drain => {
            let drain = Drain { reason: DrainReason::Restart, deadline_ms: u64::MAX, last_exchange: None };
            frame::put_json(out, FrameType::Drain, &drain);
        }
        Sent::Ping(opaque) => frame::put_ping(out, [opaque; 8]),
        Sent::Pong(opaque) => frame::put_pong(out, [0, 0, 0, 0, 0, 0, 0, opaque]),
        Sent::Unknown { kind, length } => {
            out.put_slice(&[1, kind | 0x80, 0, 0, 0]);
            out.put_u16(length);
            out.put_bytes(0, length.into());
        }
    }
}

fn bound() -> Bound {
    Bound { subdomain: "a".to_owned(), url: "https://a".to_owned() }
}

fn refusal() -> ErrorMessage {
    ErrorMessage { code: ErrorCode::NameTaken, message: String::new(), retryable: true }
}

fn unbind() -> Unbind {
    Unbind::new(UnbindReason::Closed, Duration::ZERO)
}

fn request(upgrade: bool) -> RequestHead {
    let mut headers = HeaderMap::new();
    if upgrade {
        headers.insert("upgrade", http::HeaderValue::from_static("raw"));
    }
    RequestHead {
        method: Method::GET,
        target: cok_proto::Target::root(),
        scheme: Scheme::Https,
        authority: http::uri::Authority::from_static("a"),
        headers,
    }
}

/// One of the statuses that the multiplexer treats differently.
fn response(status: u16) -> ResponseHead {
    let status = [200, 103, 101, 204][usize::from(status % 4)];
    ResponseHead::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new())
}
