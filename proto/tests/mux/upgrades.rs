//! Upgrades: a request of any method and with a body, then raw bytes in both directions if the answer is a 101.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, Frame};
use cok_proto::mux::ExchangeKey;
use cok_proto::{ErrorCode, ExchangeError, RequestHead, ResetCode, Role, SessionError};
use http::Method;

use crate::pair::{Pair, Setup, data_frame, head_frame, read_all, request, response, trailers};

/// A request for an upgrade, which a method with a body may make too.
fn upgrade() -> Arc<RequestHead> {
    let mut head = (*request("/raw")).clone();
    head.method = Method::POST;
    head.headers.insert("upgrade", "raw".parse().unwrap());
    head.into()
}

fn asked(end: bool) -> (Pair, ExchangeKey, ExchangeKey) {
    let mut pair = Pair::new(Setup::default());
    let daemon = pair.daemon.open(0, upgrade(), end).unwrap();
    pair.settle();
    let client = pair.opened();
    (pair, daemon, client)
}

#[track_caller]
fn ends(pair: &mut Pair, to: Role, message: impl AsRef<[u8]>) {
    let SessionError::Protocol(error) = pair.inject(to, message).unwrap_err() else { panic!("the peer is at fault") };
    assert_eq!(error.code(), ErrorCode::Protocol, "{error}");
}

#[test]
fn raw_bytes_follow_the_body_of_an_upgrade() {
    for with_trailers in [false, true] {
        let (mut pair, daemon, client) = asked(false);
        pair.daemon.send_data(daemon, Bytes::from_static(b"body"), !with_trailers);
        if with_trailers {
            pair.daemon.send_trailers(daemon, trailers()).unwrap();
        }
        pair.settle();
        let body = read_all(&mut pair.client, client);
        assert_eq!((&body.body[..], body.trailers.is_some(), body.ended), (&b"body"[..], with_trailers, true));
        pair.client.send_response(client, response(103), false).unwrap();
        pair.client.send_response(client, response(101), false).unwrap();
        pair.client.send_data(client, Bytes::from_static(b"hello"), false);
        pair.settle();
        let answer = read_all(&mut pair.daemon, daemon);
        assert_eq!((answer.heads, &answer.body[..]), (vec![response(103), response(101)], &b"hello"[..]));
        for (side, from, to) in [(Role::Daemon, daemon, client), (Role::Client, client, daemon)] {
            pair.mux(side).send_data(from, Bytes::from_static(b"raw"), false);
            pair.mux(side).send_data(from, Bytes::from_static(b"end"), true);
            pair.settle();
            let raw = read_all(pair.mux(side.peer()), to);
            assert_eq!((&raw.body[..], raw.ended, raw.error), (&b"rawend"[..], true, None));
        }
        assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    }
}

#[test]
fn an_upgrade_without_a_body_ends_with_its_head() {
    let (mut pair, daemon, client) = asked(true);
    pair.client.send_response(client, response(101), false).unwrap();
    pair.settle();
    pair.daemon.send_data(daemon, Bytes::from_static(b"raw"), false);
    pair.settle();
    assert_eq!(read_all(&mut pair.client, client).body, b"raw");
}

/// The window of the request's direction counts the body and the raw bytes.
#[test]
fn credit_goes_on_after_the_switch() {
    let mut pair = Pair::new(Setup { client_window: 1000, budget: 0, ..Setup::default() });
    let daemon = pair.daemon.open(0, upgrade(), false).unwrap();
    pair.daemon.send_data(daemon, Bytes::from(vec![1; 900]), true);
    pair.settle();
    let client = pair.opened();
    assert!(read_all(&mut pair.client, client).ended);
    pair.client.send_response(client, response(101), false).unwrap();
    pair.settle();
    let mut received = 0;
    for _ in 0..10 {
        pair.daemon.send_data(daemon, Bytes::from(vec![2; 900]), false);
        pair.settle();
        received += read_all(&mut pair.client, client).body.len();
        pair.settle();
    }
    received += read_all(&mut pair.client, client).body.len();
    assert_eq!(received, 9000);
}

#[test]
fn a_declined_upgrade_is_an_ordinary_exchange() {
    for status in [200, 426] {
        let (mut pair, daemon, client) = asked(true);
        pair.client.send_response(client, response(status), true).unwrap();
        let frames = pair.frames(Role::Client);
        assert!(matches!(frames[..], [Frame::Response { end: true, .. }]), "no Reset follows: {frames:?}");
        pair.inject(Role::Daemon, {
            let mut head = head_frame(1, status);
            head[2] = frame::FLAG_END;
            head
        })
        .unwrap();
        assert!(read_all(&mut pair.daemon, daemon).ended);
        assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));

        // The body goes on behind the answer.
        let (mut pair, daemon, client) = asked(false);
        pair.client.send_response(client, response(status), true).unwrap();
        pair.settle();
        pair.daemon.send_data(daemon, Bytes::from_static(b"late"), true);
        pair.settle();
        assert_eq!(read_all(&mut pair.client, client).body, b"late");
        assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    }
}

#[test]
fn a_101_at_a_wrong_time_ends_the_session() {
    let mut plain = Pair::new(Setup::default());
    plain.open(true);
    ends(&mut plain, Role::Daemon, head_frame(1, 101));
    let (mut pair, ..) = asked(false);
    ends(&mut pair, Role::Daemon, head_frame(1, 101));
    // The client cannot know of an end that waits here.
    let (mut pair, daemon, _) = asked(false);
    pair.daemon.send_data(daemon, Bytes::new(), true);
    ends(&mut pair, Role::Daemon, head_frame(1, 101));
}

#[test]
fn raw_bytes_before_the_answer_end_the_session() {
    let (mut pair, ..) = asked(true);
    ends(&mut pair, Role::Client, data_frame(1, 1, false));
    let (mut pair, ..) = asked(false);
    pair.inject(Role::Client, data_frame(1, 1, true)).unwrap();
    let mut late = BytesMut::new();
    frame::put_trailers(&mut late, 1, &trailers());
    ends(&mut pair, Role::Client, late);
}

#[test]
fn a_101_that_the_client_may_not_send_stays_off_the_wire() {
    let mut plain = Pair::new(Setup::default());
    let (daemon, client) = plain.open(true);
    plain.client.send_response(client, response(101), false).unwrap();
    plain.settle();
    assert_eq!(plain.daemon.broken(daemon), Some(ExchangeError::Reset(ResetCode::LocalBroken)));
    let (mut pair, daemon, client) = asked(false);
    pair.client.send_response(client, response(101), false).unwrap();
    pair.settle();
    assert_eq!(pair.daemon.broken(daemon), Some(ExchangeError::Reset(ResetCode::LocalBroken)));
}

/// A declined upgrade whose body the service does not want.
#[test]
fn the_body_of_an_upgrade_may_be_stopped() {
    let (mut pair, daemon, client) = asked(false);
    pair.client.release_recv(client);
    pair.client.send_response(client, response(413), true).unwrap();
    pair.settle();
    assert_eq!(pair.daemon.send_ready(daemon), Err(ExchangeError::Reset(ResetCode::NoError)));
    assert!(read_all(&mut pair.daemon, daemon).ended);
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
}
