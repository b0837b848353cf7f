//! A random walk of both sides against a simple model.
//!
//! The walk binds and unbinds tunnels. It opens, answers, reads, breaks off, abandons and releases exchanges at any
//! time, and delays messages at will. After every step, four things must hold. No honest side has broken a rule; the monitor and both multiplexers judge that.
//! What was read is what was written. No more is unread than the windows allow. No waiting task was forgotten. At the
//! end, all memory and credit has been returned.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::exchange::LINGER;
use cok_proto::mux::{Event, ExchangeKey};
use cok_proto::session::MAX_UNANSWERED;
use cok_proto::{
    Bind, DrainReason, ErrorCode, ErrorMessage, ExchangeError, OpenError, Received, ResetCode, Role, TunnelFrame,
    Unbind, UnbindReason,
};
use proptest::prelude::*;

use crate::pair::{Pair, Setup, bound, events, request, response, trailers};

#[derive(Clone, Copy, Debug)]
enum Op {
    Open {
        tunnel: u8,
        end: bool,
    },
    Bind {
        skipped: u8,
    },
    Answer {
        tunnel: u8,
        granted: bool,
    },
    Unbind {
        side: Side,
        tunnel: u8,
    },
    Head {
        exchange: u8,
        interim: bool,
        end: bool,
    },
    Send {
        side: Side,
        exchange: u8,
        length: usize,
        end: bool,
    },
    Trailers {
        side: Side,
        exchange: u8,
    },
    BreakOff {
        side: Side,
        exchange: u8,
        code: u32,
    },
    Reset {
        side: Side,
        exchange: u8,
        code: u32,
    },
    ReleaseSend {
        side: Side,
        exchange: u8,
    },
    ReleaseRecv {
        side: Side,
        exchange: u8,
    },
    Read {
        side: Side,
        exchange: u8,
        times: u8,
    },
    Transmit {
        side: Side,
    },
    Deliver {
        side: Side,
    },
    /// All messages in flight arrive, and those that they cause.
    Settle,
    Wait {
        millis: u64,
    },
    Drain {
        side: Side,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Daemon,
    Client,
}

impl Side {
    fn role(self) -> Role {
        match self {
            Self::Daemon => Role::Daemon,
            Self::Client => Role::Client,
        }
    }

    fn peer(self) -> Self {
        match self {
            Self::Daemon => Self::Client,
            Self::Client => Self::Daemon,
        }
    }
}

const SIDES: [Side; 2] = [Side::Daemon, Side::Client];

/// How a walk ends.
#[derive(Clone, Copy, Debug)]
enum Finale {
    /// All exchanges finish, then this side drains the session.
    Finish(Side),
    /// Both sides release their handles, then this side drains the session.
    LetGo(Side),
    /// This side fails with an Error.
    Fail(Side),
    /// The pipe breaks.
    Break,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Plain,
    Trailers,
    Break(ResetCode),
}

/// One side's part in an exchange.
#[derive(Debug, Default)]
struct Part {
    /// While a handle is held.
    key: Option<ExchangeKey>,
    send_handle: bool,
    recv_handle: bool,

    sent: usize,
    sent_end: Option<End>,
    heads_sent: Vec<u16>,

    received: usize,
    received_end: Option<End>,
    heads_received: Vec<u16>,
    error: Option<ExchangeError>,

    /// It waits for an event, and must find nothing before that.
    waits_to_read: bool,
    waits_to_write: bool,
    known_broken: bool,
}

/// What both owners know of a tunnel.
#[derive(Debug, Default)]
struct Tunnel {
    /// The daemon's owner has the Bind and has not answered.
    waits: bool,
    /// The daemon has granted it.
    bound: bool,
    /// The side knows it, and it has not ended there.
    lives: [bool; 2],
}

#[derive(Debug, Default)]
struct Exchange {
    tunnel: u32,
    parts: [Part; 2],
    /// A side abandoned it, so it may be incomplete.
    abandoned: bool,
}

impl Exchange {
    fn part(&mut self, side: Side) -> &mut Part {
        &mut self.parts[side as usize]
    }
}

struct Walk {
    setup: Setup,
    pair: Pair,
    exchanges: Vec<Exchange>,
    tunnels: BTreeMap<u32, Tunnel>,
    binds: usize,
    /// For each side, the exchange that a key names at the moment.
    current: [HashMap<ExchangeKey, usize>; 2],
    keys: [Vec<ExchangeKey>; 2],
    heard: [std::time::Instant; 2],
    drained: bool,
}

impl Walk {
    fn new(setup: Setup) -> Self {
        let pair = Pair::new(setup);
        Self {
            setup,
            heard: [pair.now; 2],
            pair,
            exchanges: Vec::new(),
            tunnels: BTreeMap::from([(0, Tunnel { bound: true, lives: [true; 2], ..Tunnel::default() })]),
            binds: 0,
            current: Default::default(),
            keys: Default::default(),
            drained: false,
        }
    }

    /// The `pick`th exchange of which `side` holds the wanted handle.
    fn choose(&mut self, side: Side, pick: u8, holds: impl Fn(&Part) -> bool) -> Option<(usize, ExchangeKey)> {
        let candidates: Vec<_> =
            (0..self.exchanges.len()).filter(|index| holds(&self.exchanges[*index].parts[side as usize])).collect();
        let index = *candidates.get(usize::from(pick) % candidates.len().max(1))?;
        Some((index, self.exchanges[index].parts[side as usize].key?))
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Open { tunnel, end } => self.open(tunnel, end),
            Op::Bind { skipped } => self.bind(skipped),
            Op::Answer { tunnel, granted } => self.answer(tunnel, granted),
            Op::Unbind { side, tunnel } => self.unbind(side, tunnel),
            Op::Head { exchange, interim, end } => {
                if let Some((index, _)) = self.choose(Side::Client, exchange, |part| part.send_handle) {
                    self.head(index, interim, end);
                }
            }
            Op::Send { side, exchange, length, end } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.send_handle) {
                    self.send(side, index, length, end);
                }
            }
            Op::Trailers { side, exchange } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.send_handle) {
                    self.trailers(side, index);
                }
            }
            Op::BreakOff { side, exchange, code } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.send_handle) {
                    self.break_off(side, index, code.into());
                }
            }
            Op::Reset { side, exchange, code } => {
                if let Some((index, key)) = self.choose(side, exchange, |part| part.key.is_some()) {
                    self.exchanges[index].abandoned = true;
                    self.pair.mux(side.role()).reset(key, code.into());
                }
            }
            Op::ReleaseSend { side, exchange } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.send_handle) {
                    self.release_send(side, index);
                }
            }
            Op::ReleaseRecv { side, exchange } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.recv_handle) {
                    self.release_recv(side, index);
                }
            }
            Op::Read { side, exchange, times } => {
                if let Some((index, _)) = self.choose(side, exchange, |part| part.recv_handle) {
                    for _ in 0..times {
                        if !self.read(side, index) {
                            break;
                        }
                    }
                }
            }
            Op::Transmit { side } => {
                self.pair.transmit(side.role());
            }
            Op::Deliver { side } => self.deliver(side),
            Op::Settle => self.settle(),
            Op::Wait { millis } => self.wait(Duration::from_millis(millis)),
            Op::Drain { side } => self.drain(side),
        }
        self.check();
    }

    /// The `pick`th tunnel that is as wanted.
    fn pick_tunnel(&self, pick: u8, wanted: impl Fn(&Tunnel) -> bool) -> Option<u32> {
        let ids: Vec<u32> = self.tunnels.iter().filter(|(_, tunnel)| wanted(tunnel)).map(|(id, _)| *id).collect();
        ids.get(usize::from(pick) % ids.len().max(1)).copied()
    }

    fn bind(&mut self, skipped: u8) {
        let id = self.tunnels.last_key_value().map_or(0, |(id, _)| *id) + 1 + u32::from(skipped % 3);
        if self.pair.client.bind(id, &Bind::default()) {
            self.tunnels.insert(id, Tunnel { lives: [false, true], ..Tunnel::default() });
            self.binds += 1;
        } else {
            assert!(self.drained || self.binds >= MAX_UNANSWERED);
        }
    }

    fn answer(&mut self, pick: u8, granted: bool) {
        let Some(id) = self.pick_tunnel(pick, |tunnel| tunnel.waits) else { return };
        let daemon = &mut self.pair.daemon;
        let refusal = ErrorMessage { code: ErrorCode::NameTaken, message: "in use".to_owned(), retryable: true };
        let counts = if granted { daemon.bound(id, bound(id)) } else { daemon.refuse_bind(id, &refusal) };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        assert_eq!(counts, tunnel.lives[0], "the owner learns whether the tunnel has ended meanwhile");
        tunnel.waits = false;
        tunnel.bound = granted && counts;
        tunnel.lives[0] = tunnel.bound;
    }

    fn unbind(&mut self, side: Side, pick: u8) {
        let Some(id) = self.pick_tunnel(pick, |tunnel| tunnel.lives[side as usize]) else { return };
        let unbind = Unbind::new(UnbindReason::Closed, Duration::from_secs(1));
        assert!(self.pair.mux(side.role()).unbind(id, &unbind) && !self.pair.mux(side.role()).unbind(id, &unbind));
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.lives[side as usize] = false;
        }
    }

    /// A side hears of a tunnel. It hears nothing of one that has ended there.
    fn hear(&mut self, side: Side, id: u32, frame: &TunnelFrame) {
        let tunnel = self.tunnels.get_mut(&id).expect("asked for");
        let lives = &mut tunnel.lives[side as usize];
        match (side, frame) {
            (Side::Daemon, TunnelFrame::Bind(_)) => {
                assert!(!std::mem::replace(lives, true) && !std::mem::replace(&mut tunnel.waits, true));
            }
            (Side::Client, TunnelFrame::Bound(_)) => assert!(*lives),
            (Side::Client, TunnelFrame::Refused(_)) | (_, TunnelFrame::Unbind(_)) => {
                assert!(std::mem::replace(lives, false));
            }
            _ => panic!("{frame:?} from the wrong side"),
        }
    }

    fn open(&mut self, pick: u8, end: bool) {
        let index = self.exchanges.len();
        let Some(tunnel) = self.pick_tunnel(pick, |_| true) else { return };
        let online = self.tunnels.get(&tunnel).is_some_and(|tunnel| tunnel.bound && tunnel.lives[0]);
        match self.pair.daemon.open(tunnel, request(&format!("/{index}")), end) {
            Ok(key) => {
                assert!(online);
                let mut exchange = Exchange { tunnel, ..Exchange::default() };
                *exchange.part(Side::Daemon) = Part {
                    key: Some(key),
                    send_handle: true,
                    recv_handle: true,
                    sent_end: end.then_some(End::Plain),
                    ..Part::default()
                };
                self.exchanges.push(exchange);
                self.hold(Side::Daemon, key, index);
            }
            Err(OpenError::Saturated) => assert!(online),
            Err(OpenError::Unbound) => assert!(!online),
            Err(error) => assert!(self.drained && error == OpenError::Unavailable),
        }
    }

    fn hold(&mut self, side: Side, key: ExchangeKey, index: usize) {
        let before = self.current[side as usize].insert(key, index);
        let holder = before.map(|before| self.exchanges[before].part(side).key);
        assert!(holder.is_none_or(|holder| holder != Some(key)) || before == Some(index), "a slot with two owners");
        self.keys[side as usize].push(key);
    }

    fn head(&mut self, index: usize, interim: bool, end: bool) {
        let part = self.exchanges[index].part(Side::Client);
        let Some(key) = part.key else { return };
        let status = if interim { 103 } else { 200 };
        if part.heads_sent.contains(&200) || self.pair.client.send_ready(key).is_err() {
            return;
        }
        if !interim || part.heads_sent.len() < 16 {
            part.heads_sent.push(status);
        }
        part.sent_end = (end && !interim).then_some(End::Plain);
        self.pair.client.send_response(key, response(status), end).unwrap();
    }

    /// Whether the part may write a body now, asked as an honest caller does.
    fn may_write(&mut self, side: Side, index: usize) -> Option<ExchangeKey> {
        let part = self.exchanges[index].part(side);
        let key = part.key?;
        if part.sent_end.is_some() || (side == Side::Client && !part.heads_sent.contains(&200)) {
            return None;
        }
        let ready = self.pair.mux(side.role()).send_ready(key);
        let part = self.exchanges[index].part(side);
        part.waits_to_write = ready == Ok(false);
        (ready == Ok(true)).then_some(key)
    }

    fn send(&mut self, side: Side, index: usize, length: usize, end: bool) -> bool {
        let Some(key) = self.may_write(side, index) else { return false };
        let part = self.exchanges[index].part(side);
        let data: Bytes = (part.sent..part.sent + length).map(|offset| pattern(side, index, offset)).collect();
        part.sent += length;
        part.sent_end = end.then_some(End::Plain);
        self.pair.mux(side.role()).send_data(key, data, end);
        true
    }

    fn trailers(&mut self, side: Side, index: usize) {
        if let Some(key) = self.may_write(side, index) {
            self.exchanges[index].part(side).sent_end = Some(End::Trailers);
            self.pair.mux(side.role()).send_trailers(key, trailers()).unwrap();
        }
    }

    fn break_off(&mut self, side: Side, index: usize, code: ResetCode) {
        let begun = match side {
            Side::Daemon => self.pair.monitor.knows_target(index),
            Side::Client => self.exchanges[index].part(side).heads_sent.contains(&200),
        };
        let exchange = &mut self.exchanges[index];
        let part = exchange.part(side);
        let Some(key) = part.key else { return };
        part.waits_to_write = false;
        if part.sent_end.is_none() {
            part.sent_end = Some(End::Break(code.or_cancelled()));
            exchange.abandoned |= !begun;
        }
        self.pair.mux(side.role()).break_off(key, code);
    }

    fn release_send(&mut self, side: Side, index: usize) {
        let exchange = &mut self.exchanges[index];
        let part = exchange.part(side);
        let Some(key) = part.key else { return };
        part.send_handle = false;
        part.waits_to_write = false;
        let finished = part.sent_end.is_some();
        if !part.recv_handle {
            part.key = None;
        }
        exchange.abandoned |= !finished;
        self.pair.mux(side.role()).release_send(key);
    }

    fn release_recv(&mut self, side: Side, index: usize) {
        let exchange = &mut self.exchanges[index];
        let part = exchange.part(side);
        let Some(key) = part.key else { return };
        part.recv_handle = false;
        part.waits_to_read = false;
        let ended = part.received_end.is_some();
        if !part.send_handle {
            part.key = None;
        }
        exchange.abandoned |= !ended;
        self.pair.mux(side.role()).release_recv(key);
    }

    /// Reads once. `true` if there was anything.
    fn read(&mut self, side: Side, index: usize) -> bool {
        let Some(key) = self.exchanges[index].part(side).key else { return false };
        if self.exchanges[index].part(side).received_end.is_some() {
            return false;
        }
        let received = self.pair.mux(side.role()).recv(key);
        let exchange = &mut self.exchanges[index];
        let abandoned = exchange.abandoned;
        let written = &exchange.parts[side.peer() as usize];
        let (written, written_end, heads) = (written.sent, written.sent_end, written.heads_sent.clone());
        let part = exchange.part(side);
        assert!(received.is_none() || !part.waits_to_read, "a waiting reader got no event");
        match received {
            None => part.waits_to_read = true,
            Some(Err(error)) => {
                if !abandoned && let (Some(End::Break(code)), ExchangeError::Reset(reset)) = (written_end, error) {
                    assert_eq!((part.received, reset), (written, code), "all that was sent comes before the break");
                    assert_eq!(part.heads_received, heads);
                }
                let first = part.error.replace(error).is_none();
                return first;
            }
            Some(Ok(Received::Head { head, end })) => {
                part.heads_received.push(head.status.as_u16());
                assert!(heads.starts_with(&part.heads_received));
                part.received_end = end.then_some(End::Plain);
            }
            Some(Ok(Received::Data { data, end })) => {
                for (offset, byte) in data.iter().enumerate() {
                    assert_eq!(*byte, pattern(side.peer(), index, part.received + offset));
                }
                part.received += data.len();
                part.received_end = end.then_some(End::Plain);
                assert!(end || !data.is_empty());
            }
            Some(Ok(Received::Trailers(fields))) => {
                assert_eq!(fields, trailers());
                part.received_end = Some(End::Trailers);
            }
        }
        assert!(part.received <= written);
        if part.received_end.is_some() {
            assert_eq!((part.received, part.received_end), (written, written_end), "whole, and not before its end");
            assert_eq!(part.heads_received, heads);
        }
        !part.waits_to_read
    }

    fn deliver(&mut self, to: Side) {
        if let Some(result) = self.pair.deliver(to.role()) {
            self.heard[to as usize] = self.pair.now;
            result.expect("no crossing of frames between honest sides is an error");
        }
    }

    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in SIDES {
                moved |= self.pair.transmit(side.role());
                while !(if side == Side::Daemon { &self.pair.to_daemon } else { &self.pair.to_client }).is_empty() {
                    self.deliver(side);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.pair.advance(time);
        let now = self.pair.now;
        for side in SIDES {
            self.pair.mux(side.role()).handle_timeout(now).expect("the peer was heard in time");
        }
        // Messages may not be delayed for so long that a side gives up.
        if self.heard.iter().any(|heard| now - *heard >= Duration::from_secs(15)) {
            self.settle();
            assert_eq!(self.heard, [now; 2], "a side that receives nothing sends a Ping");
        }
    }

    fn drain(&mut self, side: Side) {
        self.drained = true;
        let now = self.pair.now;
        self.pair.mux(side.role()).drain(DrainReason::Restart, Duration::from_secs(60), now);
    }

    /// Takes events in, and checks what must hold at every step.
    fn check(&mut self) {
        for side in SIDES {
            let mut written = Vec::new();
            for event in events(self.pair.mux(side.role())) {
                match event {
                    Event::Opened { key, tunnel, head, end } => {
                        let index: usize = head.target.to_text()[1..].parse().unwrap();
                        assert_eq!(tunnel, self.exchanges[index].tunnel);
                        assert!(self.tunnels[&tunnel].bound && self.tunnels[&tunnel].lives[1]);
                        assert_eq!(end, self.exchanges[index].parts[0].sent_end.is_some() && end);
                        *self.exchanges[index].part(side) = Part {
                            key: Some(key),
                            send_handle: true,
                            recv_handle: true,
                            received_end: end.then_some(End::Plain),
                            ..Part::default()
                        };
                        self.hold(side, key, index);
                    }
                    Event::Readable(key) => {
                        if let Some(index) = self.current[side as usize].get(&key) {
                            self.exchanges[*index].part(side).waits_to_read = false;
                        }
                    }
                    Event::Writable(key) => {
                        written.push(key);
                        if let Some(index) = self.current[side as usize].get(&key) {
                            self.exchanges[*index].part(side).waits_to_write = false;
                        }
                    }
                    Event::Tunnel { id, frame } => self.hear(side, id, &frame),
                    Event::Drain(_) => self.drained = true,
                    Event::Connect(_) | Event::Established(_) => {
                        panic!("the session is established")
                    }
                }
            }
            let mux = self.pair.mux(side.role());
            let mut holders = 0;
            for exchange in &mut self.exchanges {
                let part = &mut exchange.parts[side as usize];
                let Some(key) = part.key else { continue };
                holders += 1;
                if !part.known_broken && mux.broken(key).is_some() {
                    part.known_broken = true;
                    exchange.abandoned = true;
                    assert!(written.contains(&key), "a task that waits for a break gets an event");
                }
                if part.waits_to_write {
                    assert_eq!(mux.send_ready(key), Ok(false), "a waiting writer got no event");
                }
            }
            let unread = mux.unread_bytes();
            let (window, budget) = match side {
                Side::Daemon => (self.setup.daemon_window, &self.pair.daemon_budget),
                Side::Client => (self.setup.client_window, &self.pair.client_budget),
            };
            let granted = holders * window as usize + (self.setup.budget - budget.available());
            assert!(unread <= granted, "{unread} bytes unread, {granted} granted");
        }
    }

    fn run_out(&mut self) {
        loop {
            self.settle();
            self.check();
            let mut moved = false;
            for index in 0..self.exchanges.len() {
                for side in SIDES {
                    while self.exchanges[index].part(side).recv_handle && self.read(side, index) {
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Finishes all open exchanges and checks that nothing is missing.
    fn finish(&mut self) {
        self.run_out();
        for index in 0..self.exchanges.len() {
            self.head(index, false, false);
            while SIDES.map(|side| self.send(side, index, 0, true)).contains(&true) {}
            self.run_out();
        }
        // Writers without room could not finish above. By now everything has been read.
        for index in 0..self.exchanges.len() {
            for side in SIDES {
                self.send(side, index, 0, true);
            }
        }
        self.run_out();
        self.outlast_lingering();
        for exchange in self.exchanges.iter().filter(|exchange| !exchange.abandoned) {
            for side in SIDES {
                let (part, peer) = (&exchange.parts[side as usize], &exchange.parts[side.peer() as usize]);
                let broke_off = match (peer.sent_end, part.error) {
                    (Some(End::Break(code)), Some(error)) => error == ExchangeError::Reset(code),
                    _ => false,
                };
                let whole = part.received_end.is_some() && part.received_end == peer.sent_end;
                assert!(whole || broke_off, "{exchange:?}");
                assert_eq!(part.received, peer.sent);
            }
        }
    }

    /// Lets the time pass that a client gets for a request that broke off.
    fn outlast_lingering(&mut self) {
        for _ in 0..4 {
            self.settle();
            self.check();
            self.wait(LINGER / 3);
        }
        self.settle();
        self.check();
    }

    fn let_go(&mut self) {
        for index in 0..self.exchanges.len() {
            for side in SIDES {
                if self.exchanges[index].part(side).send_handle {
                    self.release_send(side, index);
                }
                if self.exchanges[index].part(side).recv_handle {
                    self.release_recv(side, index);
                }
            }
        }
    }

    fn end(mut self, finale: Finale) {
        match finale {
            Finale::Finish(side) => {
                self.finish();
                self.drain(side);
                self.settle();
                assert!(self.pair.daemon.is_drained() && self.pair.client.is_drained());
                self.let_go();
            }
            Finale::LetGo(side) => {
                self.drain(side);
                self.let_go();
                self.settle();
                self.check();
                self.let_go();
                self.outlast_lingering();
                assert!(self.pair.daemon.is_drained() && self.pair.client.is_drained());
            }
            Finale::Fail(side) => {
                let error = ErrorMessage { code: ErrorCode::Shutdown, message: "bye".to_owned(), retryable: true };
                self.pair.mux(side.role()).fail(&error);
                self.check();
                // What the peer still sends is ignored. It learns of the end behind the messages in flight.
                while self.pair.transmit(side.role()) {}
                while let Some(result) = self.pair.deliver(side.peer().role()) {
                    assert!(result.is_ok() || self.pair.mux(side.peer().role()).is_closed());
                }
                self.close();
            }
            Finale::Break => self.close(),
        }
        self.pair.settle_silently();
        assert_eq!((self.pair.daemon.open_exchanges(), self.pair.client.open_exchanges()), (0, 0));
        assert_eq!((self.pair.daemon.unread_bytes(), self.pair.client.unread_bytes()), (0, 0));
        assert_eq!(self.pair.daemon_budget.available(), self.setup.budget);
        assert_eq!(self.pair.client_budget.available(), self.setup.budget);
        for side in SIDES {
            for key in &self.keys[side as usize] {
                let state = self.pair.mux(side.role()).broken(*key);
                assert_eq!(state, Some(ExchangeError::SessionLost), "the slot is free");
            }
        }
    }

    /// Closes both sides without an Error.
    fn close(&mut self) {
        self.check();
        let before: Vec<_> = self.exchanges.iter().map(|exchange| exchange.parts[0].known_broken).collect();
        self.pair.daemon.close();
        self.pair.client.close();
        self.check();
        for (index, broken_before) in before.into_iter().enumerate() {
            let part = &self.exchanges[index].parts[0];
            if let Some(key) = part.key
                && !broken_before
            {
                let announced = self.pair.monitor.knows_target(index);
                let expected =
                    if announced { ExchangeError::SessionLost } else { ExchangeError::Reset(ResetCode::Unprocessed) };
                assert_eq!(self.pair.daemon.broken(key), Some(expected));
            }
            for side in SIDES {
                while self.exchanges[index].part(side).recv_handle && self.read(side, index) {}
            }
        }
        self.let_go();
    }
}

fn pattern(side: Side, index: usize, offset: usize) -> u8 {
    (offset * 31 + offset / 251 + index * 7 + side as usize * 128) as u8
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Daemon), Just(Side::Client)]
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![3 => 0..50_usize, 2 => 1000..20_000_usize, 1 => 20_000..80_000_usize];
    let wait = prop_oneof![6 => 0..100_u64, 1 => 100..9_000_u64];
    let x = any::<u8>;
    prop_oneof![
        6 => (x(), any::<bool>()).prop_map(|(tunnel, end)| Op::Open { tunnel, end }),
        3 => x().prop_map(|skipped| Op::Bind { skipped }),
        3 => (x(), prop::bool::weighted(0.8)).prop_map(|(tunnel, granted)| Op::Answer { tunnel, granted }),
        1 => (side(), x()).prop_map(|(side, tunnel)| Op::Unbind { side, tunnel }),
        8 => (x(), prop::bool::weighted(0.3), prop::bool::weighted(0.1))
            .prop_map(|(exchange, interim, end)| Op::Head { exchange, interim, end }),
        16 => (side(), x(), length, prop::bool::weighted(0.15))
            .prop_map(|(side, exchange, length, end)| Op::Send { side, exchange, length, end }),
        2 => (side(), x()).prop_map(|(side, exchange)| Op::Trailers { side, exchange }),
        3 => (side(), x(), 0..9_u32).prop_map(|(side, exchange, code)| Op::BreakOff { side, exchange, code }),
        2 => (side(), x(), 0..9_u32).prop_map(|(side, exchange, code)| Op::Reset { side, exchange, code }),
        3 => (side(), x()).prop_map(|(side, exchange)| Op::ReleaseSend { side, exchange }),
        3 => (side(), x()).prop_map(|(side, exchange)| Op::ReleaseRecv { side, exchange }),
        14 => (side(), x(), 1..20_u8).prop_map(|(side, exchange, times)| Op::Read { side, exchange, times }),
        16 => side().prop_map(|side| Op::Transmit { side }),
        16 => side().prop_map(|side| Op::Deliver { side }),
        1 => Just(Op::Settle),
        3 => wait.prop_map(|millis| Op::Wait { millis }),
        // Rare, because a drained session opens nothing more.
        1 => (side(), prop::bool::weighted(0.2))
            .prop_map(|(side, drain)| if drain { Op::Drain { side } } else { Op::Transmit { side } }),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let window = |least| prop_oneof![Just(least), Just(100), Just(5_000), Just(65_536), Just(262_144)];
    let budget = prop_oneof![Just(0), Just(20_000), Just(10_usize << 20)];
    // A daemon that granted single bytes would make its client's Data frames too tiny to be let through.
    (window(16), window(1), 1..8_u32, budget).prop_map(|(daemon_window, client_window, max_exchanges, budget)| Setup {
        daemon_window,
        client_window,
        max_exchanges,
        budget,
    })
}

fn finale() -> impl Strategy<Value = Finale> {
    prop_oneof![
        3 => side().prop_map(Finale::Finish),
        2 => side().prop_map(Finale::LetGo),
        1 => side().prop_map(Finale::Fail),
        1 => Just(Finale::Break),
    ]
}

proptest! {
    #[test]
    fn two_honest_sides(setup in setup(), ops in prop::collection::vec(op(), 1..250), finale in finale()) {
        let mut walk = Walk::new(setup);
        for op in ops {
            walk.step(op);
        }
        walk.end(finale);
    }
}
