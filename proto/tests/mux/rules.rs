//! The rules one by one. A peer's mistake ends the session with an Error frame of the right code.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, Frame, FrameType};
use cok_proto::mux::{Event, SEND_BUFFER};
use cok_proto::session::{DEAD_AFTER, PING_AFTER};
use cok_proto::{
    Connect, DrainReason, ErrorCode, ErrorMessage, ExchangeError, OpenError, ProtocolError, Received, ResetCode, Role,
    SessionError,
};

use crate::pair::{Pair, Setup, ack, data_frame, events, head_frame, read_all, request, response, trailers};

/// Feeds `to` a message that breaks a rule. The session must end with this code.
#[track_caller]
fn refused(pair: &mut Pair, to: Role, message: impl AsRef<[u8]>, expected: &ErrorCode) -> ProtocolError {
    let SessionError::Protocol(error) = pair.inject(to, message).unwrap_err() else { panic!("the peer is at fault") };
    assert_eq!(error.code(), *expected, "{error}");
    assert!(pair.mux(to).is_closed());
    let frames = pair.frames(to);
    let Some(Frame::Error(sent)) = frames.last() else { panic!("{frames:?}") };
    assert_eq!((&sent.code, sent.retryable), (expected, false));
    assert!(pair.inject(to, b"anything").is_ok(), "later messages are ignored");
    assert!(!pair.mux(to).has_transmit());
    error
}

fn json_frame(kind: FrameType, message: &impl serde::Serialize) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_json(&mut out, kind, message);
    out
}

fn reset_frame(id: u32, code: ResetCode) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_reset(&mut out, id, code);
    out
}

fn credit_frame(id: u32, increment: u32) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_window_update(&mut out, id, increment);
    out
}

fn request_frame(id: u32, end: bool) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_request(&mut out, id, 0, &request("/"), end);
    out
}

fn trailers_frame(id: u32) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_trailers(&mut out, id, &trailers());
    out
}

fn ping_frame(opaque: u8) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_ping(&mut out, [opaque; 8]);
    out
}

fn new() -> Pair {
    Pair::new(Setup::default())
}

// ---- frames ----

#[test]
fn foreign_versions_and_types_are_refused() {
    use ErrorCode::{Protocol, TooLarge, Version};
    let cases: [(&[u8], ErrorCode); 9] = [
        (&[2], Version),
        (b"GET / HTTP/1.1\r\n", Version),
        (&[1, 0x08, 0, 0, 0, 0, 0], Protocol),
        (&[1, 0x7f, 0, 0, 0, 0, 0], Protocol),
        (&[1, 0xf2, 0, 0, 0, 0, 0], Protocol),
        (&[1, 0x12, 0, 0, 0, 0x3f, 0xfa], TooLarge),
        (&[1, 0xf0, 0, 0, 0, 0, 9], TooLarge),
        (&[1, 0x80, 0, 0xff, 0xff, 0xff, 0xff], TooLarge),
        (&[1, 0x12, 0, 0, 0, 0, 9, 0, 0], Protocol),
    ];
    for (message, code) in cases {
        for side in [Role::Daemon, Role::Client] {
            refused(&mut new(), side, message, &code);
        }
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    let mut message = BytesMut::new();
    while message.len() <= frame::MAX_MESSAGE {
        frame::put_pong(&mut message, [0; 8]);
    }
    refused(&mut new(), Role::Client, &message, &ErrorCode::TooLarge);
}

#[test]
fn unknown_types_are_skipped_up_to_a_budget() {
    let mut pair = new();
    let mut message = vec![1, 0x9a, 0xff, 0, 1, 0, 0];
    message.resize(7 + 65536, 0);
    for _ in 0..15 {
        pair.inject(Role::Daemon, &message).unwrap();
    }
    assert_eq!(refused(&mut pair, Role::Daemon, &message, &ErrorCode::Protocol), ProtocolError::SkipBudget);
}

#[test]
fn unknown_flags_are_ignored() {
    let mut pair = new();
    let mut ping = ping_frame(7);
    ping[2] = 0xfe;
    pair.inject(Role::Daemon, &ping).unwrap();
    assert_eq!(pair.frames(Role::Daemon), [Frame::Pong([7; 8])]);
}

// ---- the session's start ----

#[test]
fn connect_comes_first_and_once() {
    let connect =
        json_frame(FrameType::Connect, &Connect { key: "k".into(), instance: "i".into(), ..Connect::default() });
    for early in [data_frame(1, 1, false), ping_frame(1), BytesMut::from(&[1, 0x80, 0, 0, 0, 0, 0][..])] {
        refused(&mut Pair::unconnected(Setup::default()), Role::Daemon, early, &ErrorCode::Protocol);
    }
    refused(&mut new(), Role::Daemon, &connect, &ErrorCode::Protocol);
    let twice = [&connect[..], &connect[..]].concat();
    refused(&mut Pair::unconnected(Setup::default()), Role::Daemon, twice, &ErrorCode::Protocol);
    refused(&mut new(), Role::Client, &connect, &ErrorCode::Protocol);
}

/// A regression: a skippable frame behind Connect ended the session before ConnectAck.
#[test]
fn between_connect_and_its_answer_only_pings_and_unknown_frames_pass() {
    let fine = [ping_frame(1), BytesMut::from(&[1, 0x80, 0, 0, 0, 0, 0][..])];
    let wrong = [data_frame(1, 1, false), head_frame(1, 200), reset_frame(1, ResetCode::Cancelled)];
    for side in [Role::Daemon, Role::Client] {
        let asked = || {
            let mut pair = Pair::unconnected(Setup::default());
            pair.settle();
            pair
        };
        for frame in &fine {
            asked().inject(side, frame).unwrap();
        }
        for frame in &wrong {
            refused(&mut asked(), side, frame, &ErrorCode::Protocol);
        }
    }
}

#[test]
fn an_initial_window_beyond_the_largest_credit_is_refused() {
    let connect = Connect { key: "k".into(), instance: "i".into(), initial_window: 1 << 31, ..Connect::default() };
    let frame = json_frame(FrameType::Connect, &connect);
    refused(&mut Pair::unconnected(Setup::default()), Role::Daemon, frame, &ErrorCode::Protocol);
    let mut pair = Pair::unconnected(Setup::default());
    pair.settle();
    let ack = ack(Setup { daemon_window: u32::MAX, ..Setup::default() });
    refused(&mut pair, Role::Client, json_frame(FrameType::ConnectAck, &ack), &ErrorCode::Protocol);
}

#[test]
fn a_refusal_reaches_the_client() {
    let mut pair = Pair::unconnected(Setup::default());
    pair.settle();
    let refusal = ErrorMessage { code: ErrorCode::Unauthorized, message: "no".into(), retryable: false };
    pair.daemon.fail(&refusal);
    pair.transmit(Role::Daemon);
    assert_eq!(pair.deliver(Role::Client), Some(Err(SessionError::Peer(refusal))));
    assert!(pair.client.is_closed() && pair.daemon.is_closed());
    assert_eq!(pair.client.next_timeout(), None);
}

// ---- exchanges ----

#[test]
fn ids_must_have_been_opened() {
    for id in [0, 1, 2, u32::MAX] {
        for frame in [
            data_frame(id, 1, false),
            head_frame(id, 200),
            trailers_frame(id),
            reset_frame(id, ResetCode::NoError),
            credit_frame(id, 1),
        ] {
            let error = refused(&mut new(), Role::Daemon, frame, &ErrorCode::Protocol);
            assert!(matches!(error, ProtocolError::NeverOpened { .. }), "{error}");
        }
    }
    let mut pair = new();
    pair.daemon.open(0, request("/"), true).unwrap();
    let error = refused(&mut pair, Role::Daemon, head_frame(1, 200), &ErrorCode::Protocol);
    assert!(matches!(error, ProtocolError::NeverOpened { .. }), "its request has not gone out yet: {error}");
}

#[test]
fn ids_must_rise() {
    for id in [0, 4, 5] {
        let mut pair = new();
        pair.inject(Role::Client, request_frame(5, true)).unwrap();
        refused(&mut pair, Role::Client, request_frame(id, true), &ErrorCode::Protocol);
    }
    let mut pair = new();
    pair.inject(Role::Client, request_frame(5, true)).unwrap();
    pair.inject(Role::Client, request_frame(u32::MAX, true)).unwrap();
}

#[test]
fn frames_of_a_closed_exchange_are_ignored() {
    let mut pair = new();
    let (daemon, client) = pair.open(true);
    pair.client.send_response(client, response(200), true).unwrap();
    pair.settle();
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    for frame in
        [data_frame(1, 16_000, false), trailers_frame(1), reset_frame(1, ResetCode::Cancelled), credit_frame(1, 0)]
    {
        pair.inject(Role::Daemon, &frame).unwrap();
        pair.inject(Role::Client, &frame).unwrap();
    }
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    assert!(pair.frames(Role::Daemon).is_empty() && pair.frames(Role::Client).is_empty());
    assert!(read_all(&mut pair.daemon, daemon).ended);
}

#[test]
fn frames_come_from_the_right_side_only() {
    let (mut pair, stream_open) = (new(), BytesMut::from(&[1, 0x20, 0, 0, 0, 0, 4, 0, 0, 0, 1][..]));
    pair.open(false);
    let ack = json_frame(FrameType::ConnectAck, &ack(Setup::default()));
    for (side, frame) in [
        (Role::Daemon, request_frame(2, true)),
        (Role::Daemon, ack.clone()),
        (Role::Daemon, stream_open.clone()),
        (Role::Client, head_frame(1, 200)),
        (Role::Client, ack),
        (Role::Client, stream_open),
    ] {
        let mut pair = new();
        pair.open(false);
        refused(&mut pair, side, frame, &ErrorCode::Protocol);
    }
}

#[test]
fn a_response_keeps_its_order() {
    let interim = head_frame(1, 103);
    let mut ending_interim = interim.clone();
    ending_interim[2] = frame::FLAG_END;
    let (head, data, last) = (head_frame(1, 200), data_frame(1, 1, false), data_frame(1, 1, true));
    for frames in [
        vec![&data],
        vec![&trailers_frame(1)],
        vec![&interim, &data],
        vec![&ending_interim],
        vec![&head, &head],
        vec![&head, &interim],
        vec![&head_frame(1, 101), &head],
        vec![&interim; 17],
    ] {
        let mut pair = new();
        pair.open(false);
        refused(
            &mut pair,
            Role::Daemon,
            frames.into_iter().flatten().copied().collect::<Vec<_>>(),
            &ErrorCode::Protocol,
        );
    }
    // The request has not ended, so the exchange goes on after the response has.
    for frames in [[&last, &data], [&last, &trailers_frame(1)], [&trailers_frame(1), &data]] {
        let mut pair = new();
        pair.open(false);
        pair.inject(Role::Daemon, &head).unwrap();
        refused(
            &mut pair,
            Role::Daemon,
            frames.into_iter().flatten().copied().collect::<Vec<_>>(),
            &ErrorCode::Protocol,
        );
    }
    let mut pair = new();
    pair.inject(Role::Client, request_frame(1, true)).unwrap();
    refused(&mut pair, Role::Client, data_frame(1, 0, false), &ErrorCode::Protocol);
}

#[test]
fn misuse_of_a_client_stays_off_the_wire() {
    let mut pair = new();
    let (daemon, client) = pair.open(true);
    for _ in 0..20 {
        pair.client.send_response(client, response(103), true).unwrap();
    }
    pair.client.send_response(client, response(200), true).unwrap();
    pair.settle();
    let all = read_all(&mut pair.daemon, daemon);
    assert_eq!((all.heads.len(), all.ended), (17, true), "sixteen interim heads and the final one");

    let misuses: [fn(&mut Pair, cok_proto::mux::ExchangeKey); 3] = [
        |pair, key| pair.client.send_data(key, Bytes::from_static(b"x"), false),
        |pair, key| pair.client.send_trailers(key, trailers()).unwrap(),
        |pair, key| {
            pair.client.send_response(key, response(200), false).unwrap();
            pair.client.send_response(key, response(200), false).unwrap();
        },
    ];
    for misuse in misuses {
        let mut pair = new();
        let (daemon, client) = pair.open(true);
        misuse(&mut pair, client);
        pair.settle();
        assert_eq!(pair.daemon.broken(daemon), Some(ExchangeError::Reset(ResetCode::LocalBroken)));
    }
}

#[test]
fn more_exchanges_than_announced_are_refused() {
    let setup = Setup { max_exchanges: 2, ..Setup::default() };
    let mut pair = Pair::new(setup);
    pair.open(true);
    pair.open(true);
    assert_eq!(pair.daemon.open(0, request("/"), true).unwrap_err(), OpenError::Saturated);
    let error = refused(&mut pair, Role::Client, request_frame(3, true), &ErrorCode::Protocol);
    assert_eq!(error, ProtocolError::TooManyExchanges(2));
}

#[test]
fn a_cancelled_request_that_never_went_out_leaves_no_trace() {
    let mut pair = new();
    let first = pair.daemon.open(0, request("/1"), true).unwrap();
    pair.daemon.open(0, request("/2"), true).unwrap();
    pair.daemon.release_send(first);
    pair.daemon.release_recv(first);
    assert_eq!(pair.daemon.open_exchanges(), 1);
    assert!(matches!(&pair.frames(Role::Daemon)[..], [Frame::Request { id: 1, .. }]));
    assert_eq!(pair.daemon.broken(first), Some(ExchangeError::SessionLost), "its slot is free");

    let third = pair.daemon.open(0, request("/3"), true).unwrap();
    pair.daemon.release_send(third);
    pair.daemon.release_recv(third);
    let error = refused(&mut pair, Role::Daemon, data_frame(2, 1, false), &ErrorCode::Protocol);
    assert!(matches!(error, ProtocolError::NeverOpened { .. }), "the client cannot know of it: {error}");
}

#[test]
fn a_head_beyond_the_limit_is_refused_to_its_sender() {
    let mut pair = new();
    let (_, client) = pair.open(false);
    let mut head = response(200);
    head.headers.insert("x", "v".repeat(65_530).parse().unwrap());
    assert!(pair.client.send_response(client, head.clone(), true).is_err());
    let mut wide = (*request("/")).clone();
    wide.headers = head.headers;
    assert!(matches!(pair.daemon.open(0, wide.into(), true), Err(OpenError::TooLarge(_))));
    pair.client.send_response(client, response(413), true).unwrap();
    pair.settle();
}

// ---- ends and Resets ----

#[test]
fn a_reset_reaches_the_other_side_with_its_code() {
    let codes: Vec<ResetCode> = (0..=10).chain([77]).map(ResetCode::from).collect();
    assert_eq!(codes[10], ResetCode::LocalInvalid);
    for code in codes {
        for side in [Role::Daemon, Role::Client] {
            let mut pair = new();
            let (daemon, client) = pair.open(false);
            let (own, other) = if side == Role::Daemon { (daemon, client) } else { (client, daemon) };
            pair.mux(side).reset(own, code);
            pair.settle();
            let told = if code == ResetCode::NoError { ResetCode::Cancelled } else { code };
            let other_side = if side == Role::Daemon { Role::Client } else { Role::Daemon };
            let error = ExchangeError::Reset(told);
            assert_eq!(pair.mux(other_side).broken(other), Some(error));
            assert_eq!(pair.mux(other_side).recv(other), Some(Err(error)));
            assert_eq!(pair.mux(other_side).send_ready(other), Err(error));
            assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
        }
    }
}

#[test]
fn no_error_from_the_daemon_is_a_cancellation() {
    let mut pair = new();
    let (_, client) = pair.open(false);
    pair.inject(Role::Client, reset_frame(1, ResetCode::NoError)).unwrap();
    assert!(pair.client.broken(client).is_some());
    assert_eq!(pair.client.open_exchanges(), 0);
}

#[test]
fn stopping_an_upload_leaves_the_response_whole() {
    let mut pair = new();
    let (daemon, client) = pair.open(false);
    pair.daemon.send_data(daemon, Bytes::from(vec![1; SEND_BUFFER]), false);
    pair.client.send_response(client, response(413), false).unwrap();
    pair.client.send_data(client, Bytes::from_static(b"too much"), true);
    pair.client.release_recv(client);
    pair.settle();
    assert_eq!(pair.daemon.send_ready(daemon), Err(ExchangeError::Reset(ResetCode::NoError)));
    assert_eq!(pair.daemon.broken(daemon), None);
    pair.daemon.release_send(daemon);
    pair.settle();
    let all = read_all(&mut pair.daemon, daemon);
    assert_eq!((all.heads, &all.body[..], all.ended, all.error), (vec![response(413)], &b"too much"[..], true, None));
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
}

/// Other clients may stop the upload before they answer.
#[test]
fn an_upload_may_be_stopped_before_the_response() {
    let mut pair = new();
    let (daemon, _) = pair.open(false);
    pair.inject(Role::Daemon, reset_frame(1, ResetCode::NoError)).unwrap();
    assert_eq!(pair.daemon.send_ready(daemon), Err(ExchangeError::Reset(ResetCode::NoError)));
    pair.inject(Role::Daemon, [head_frame(1, 200), data_frame(1, 3, true)].concat()).unwrap();
    let all = read_all(&mut pair.daemon, daemon);
    assert!(all.ended && all.body.len() == 3);
    assert_eq!(pair.daemon.open_exchanges(), 0);
}

#[test]
fn leaving_abandons_the_exchange() {
    for (side, of, code) in [
        (Role::Daemon, "send", ResetCode::Cancelled),
        (Role::Daemon, "recv", ResetCode::Cancelled),
        (Role::Client, "send", ResetCode::LocalBroken),
    ] {
        let mut pair = new();
        let (daemon, client) = pair.open(false);
        let key = if side == Role::Daemon { daemon } else { client };
        match of {
            "send" => pair.mux(side).release_send(key),
            _ => pair.mux(side).release_recv(key),
        }
        assert!(matches!(&pair.frames(side)[..], [Frame::Reset { id: 1, code: sent }] if *sent == code));
    }
    let mut pair = new();
    let (_, client) = pair.open(false);
    pair.client.release_recv(client);
    assert!(pair.frames(Role::Client).is_empty(), "the response may still come");
}

#[test]
fn trailers_end_both_kinds_of_bodies() {
    let mut pair = new();
    let (daemon, client) = pair.open(false);
    pair.daemon.send_data(daemon, Bytes::from_static(b"up"), false);
    pair.daemon.send_trailers(daemon, trailers()).unwrap();
    pair.client.send_response(client, response(200), false).unwrap();
    pair.client.send_trailers(client, trailers()).unwrap();
    pair.settle();
    let (up, down) = (read_all(&mut pair.client, client), read_all(&mut pair.daemon, daemon));
    assert_eq!((&up.body[..], up.trailers, up.ended), (&b"up"[..], Some(trailers()), true));
    assert_eq!((down.body.len(), down.trailers, down.ended), (0, Some(trailers()), true));
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
}

// ---- credit ----

#[test]
fn bytes_beyond_the_credit_end_the_session() {
    let mut pair = Pair::new(Setup { daemon_window: 1000, ..Setup::default() });
    pair.open(true);
    pair.inject(Role::Daemon, [head_frame(1, 200), data_frame(1, 1000, false)].concat()).unwrap();
    let error = refused(&mut pair, Role::Daemon, data_frame(1, 1, true), &ErrorCode::FlowControl);
    assert_eq!(error, ProtocolError::CreditExceeded { id: 1, excess: 1 });
}

/// A regression: credit counted from the moment it was due. While our writes stalled, a peer that ignores credit could
/// send until the counter overflowed.
#[test]
fn credit_counts_once_it_is_announced() {
    let mut pair = Pair::new(Setup { daemon_window: 1000, budget: 0, ..Setup::default() });
    let (daemon, _) = pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    for _ in 0..2 {
        pair.inject(Role::Daemon, data_frame(1, 500, false)).unwrap();
        assert_eq!(read_all(&mut pair.daemon, daemon).body.len(), 500);
    }
    let error = refused(&mut pair, Role::Daemon, data_frame(1, 1, false), &ErrorCode::FlowControl);
    assert_eq!(error, ProtocolError::CreditExceeded { id: 1, excess: 1 });
}

#[test]
fn zero_credit_and_too_much_reset_that_exchange_only() {
    for frames in [vec![credit_frame(1, 0)], vec![credit_frame(1, u32::MAX)], vec![credit_frame(1, 1 << 30); 2]] {
        let mut pair = new();
        let (daemon, _) = pair.open(false);
        let (other, _) = pair.open(false);
        pair.inject(Role::Daemon, frames.concat()).unwrap();
        assert_eq!(pair.daemon.broken(daemon), Some(ExchangeError::Reset(ResetCode::Cancelled)));
        assert_eq!(pair.daemon.broken(other), None);
        let frames = pair.frames(Role::Daemon);
        assert!(matches!(frames[..], [Frame::Reset { id: 1, code: ResetCode::Cancelled }]), "{frames:?}");
    }
}

#[test]
fn nothing_is_sent_beyond_the_credit() {
    let mut pair = Pair::new(Setup { client_window: 1000, ..Setup::default() });
    let daemon = pair.daemon.open(0, request("/"), false).unwrap();
    pair.daemon.send_data(daemon, Bytes::from(vec![0; 2500]), true);
    pair.settle();
    let client = pair.opened();
    let mut total = 0;
    while total < 2500 {
        let got = read_all(&mut pair.client, client).body.len();
        assert!(got > 0 && got <= 1000);
        total += got;
        pair.settle();
    }
    assert!(read_all(&mut pair.client, client).ended || total == 2500);
}

/// A regression: borrowed bytes came back with the end of the exchange. One exchange after the other could then fill
/// its grown window, end, and leave it unread.
#[test]
fn a_window_keeps_its_borrowed_bytes_until_everything_was_read() {
    let setup = Setup { daemon_window: 1000, budget: 5000, ..Setup::default() };
    let mut pair = Pair::new(setup);
    let (daemon, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    while pair.daemon_budget.available() == setup.budget {
        pair.client.send_data(client, Bytes::from(vec![0; 1000]), false);
        pair.settle();
        read_all(&mut pair.daemon, daemon);
    }
    pair.client.send_data(client, Bytes::from(vec![0; 1500]), true);
    pair.settle();
    pair.client.release_send(client);
    pair.client.release_recv(client);
    assert_eq!((pair.daemon.open_exchanges(), pair.daemon.unread_bytes()), (0, 1500));
    assert!(pair.daemon_budget.available() < setup.budget);
    assert!(read_all(&mut pair.daemon, daemon).ended);
    assert_eq!(pair.daemon_budget.available(), setup.budget);
}

// ---- refused requests ----

/// A regression: the client ended the session while exchanges that were over on the wire still had their users.
#[test]
fn a_client_with_too_many_held_exchanges_refuses_requests() {
    let mut pair = Pair::new(Setup { max_exchanges: 2, ..Setup::default() });
    let mut held = Vec::new();
    let mut refused = Vec::new();
    for round in 0..4 {
        let keys = [(); 2].map(|()| pair.daemon.open(0, request("/"), true).unwrap());
        pair.settle();
        held.extend(events(&mut pair.client).into_iter().filter_map(|event| match event {
            Event::Opened { key, .. } => Some(key),
            _ => None,
        }));
        for key in keys {
            if pair.daemon.broken(key) == Some(ExchangeError::Reset(ResetCode::Unprocessed)) {
                refused.push(round);
            }
            pair.daemon.release_send(key);
            pair.daemon.release_recv(key);
        }
        pair.settle();
    }
    assert_eq!((held.len(), refused), (4, vec![2, 2, 3, 3]));
    for key in held {
        pair.client.release_send(key);
        pair.client.release_recv(key);
    }
    pair.open(true);
}

#[test]
fn refused_requests_are_bounded_while_nothing_can_be_written() {
    let mut pair = Pair::new(Setup { max_exchanges: 1, ..Setup::default() });
    let mut failed = None;
    for round in 0..5000 {
        // A gap in the ids keeps the runs apart.
        let id = 1 + 2 * round;
        let message = [request_frame(id, true), reset_frame(id, ResetCode::Cancelled)].concat();
        if let Err(error) = pair.inject(Role::Client, &message) {
            failed = Some((round, error));
            break;
        }
    }
    assert_eq!(failed, Some((1002, ProtocolError::TooManyExchanges(1).into())));
}

// ---- Drain ----

/// A regression: a request that was opened before a Drain followed it on the wire, which ended the session.
#[test]
fn drain_goes_out_behind_requests_that_were_opened_before_it() {
    let mut pair = new();
    let now = pair.now;
    pair.daemon.open(0, request("/"), true).unwrap();
    pair.daemon.drain(DrainReason::Restart, Duration::from_secs(1), now);
    let frames = pair.frames(Role::Daemon);
    assert!(
        matches!(&frames[..], [Frame::Request { id: 1, .. }, Frame::Drain(drain)] if drain.last_exchange == Some(1)),
        "{frames:?}"
    );
}

#[test]
fn a_drain_stops_new_exchanges_and_lets_open_ones_finish() {
    for side in [Role::Daemon, Role::Client] {
        let mut pair = new();
        let (daemon, client) = pair.open(true);
        let now = pair.now;
        pair.mux(side).drain(DrainReason::Shutdown, Duration::from_secs(5), now);
        pair.mux(side).drain(DrainReason::Restart, Duration::from_secs(9), now);
        pair.settle();
        assert_eq!(pair.daemon.open(0, request("/"), true).unwrap_err(), OpenError::Unavailable);
        let told: Vec<_> = events(pair.mux(if side == Role::Daemon { Role::Client } else { Role::Daemon }));
        let drain = told.iter().find_map(|event| if let Event::Drain(drain) = event { Some(drain) } else { None });
        assert_eq!(drain.map(cok_proto::Drain::deadline), Some(Duration::from_secs(5)));
        assert!(!pair.daemon.is_drained() && !pair.client.is_drained());
        pair.client.send_response(client, response(200), true).unwrap();
        pair.settle();
        assert!(pair.daemon.is_drained() && pair.client.is_drained());
        assert!(read_all(&mut pair.daemon, daemon).ended, "what has arrived can still be read");
    }
    let mut pair = new();
    let now = pair.now;
    pair.daemon.drain(DrainReason::Restart, Duration::ZERO, now);
    pair.settle();
    refused(&mut pair, Role::Client, request_frame(1, true), &ErrorCode::Protocol);
}

#[test]
fn drains_that_cross_are_answered_once() {
    let mut pair = new();
    let now = pair.now;
    pair.daemon.drain(DrainReason::Restart, Duration::from_millis(u64::MAX), now);
    pair.client.drain(DrainReason::Shutdown, Duration::ZERO, now);
    pair.settle();
    assert!(pair.daemon.is_drained() && pair.client.is_drained());
}

// ---- floods ----

/// How often the daemon takes the same frame, after an exchange has begun or ended.
fn taken(frame: &BytesMut, ends: bool) -> usize {
    let mut pair = new();
    let (daemon, _) = pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    if ends {
        pair.inject(Role::Daemon, data_frame(1, 0, true)).unwrap();
    }
    for count in 0..20_000 {
        if let Err(error) = pair.inject(Role::Daemon, frame) {
            let SessionError::Protocol(error) = error else { panic!("{error}") };
            assert_eq!(error.code(), ErrorCode::LimitReached, "{error}");
            assert!(matches!(pair.frames(Role::Daemon).last(), Some(Frame::Error(_))));
            return count;
        }
        read_all(&mut pair.daemon, daemon);
        pair.frames(Role::Daemon);
    }
    20_000
}

#[test]
fn a_client_may_not_flood_the_frames_of_exchanges() {
    for ends in [false, true] {
        assert_eq!(taken(&data_frame(1, 0, false), ends), 1000, "empty Data");
        assert_eq!(taken(&credit_frame(1, 1), ends), 1000, "credit that nothing justifies");
    }
    assert_eq!(taken(&data_frame(1, 1, false), false), 12_000);
    for over in [reset_frame(1, ResetCode::Cancelled), head_frame(1, 200), trailers_frame(1), data_frame(1, 1, false)] {
        assert_eq!(taken(&over, true), 1000, "behind the end");
    }
    assert_eq!(taken(&data_frame(1, 16, false), false), 20_000);
    assert_eq!(taken(&data_frame(1, 16, false), true), 20_000, "what crosses the end is within its credit");
}

#[test]
fn bodies_justify_credit() {
    let mut pair = new();
    for _ in 0..500 {
        let (daemon, client) = pair.open(false);
        for _ in 0..4 {
            pair.daemon.send_data(daemon, Bytes::from_static(b"a"), false);
            pair.settle();
        }
        read_all(&mut pair.client, client);
        pair.daemon.release_send(daemon);
        pair.daemon.release_recv(daemon);
        pair.settle();
        pair.client.release_send(client);
        pair.client.release_recv(client);
        pair.settle();
    }
    let credit = credit_frame(1, 1);
    // Two for each Data frame, and the allowance.
    let taken = (0..100_000).take_while(|_| pair.inject(Role::Daemon, &credit).is_ok()).count();
    assert!((4000..=5000).contains(&taken), "{taken}");
}

// ---- liveness ----

#[test]
fn one_pong_waits_at_most() {
    let mut pair = new();
    let flood: Vec<u8> = (0..=255).flat_map(|opaque| ping_frame(opaque).to_vec()).collect();
    pair.inject(Role::Client, flood).unwrap();
    assert_eq!(pair.frames(Role::Client), [Frame::Pong([255; 8])]);
}

#[test]
fn a_silent_peer_gets_a_ping_and_then_an_error() {
    let mut pair = new();
    let start = pair.now;
    assert_eq!(pair.daemon.next_timeout(), Some(start + PING_AFTER));
    pair.daemon.handle_timeout(start + PING_AFTER.saturating_sub(Duration::from_millis(1))).unwrap();
    assert!(!pair.daemon.has_transmit());
    pair.daemon.handle_timeout(start + PING_AFTER).unwrap();
    let [Frame::Ping(opaque)] = pair.frames(Role::Daemon)[..] else { panic!("a Ping is due") };
    assert_eq!(pair.daemon.next_timeout(), Some(start + DEAD_AFTER));
    pair.daemon.handle_timeout(start + PING_AFTER).unwrap();
    assert!(!pair.daemon.has_transmit(), "one is enough");

    let mut pong = BytesMut::new();
    frame::put_pong(&mut pong, opaque);
    pair.now = start + PING_AFTER + Duration::from_secs(1);
    pair.inject(Role::Daemon, &pong).unwrap();
    assert_eq!(pair.daemon.next_timeout(), Some(pair.now + PING_AFTER));

    let nearly = DEAD_AFTER.saturating_sub(Duration::from_millis(1));
    pair.daemon.handle_timeout(pair.now + nearly).unwrap();
    assert_eq!(pair.daemon.handle_timeout(pair.now + DEAD_AFTER), Err(SessionError::Silent));
    let frames = pair.frames(Role::Daemon);
    let Some(Frame::Error(error)) = frames.last() else { panic!("{frames:?}") };
    assert_eq!((&error.code, error.retryable), (&ErrorCode::Timeout, true));
}

#[test]
fn an_unrequested_pong_measures_nothing() {
    let mut pair = new();
    let before = pair.client.round_trip();
    pair.advance(Duration::from_secs(9));
    let mut pong = BytesMut::new();
    frame::put_pong(&mut pong, [0xee; 8]);
    pair.inject(Role::Client, &pong).unwrap();
    assert_eq!(pair.client.round_trip(), before);
}

#[test]
fn a_pong_that_waited_in_a_queue_does_not_lengthen_the_round_trip() {
    let mut pair = new();
    let before = pair.client.round_trip();
    assert!(before.is_some());
    pair.client.ping(pair.now);
    let [Frame::Ping(opaque)] = pair.frames(Role::Client)[..] else { panic!("a Ping is due") };
    pair.advance(Duration::from_secs(9));
    let mut pong = BytesMut::new();
    frame::put_pong(&mut pong, opaque);
    pair.inject(Role::Client, &pong).unwrap();
    assert_eq!(pair.client.round_trip(), before);
}

// ---- the session's end ----

#[test]
fn every_exchange_gets_its_reason_at_the_end_of_the_session() {
    let mut pair = new();
    let (running, _) = pair.open(true);
    let (finished, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    pair.client.send_data(client, Bytes::from_static(b"whole"), true);
    pair.settle();
    let waiting = pair.daemon.open(0, request("/"), true).unwrap();
    events(&mut pair.daemon);
    pair.daemon.close();
    assert_eq!(pair.daemon.broken(waiting), Some(ExchangeError::Reset(ResetCode::Unprocessed)), "any method again");
    assert_eq!(pair.daemon.broken(running), Some(ExchangeError::SessionLost));
    let all = read_all(&mut pair.daemon, finished);
    assert!(all.ended && all.body == b"whole", "what has arrived can still be read");
    let told = events(&mut pair.daemon);
    for key in [waiting, running] {
        assert!(told.iter().any(|event| matches!(event, Event::Readable(told) if *told == key)));
        assert!(told.iter().any(|event| matches!(event, Event::Writable(told) if *told == key)));
    }
    assert_eq!(pair.daemon.open(0, request("/"), true).unwrap_err(), OpenError::Unavailable);
    pair.daemon.send_data(running, Bytes::from_static(b"x"), true);
    assert!(pair.frames(Role::Daemon).is_empty());
    for key in [waiting, running, finished] {
        pair.daemon.release_send(key);
        pair.daemon.release_recv(key);
    }
    assert_eq!((pair.daemon.open_exchanges(), pair.daemon.unread_bytes()), (0, 0));
}

#[test]
fn a_writer_is_called_back_once_there_is_room() {
    let mut pair = Pair::new(Setup { client_window: 1 << 20, ..Setup::default() });
    let daemon = pair.daemon.open(0, request("/"), false).unwrap();
    while pair.daemon.send_ready(daemon) == Ok(true) {
        pair.daemon.send_data(daemon, Bytes::from(vec![0; 10_000]), false);
    }
    assert!(pair.transmit(Role::Daemon) && pair.transmit(Role::Daemon));
    assert!(matches!(events(&mut pair.daemon)[..], [Event::Writable(key)] if key == daemon));
    assert_eq!(pair.daemon.send_ready(daemon), Ok(true));
}

#[test]
fn an_empty_end_needs_no_credit() {
    let mut pair = Pair::new(Setup { client_window: 0, ..Setup::default() });
    let (daemon, client) = pair.open(false);
    pair.daemon.send_data(daemon, Bytes::new(), true);
    pair.settle();
    assert_eq!(pair.client.recv(client), Some(Ok(Received::Data { data: Bytes::new(), end: true })));
}
