//! Two multiplexers and the two ordered pipes between them, stepped by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use cok_proto::frame::{self, Frame};
use cok_proto::mux::{Config, Event, ExchangeKey, Mux};
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, ExchangeError, Received, RequestHead, ResponseHead, Role, Scheme, SessionError,
    WindowBudget,
};
use http::{HeaderMap, Method, StatusCode};

use crate::wire::Monitor;

/// The settings of both sides of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) daemon_window: u32,
    pub(crate) client_window: u32,
    pub(crate) max_exchanges: u32,
    /// Of each side.
    pub(crate) budget: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { daemon_window: 256 * 1024, client_window: 256 * 1024, max_exchanges: 100, budget: 1 << 20 }
    }
}

/// A daemon's and a client's side of one session.
pub(crate) struct Pair {
    pub(crate) daemon: Mux,
    pub(crate) client: Mux,
    pub(crate) to_client: VecDeque<Bytes>,
    pub(crate) to_daemon: VecDeque<Bytes>,
    pub(crate) daemon_budget: WindowBudget,
    pub(crate) client_budget: WindowBudget,
    pub(crate) now: Instant,
    /// Checks every message independently of the code under test.
    pub(crate) monitor: Monitor,
}

impl Pair {
    /// Before anything was sent.
    pub(crate) fn unconnected(setup: Setup) -> Self {
        let now = Instant::now();
        let (daemon_budget, client_budget) = (WindowBudget::new(setup.budget), WindowBudget::new(setup.budget));
        let connect = Connect {
            key: "key".to_owned(),
            instance: "instance".to_owned(),
            initial_window: setup.client_window,
            ..Connect::default()
        };
        Self {
            daemon: Mux::daemon(
                Config {
                    initial_window: setup.daemon_window,
                    max_exchanges: setup.max_exchanges,
                    budget: daemon_budget.clone(),
                },
                now,
            ),
            client: Mux::client(
                Config { initial_window: setup.client_window, max_exchanges: 0, budget: client_budget.clone() },
                &connect,
                &[],
                now,
            ),
            to_client: VecDeque::new(),
            to_daemon: VecDeque::new(),
            daemon_budget,
            client_budget,
            now,
            monitor: Monitor::default(),
        }
    }

    /// An established session with nothing under way.
    pub(crate) fn new(setup: Setup) -> Self {
        let mut pair = Self::unconnected(setup);
        pair.settle();
        assert!(matches!(pair.daemon.poll_event(), Some(Event::Connect(_))));
        pair.daemon.accept(&ack(setup), &[]);
        pair.settle();
        assert!(matches!(pair.client.poll_event(), Some(Event::Established(_))));
        pair
    }

    pub(crate) fn mux(&mut self, side: Role) -> &mut Mux {
        match side {
            Role::Daemon => &mut self.daemon,
            Role::Client => &mut self.client,
        }
    }

    /// Lets a side write one message into its pipe. `true` if it had one.
    pub(crate) fn transmit(&mut self, from: Role) -> bool {
        let mut out = BytesMut::new();
        if !self.mux(from).transmit(&mut out) {
            assert!(out.is_empty());
            return false;
        }
        let message = out.freeze();
        self.monitor.sent(from, &message);
        match from {
            Role::Daemon => self.to_client.push_back(message),
            Role::Client => self.to_daemon.push_back(message),
        }
        true
    }

    /// Hands a side the oldest message of its pipe. `None` if there is none.
    pub(crate) fn deliver(&mut self, to: Role) -> Option<Result<(), SessionError>> {
        let queue = match to {
            Role::Daemon => &mut self.to_daemon,
            Role::Client => &mut self.to_client,
        };
        let message = queue.pop_front()?;
        self.monitor.delivered(to, &message);
        let now = self.now;
        Some(self.mux(to).receive(message, now))
    }

    /// Transmits and delivers until nothing moves.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Role::Daemon, Role::Client] {
                moved |= self.transmit(side);
                while let Some(result) = self.deliver(side) {
                    result.expect("an honest peer breaks no rule");
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Takes all messages out of both sides and drops them.
    pub(crate) fn settle_silently(&mut self) {
        self.frames(Role::Daemon);
        self.frames(Role::Client);
    }

    /// Opens an exchange and returns its key on both sides.
    pub(crate) fn open(&mut self, end: bool) -> (ExchangeKey, ExchangeKey) {
        self.open_for(0, end)
    }

    /// Binds a tunnel. Drops the events.
    pub(crate) fn bind(&mut self, id: u32) {
        assert!(self.client.bind(id, &Bind::default()));
        self.settle();
        assert!(self.daemon.bound(id, bound(id)));
        self.settle();
        events(&mut self.daemon);
        events(&mut self.client);
    }

    /// Opens an exchange of a tunnel and returns its key on both sides.
    pub(crate) fn open_for(&mut self, tunnel: u32, end: bool) -> (ExchangeKey, ExchangeKey) {
        let daemon = self.daemon.open(tunnel, request("/"), end).unwrap();
        self.settle();
        (daemon, self.opened())
    }

    /// The newest exchange that an event of the client names. Drops other events.
    pub(crate) fn opened(&mut self) -> ExchangeKey {
        let opened = events(&mut self.client).into_iter().filter_map(|event| match event {
            Event::Opened { key, .. } => Some(key),
            _ => None,
        });
        opened.last().expect("a request arrived")
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// Feeds a side raw bytes instead of its peer's.
    pub(crate) fn inject(&mut self, to: Role, message: impl AsRef<[u8]>) -> Result<(), SessionError> {
        let now = self.now;
        self.mux(to).receive(Bytes::copy_from_slice(message.as_ref()), now)
    }

    /// Takes the frames that a side would send now. They are not delivered.
    pub(crate) fn frames(&mut self, from: Role) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let mut out = BytesMut::new();
            if !self.mux(from).transmit(&mut out) {
                return frames;
            }
            frames.extend(decode_all(out.freeze()));
        }
    }
}

pub(crate) fn ack(setup: Setup) -> ConnectAck {
    ConnectAck {
        session: "session".to_owned(),
        subdomain: Some("demo".to_owned()),
        url: Some("https://demo.tunnel.example.com".to_owned()),
        moved: 0,
        initial_window: setup.daemon_window,
        max_exchanges: setup.max_exchanges,
        features: Vec::new(),
    }
}

/// What a tunnel of this id is called in tests.
pub(crate) fn bound(id: u32) -> Bound {
    Bound { subdomain: format!("t{id}"), url: format!("https://t{id}.tunnel.example.com") }
}

pub(crate) fn request(target: &str) -> Arc<RequestHead> {
    Arc::new(RequestHead {
        method: Method::GET,
        target: target.parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.tunnel.example.com".parse().unwrap(),
        headers: HeaderMap::new(),
    })
}

pub(crate) fn response(status: u16) -> ResponseHead {
    ResponseHead::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new())
}

/// A response head without fields.
pub(crate) fn head_frame(id: u32, status: u16) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_response(&mut out, id, &response(status), false);
    out
}

pub(crate) fn data_frame(id: u32, length: usize, end: bool) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_data_header(&mut out, id, length, end);
    out.put_bytes(0x2a, length);
    out
}

pub(crate) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])
}

pub(crate) fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

pub(crate) fn decode_all(mut message: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !message.is_empty() {
        frames.push(Frame::decode(&mut message).unwrap().expect("whole frames"));
    }
    frames
}

/// Everything that the reader of an exchange can get now, with the bodies joined.
#[derive(Debug, Default)]
pub(crate) struct ReadAll {
    pub(crate) heads: Vec<ResponseHead>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) ended: bool,
    pub(crate) error: Option<ExchangeError>,
}

pub(crate) fn read_all(mux: &mut Mux, key: ExchangeKey) -> ReadAll {
    let mut all = ReadAll::default();
    while !all.ended {
        match mux.recv(key) {
            None => break,
            Some(Err(error)) => {
                all.error = Some(error);
                break;
            }
            Some(Ok(Received::Head { head, end })) => {
                all.heads.push(head);
                all.ended = end;
            }
            Some(Ok(Received::Data { data, end })) => {
                all.body.extend_from_slice(&data);
                all.ended = end;
            }
            Some(Ok(Received::Trailers(fields))) => {
                all.trailers = Some(fields);
                all.ended = true;
            }
        }
    }
    all
}
