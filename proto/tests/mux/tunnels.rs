//! Many tunnels in one session: who may ask, how they are answered, how they end, and that they are fair to each other.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, Frame, MAX_MESSAGE};
use cok_proto::mux::{Config, Event, Mux, SEND_BUFFER};
use cok_proto::session::{MAX_BINDINGS, MAX_UNANSWERED};
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage, ExchangeError, OpenError, ResetCode, Role,
    Rules, SessionError, TunnelFrame, Unbind, UnbindReason, WindowBudget,
};

use crate::pair::{Pair, Setup, bound, decode_all, events, read_all, request, response};

fn new() -> Pair {
    Pair::new(Setup::default())
}

fn closed() -> Unbind {
    Unbind::new(UnbindReason::Closed, Duration::from_secs(5))
}

fn name_taken() -> ErrorMessage {
    ErrorMessage { code: ErrorCode::NameTaken, message: "in use".to_owned(), retryable: true }
}

fn tunnel_frame(id: u32, frame: &TunnelFrame) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_tunnel(&mut out, id, frame);
    out
}

fn bind_frame(id: u32) -> BytesMut {
    tunnel_frame(id, &TunnelFrame::Bind(Bind::default()))
}

/// What a side hears about tunnels. Drops other events.
fn said(mux: &mut Mux) -> Vec<(u32, TunnelFrame)> {
    let tunnel = |event| if let Event::Tunnel { id, frame } = event { Some((id, frame)) } else { None };
    events(mux).into_iter().filter_map(tunnel).collect()
}

/// The session ends with this code.
#[track_caller]
fn ends(pair: &mut Pair, to: Role, message: impl AsRef<[u8]>, code: &ErrorCode) {
    let SessionError::Protocol(error) = pair.inject(to, message).unwrap_err() else { panic!("the peer is at fault") };
    assert_eq!(error.code(), *code, "{error}");
}

// ---- Bind and its answer ----

#[test]
fn each_bind_is_granted_or_refused_alone() {
    let mut pair = new();
    let wanted = Bind { subdomain: Some("api".to_owned()), take_over: false, ..Bind::default() };
    assert!(pair.client.bind(1, &wanted) && pair.client.bind(5, &Bind::default()));
    pair.settle();
    let asked = said(&mut pair.daemon);
    assert_eq!(asked, [(1, TunnelFrame::Bind(wanted)), (5, TunnelFrame::Bind(Bind::default()))]);
    assert_eq!(pair.daemon.open(1, request("/"), true).unwrap_err(), OpenError::Unbound, "it has no answer yet");
    assert!(pair.daemon.refuse_bind(1, &name_taken()) && pair.daemon.bound(5, bound(5)));
    assert!(!pair.daemon.bound(1, bound(1)) && !pair.daemon.refuse_bind(5, &name_taken()), "one answer to each");
    pair.settle();
    let answers = said(&mut pair.client);
    assert_eq!(answers, [(1, TunnelFrame::Refused(name_taken())), (5, TunnelFrame::Bound(bound(5)))]);
    assert_eq!(pair.daemon.open(1, request("/"), true).unwrap_err(), OpenError::Unbound);
    for tunnel in [0, 5] {
        pair.daemon.open(tunnel, request("/"), true).unwrap();
        pair.settle();
        let opened = events(&mut pair.client);
        assert!(matches!(opened[..], [Event::Opened { tunnel: of, .. }] if of == tunnel), "{opened:?}");
    }
}

#[test]
fn a_client_asks_by_the_rules() {
    let mut pair = new();
    assert!(!pair.client.bind(0, &Bind::default()), "id 0 is Connect's own tunnel");
    assert!(pair.client.bind(3, &Bind::default()));
    assert!(!pair.client.bind(3, &Bind::default()) && !pair.client.bind(2, &Bind::default()), "ids rise");
    assert!(!pair.daemon.bind(9, &Bind::default()), "a daemon does not ask");
    for id in 4..35 {
        assert!(pair.client.bind(id, &Bind::default()));
    }
    assert!(!pair.client.bind(35, &Bind::default()), "32 wait for an answer");
    pair.settle();
    assert!(pair.daemon.bound(3, bound(3)));
    pair.settle();
    assert!(pair.client.bind(35, &Bind::default()));
    pair.settle();

    let now = pair.now;
    pair.daemon.refuse_bind(4, &name_taken());
    pair.client.drain(DrainReason::Shutdown, Duration::from_secs(1), now);
    assert!(!pair.client.bind(36, &Bind::default()), "it drains");
    let mut early = Pair::unconnected(Setup::default());
    assert!(!early.client.bind(1, &Bind::default()), "the session is not granted");
}

#[test]
fn more_unanswered_binds_than_allowed_end_the_session() {
    let mut pair = new();
    for id in 1..=MAX_UNANSWERED as u32 {
        pair.inject(Role::Daemon, bind_frame(id)).unwrap();
    }
    // The answers do not count until they go out: a client that reads nothing cannot fill our memory.
    for id in 1..=MAX_UNANSWERED as u32 {
        pair.daemon.refuse_bind(id, &name_taken());
    }
    ends(&mut pair, Role::Daemon, bind_frame(100), &ErrorCode::LimitReached);

    let mut pair = new();
    for id in 1..=10 * MAX_UNANSWERED as u32 {
        pair.inject(Role::Daemon, bind_frame(id)).unwrap();
        pair.daemon.refuse_bind(id, &name_taken());
        pair.frames(Role::Daemon);
    }
}

#[test]
fn more_tunnels_than_allowed_end_the_session() {
    let mut pair = new();
    for id in 1..MAX_BINDINGS as u32 {
        pair.inject(Role::Daemon, bind_frame(id)).unwrap();
        pair.daemon.bound(id, bound(id));
        pair.frames(Role::Daemon);
    }
    ends(&mut pair, Role::Daemon, bind_frame(5000), &ErrorCode::LimitReached);
}

/// A regression: a Bind that was withdrawn at once did not count, so a client could fill the queue of events.
#[test]
fn binds_that_are_withdrawn_at_once_are_bounded() {
    let mut pair = new();
    let unbind = |id| tunnel_frame(id, &TunnelFrame::Unbind(closed()));
    for id in 1..=MAX_UNANSWERED as u32 {
        pair.inject(Role::Daemon, [bind_frame(id), unbind(id)].concat()).unwrap();
    }
    assert_eq!(events(&mut pair.daemon).len(), 2 * MAX_UNANSWERED);
    ends(&mut pair, Role::Daemon, bind_frame(100), &ErrorCode::LimitReached);
}

#[test]
fn a_withdrawn_bind_still_gets_its_answer() {
    for granted in [true, false] {
        let mut pair = new();
        assert!(pair.client.bind(1, &Bind::default()) && pair.client.unbind(1, &closed()));
        assert!(!pair.client.unbind(1, &closed()));
        pair.settle();
        assert!(matches!(said(&mut pair.daemon)[..], [(1, TunnelFrame::Bind(_)), (1, TunnelFrame::Unbind(_))]));
        let counts = if granted { pair.daemon.bound(1, bound(1)) } else { pair.daemon.refuse_bind(1, &name_taken()) };
        assert!(!counts, "the owner learns that the tunnel has ended");
        let frames = pair.frames(Role::Daemon);
        assert!(matches!(frames[..], [Frame::Tunnel { id: 1, frame: TunnelFrame::Refused(_) }]), "{frames:?}");
        pair.inject(Role::Client, tunnel_frame(1, &TunnelFrame::Refused(name_taken()))).unwrap();
        assert!(said(&mut pair.client).is_empty());
        assert_eq!(pair.daemon.open(1, request("/"), true).unwrap_err(), OpenError::Unbound);
    }
}

/// The client's Bind has crossed a Drain of either side.
#[test]
fn a_bind_in_a_draining_session_is_refused() {
    for side in [Role::Daemon, Role::Client] {
        let mut pair = new();
        let (now, second) = (pair.now, Duration::from_secs(1));
        pair.mux(side).drain(DrainReason::Restart, second, now);
        if side == Role::Client {
            pair.transmit(Role::Client);
            pair.deliver(Role::Daemon).unwrap().unwrap();
        }
        pair.inject(Role::Daemon, bind_frame(1)).unwrap();
        assert!(said(&mut pair.daemon).is_empty());
        let frames = pair.frames(Role::Daemon);
        let refused = frames.iter().find_map(|frame| match frame {
            Frame::Tunnel { id: 1, frame: TunnelFrame::Refused(error) } => Some((error.code.clone(), error.retryable)),
            _ => None,
        });
        assert_eq!(refused, Some((ErrorCode::Draining, true)), "{frames:?}");
    }
}

#[test]
fn an_answer_to_no_bind_ends_the_session() {
    for answer in [TunnelFrame::Bound(bound(1)), TunnelFrame::Refused(name_taken())] {
        ends(&mut new(), Role::Client, tunnel_frame(1, &answer), &ErrorCode::Protocol);
        ends(&mut new(), Role::Client, tunnel_frame(0, &answer), &ErrorCode::Protocol);
        ends(&mut new(), Role::Daemon, tunnel_frame(0, &answer), &ErrorCode::Protocol);
    }
}

#[test]
fn what_a_daemon_cannot_do_is_unsupported() {
    assert_eq!(Bind::default().checked(), Ok(Rules::default()));
    let rules = |rules| Bind { rules, ..Bind::default() };
    let long = "x".repeat(100_000);
    for bind in [
        Bind { kind: "tcp".to_owned(), ..Bind::default() },
        Bind { kind: long.clone(), ..Bind::default() },
        rules(serde_json::json!({"basic_auth": []})),
        rules(serde_json::json!({ long: null })),
        rules(serde_json::json!([])),
        rules(serde_json::json!(null)),
        rules(serde_json::json!("none")),
    ] {
        let why = bind.checked().unwrap_err();
        assert!(why.len() < 400, "{why}");
    }
}

// ---- the end of a tunnel ----

#[test]
fn a_tunnel_ends_and_its_exchanges_go_on() {
    for side in [Role::Daemon, Role::Client] {
        let mut pair = new();
        pair.bind(1);
        let (daemon, client) = pair.open_for(1, true);
        assert!(pair.mux(side).unbind(1, &closed()) && !pair.mux(side).unbind(1, &closed()));
        pair.settle();
        assert_eq!(said(pair.mux(side.peer())), [(1, TunnelFrame::Unbind(closed()))]);
        assert!(!pair.mux(side.peer()).unbind(1, &closed()), "it has ended on both sides");
        assert_eq!(pair.daemon.open(1, request("/"), true).unwrap_err(), OpenError::Unbound);
        pair.client.send_response(client, response(200), true).unwrap();
        pair.settle();
        assert!(read_all(&mut pair.daemon, daemon).ended);
        pair.open(true);
    }
}

#[test]
fn unbinds_that_cross_are_one() {
    let mut pair = new();
    pair.bind(1);
    assert!(pair.daemon.unbind(1, &closed()) && pair.client.unbind(1, &closed()));
    pair.settle();
    assert!(said(&mut pair.daemon).is_empty() && said(&mut pair.client).is_empty());
    assert!(!pair.client.bind(1, &Bind::default()), "its id is used");
    pair.bind(2);
}

/// The daemon sends the request again, of any method, to another binding.
#[test]
fn a_request_that_crosses_an_unbind_is_unprocessed() {
    let mut pair = new();
    pair.bind(1);
    let (kept, _) = pair.open(true);
    let daemon = pair.daemon.open(1, request("/"), true).unwrap();
    pair.client.unbind(1, &closed());
    pair.settle();
    assert!(!events(&mut pair.client).iter().any(|event| matches!(event, Event::Opened { .. })));
    assert_eq!(pair.daemon.broken(daemon), Some(ExchangeError::Reset(ResetCode::Unprocessed)));
    assert_eq!(pair.daemon.broken(kept), None);
}

#[test]
fn the_exchanges_of_one_tunnel_are_reset_alone() {
    let mut pair = new();
    pair.bind(1);
    let (first, _) = pair.open_for(1, false);
    let (second, second_client) = pair.open_for(1, true);
    let (kept, _) = pair.open(true);
    pair.client.send_response(second_client, response(200), true).unwrap();
    pair.settle();
    pair.daemon.unbind(1, &Unbind::new(UnbindReason::Revoked, Duration::ZERO));
    pair.daemon.reset_tunnel(1, ResetCode::Cancelled);
    pair.settle();
    assert_eq!(pair.daemon.broken(first), Some(ExchangeError::Reset(ResetCode::Cancelled)));
    assert_eq!((pair.daemon.broken(second), pair.daemon.broken(kept)), (None, None), "it was over already");
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (1, 1));
}

/// The daemon grants a name under a new id, and ends the old one.
#[test]
fn a_name_moves_to_a_new_id() {
    let mut pair = new();
    pair.bind(1);
    let (old, old_client) = pair.open_for(1, true);
    pair.client.bind(2, &Bind { subdomain: Some("t1".to_owned()), ..Bind::default() });
    pair.settle();
    assert!(pair.daemon.bound(2, bound(1)));
    assert!(pair.daemon.unbind(1, &Unbind::new(UnbindReason::Moved, Duration::from_secs(5))));
    pair.settle();
    assert!(matches!(said(&mut pair.client)[..], [(2, TunnelFrame::Bound(_)), (1, TunnelFrame::Unbind(_))]));
    pair.open_for(2, true);
    pair.client.send_response(old_client, response(200), true).unwrap();
    pair.settle();
    assert!(read_all(&mut pair.daemon, old).ended);
}

// ---- taking over ----

/// A pair whose client takes these tunnels over; `moved` of them move.
fn taking_over(moving: &[u32], moved: &[(u32, Bound)]) -> Pair {
    let mut pair = Pair::unconnected(Setup::default());
    let connect = Connect { tunnel: false, replaces: Some("s".to_owned()), ..Connect::default() };
    let config = Config { initial_window: 262_144, max_exchanges: 0, budget: WindowBudget::new(0) };
    pair.client = Mux::client(config, &connect, moving, pair.now);
    pair.settle();
    events(&mut pair.daemon);
    let ack =
        ConnectAck { moved: moved.len() as u32, initial_window: 262_144, max_exchanges: 10, ..ConnectAck::default() };
    pair.daemon.accept(&ack, moved);
    pair
}

#[test]
fn tunnels_move_under_their_ids() {
    let mut pair = taking_over(&[0, 3, 7], &[(0, bound(0)), (7, bound(7))]);
    pair.settle();
    let moved = said(&mut pair.client);
    assert_eq!(moved, [(0, TunnelFrame::Bound(bound(0))), (7, TunnelFrame::Bound(bound(7)))]);
    pair.open_for(0, true);
    pair.open_for(7, true);
    assert_eq!(pair.daemon.open(3, request("/"), true).unwrap_err(), OpenError::Unbound);
    assert!(!pair.client.bind(7, &Bind::default()), "ids rise above those that moved");
    pair.bind(8);
}

/// A regression: all control frames left in one message, which was longer than a message may be.
#[test]
fn a_thousand_tunnels_move_in_messages_within_the_limit() {
    let moving: Vec<u32> = (0..MAX_BINDINGS as u32).collect();
    let long = |id| Bound { subdomain: format!("{id:063}"), url: format!("https://{id:063}.{}", "tunnel.".repeat(10)) };
    let moved: Vec<(u32, Bound)> = moving.iter().map(|&id| (id, long(id))).collect();
    let mut pair = taking_over(&moving, &moved);
    // What is opened at once must not overtake the Bound of its tunnel.
    pair.daemon.open(999, request("/"), true).unwrap();
    let mut messages = 0;
    while pair.transmit(Role::Daemon) {
        messages += 1;
    }
    assert!(messages > 2 && pair.to_client.iter().all(|message| message.len() <= MAX_MESSAGE));
    pair.settle();
    let heard = events(&mut pair.client);
    assert_eq!(heard.iter().filter(|event| matches!(event, Event::Tunnel { .. })).count(), MAX_BINDINGS);
    assert!(matches!(heard.last(), Some(Event::Opened { tunnel: 999, .. })));
}

#[test]
fn binds_with_long_names_leave_in_several_messages() {
    let mut pair = new();
    let long = Bind { subdomain: Some("x".repeat(16_000)), ..Bind::default() };
    assert!(!pair.client.bind(1, &Bind { subdomain: Some("x".repeat(16_400)), ..Bind::default() }), "too long");
    for id in 1..=MAX_UNANSWERED as u32 {
        assert!(pair.client.bind(id, &long));
    }
    pair.settle();
    assert_eq!(said(&mut pair.daemon).len(), MAX_UNANSWERED);
}

// ---- fairness ----

/// Fills the queue of a response of the client.
fn fill(pair: &mut Pair, key: cok_proto::mux::ExchangeKey) {
    while pair.client.send_ready(key) == Ok(true) {
        pair.client.send_data(key, Bytes::from(vec![7; SEND_BUFFER / 4]), false);
    }
}

/// Tunnel 1 has fifty bulk responses, tunnel 2 has one: each gets half of the pipe.
#[test]
fn tunnels_take_turns_before_their_exchanges_do() {
    let mut pair = Pair::new(Setup { daemon_window: 8 << 20, max_exchanges: 200, ..Setup::default() });
    pair.bind(1);
    pair.bind(2);
    let mut keys = Vec::new();
    for tunnel in std::iter::repeat_n(1, 50).chain([2]) {
        let (_, client) = pair.open_for(tunnel, true);
        pair.client.send_response(client, response(200), false).unwrap();
        pair.client.send_data(client, Bytes::from_static(b"first"), false);
        keys.push(client);
    }
    pair.settle();
    let mut of: HashMap<u32, usize> = HashMap::new();
    for round in 1..=200 {
        for key in &keys {
            fill(&mut pair, *key);
        }
        assert!(pair.transmit(Role::Client));
        for frame in decode_all(pair.to_daemon.pop_back().unwrap()) {
            let Frame::Data { id, .. } = frame else { panic!("{frame:?}") };
            *of.entry(id).or_default() += 1;
        }
        let lone = of.get(&51).copied().unwrap_or(0);
        assert!(lone.abs_diff(round - lone) <= 1, "after {round} frames, the lone exchange had {lone}");
    }
    let crowd: Vec<usize> = (1..=50).map(|id| of[&id]).collect();
    assert_eq!(crowd, [2; 50], "and within a tunnel, exchanges take turns");
}

/// A regression: requests had their ids before their tunnels took turns, and went out with ids that fell.
#[test]
fn requests_of_tunnels_that_take_turns_have_rising_ids() {
    let mut pair = new();
    pair.bind(1);
    for tunnel in [0, 0, 0, 1] {
        pair.daemon.open(tunnel, request("/"), true).unwrap();
    }
    let frames = pair.frames(Role::Daemon);
    let [
        Frame::Request { id: 1, tunnel: 0, .. },
        Frame::Request { id: 2, tunnel: 1, .. },
        Frame::Request { id: 3, tunnel: 0, .. },
        Frame::Request { id: 4, tunnel: 0, .. },
    ] = &frames[..]
    else {
        panic!("{frames:?}")
    };
}

#[test]
fn a_tunnel_leaves_half_of_the_exchanges_to_the_others() {
    let mut pair = Pair::new(Setup { max_exchanges: 9, ..Setup::default() });
    for _ in 0..9 {
        pair.daemon.open(0, request("/"), true).unwrap();
    }
    assert_eq!(pair.daemon.open(0, request("/"), true).unwrap_err(), OpenError::Saturated, "alone, it has all");

    let mut pair = Pair::new(Setup { max_exchanges: 9, ..Setup::default() });
    pair.bind(1);
    let held: Vec<_> = (0..5).map(|_| pair.daemon.open(0, request("/"), true).unwrap()).collect();
    assert_eq!(pair.daemon.open(0, request("/"), true).unwrap_err(), OpenError::Saturated);
    for _ in 0..4 {
        pair.daemon.open(1, request("/"), true).unwrap();
    }
    pair.settle();
    pair.daemon.release_send(held[0]);
    pair.daemon.release_recv(held[0]);
    pair.settle();
    pair.daemon.open(0, request("/"), true).unwrap();
    assert_eq!(pair.daemon.open(1, request("/"), true).unwrap_err(), OpenError::Saturated);
}
