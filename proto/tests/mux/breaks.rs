//! Bodies that break off: everything that was sent before arrives, then the failure.

use std::time::Duration;

use bytes::Bytes;
use cok_proto::exchange::LINGER;
use cok_proto::frame::Frame;
use cok_proto::mux::ExchangeKey;
use cok_proto::{ErrorCode, ExchangeError, ResetCode, Role};

use crate::pair::{Pair, Setup, read_all, request, response};

const BROKEN: ExchangeError = ExchangeError::Reset(ResetCode::LocalBroken);
const CANCELLED: ExchangeError = ExchangeError::Reset(ResetCode::Cancelled);

fn with_window(window: u32) -> Pair {
    Pair::new(Setup { daemon_window: window, client_window: window, ..Setup::default() })
}

/// A response that has begun, with these body bytes, and broke off.
fn broken_response(pair: &mut Pair, body: &'static [u8]) -> (ExchangeKey, ExchangeKey) {
    let (daemon, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    pair.client.send_data(client, Bytes::from_static(body), false);
    pair.client.break_off(client, ResetCode::LocalBroken);
    (daemon, client)
}

#[test]
fn a_response_arrives_up_to_where_it_broke_off() {
    let mut pair = with_window(5);
    let (daemon, client) = broken_response(&mut pair, b"last words");
    pair.client.release_send(client);
    pair.client.release_recv(client);
    pair.settle();
    assert_eq!(pair.daemon.broken(daemon), None, "the visitor gets the rest first");
    assert_eq!(pair.client.open_exchanges(), 1, "five bytes wait for credit");
    let mut body = Vec::new();
    let error = loop {
        let all = read_all(&mut pair.daemon, daemon);
        body.extend_from_slice(&all.body);
        match all.error {
            Some(error) => break error,
            None => pair.settle(),
        }
    };
    assert_eq!((body.as_slice(), error), (b"last words".as_slice(), BROKEN));
    pair.settle();
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    assert_eq!(pair.daemon.recv(daemon), Some(Err(BROKEN)), "the reader may ask again");
}

#[test]
fn a_visitor_who_leaves_drops_what_waits_in_front_of_a_break() {
    let mut pair = with_window(5);
    let (daemon, client) = broken_response(&mut pair, b"last words");
    pair.settle();
    pair.daemon.release_recv(daemon);
    pair.settle();
    assert_eq!(pair.client.broken(client), Some(CANCELLED));
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    assert_eq!(pair.daemon.unread_bytes(), 0);
}

#[test]
fn a_response_that_broke_off_counts_until_it_has_gone_out() {
    let mut pair = Pair::new(Setup { daemon_window: 5, max_exchanges: 1, ..Setup::default() });
    let (daemon, client) = broken_response(&mut pair, b"words");
    pair.client.release_recv(client);
    pair.client.release_send(client);
    pair.settle();
    // The reader holds its handles, but nothing is open on the wire.
    assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
    let all = read_all(&mut pair.daemon, daemon);
    assert_eq!((all.body.as_slice(), all.error), (b"words".as_slice(), Some(BROKEN)));
    pair.daemon.release_send(daemon);
    pair.daemon.release_recv(daemon);
    pair.daemon.open(0, request("/"), true).unwrap();
}

#[test]
fn before_a_body_a_break_abandons_the_exchange() {
    let mut pair = with_window(5);
    let (daemon, client) = pair.open(true);
    pair.client.break_off(client, ResetCode::LocalTimeout);
    let frames = pair.frames(Role::Client);
    assert!(matches!(frames[..], [Frame::Reset { id: 1, code: ResetCode::LocalTimeout }]), "{frames:?}");
    let unsent = pair.daemon.open(0, request("/"), false).unwrap();
    pair.daemon.break_off(unsent, ResetCode::Cancelled);
    assert!(pair.frames(Role::Daemon).is_empty(), "a request that has not gone out needs no end");
    pair.daemon.release_recv(daemon);
}

#[test]
fn an_end_that_was_handed_over_stays() {
    let mut pair = with_window(5);
    let (daemon, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    pair.client.send_data(client, Bytes::from_static(b"whole"), true);
    pair.client.break_off(client, ResetCode::LocalBroken);
    pair.settle();
    let all = read_all(&mut pair.daemon, daemon);
    assert!(all.ended && all.body == b"whole" && all.error.is_none());
}

/// An upload of ten bytes that broke off, whose visitor has left.
fn broken_upload(pair: &mut Pair) -> (ExchangeKey, ExchangeKey) {
    let (daemon, client) = pair.open(false);
    pair.daemon.send_data(daemon, Bytes::from_static(b"last words"), false);
    pair.daemon.break_off(daemon, ResetCode::Cancelled);
    pair.daemon.release_send(daemon);
    pair.daemon.release_recv(daemon);
    pair.settle();
    (daemon, client)
}

#[test]
fn a_service_gets_an_upload_up_to_where_it_broke_off() {
    for window in [5, 100] {
        let mut pair = with_window(window);
        let (_, client) = broken_upload(&mut pair);
        // What the service answers meanwhile has no effect any more, and breaks no rule.
        pair.client.send_response(client, response(200), false).unwrap();
        pair.client.send_data(client, Bytes::from_static(b"bytes"), false);
        let mut body = Vec::new();
        let error = loop {
            pair.settle();
            assert_eq!(pair.client.broken(client), None);
            let all = read_all(&mut pair.client, client);
            body.extend_from_slice(&all.body);
            if let Some(error) = all.error {
                break error;
            }
        };
        assert_eq!((body.as_slice(), error), (b"last words".as_slice(), CANCELLED));
        assert_eq!(pair.client.broken(client), Some(CANCELLED), "the response is not wanted");
        pair.settle();
        assert_eq!((pair.daemon.open_exchanges(), pair.client.open_exchanges()), (0, 0));
        assert_eq!(pair.daemon.unread_bytes(), 0);
    }
}

#[test]
fn an_upload_without_a_reader_is_given_up_after_a_while() {
    // Four steps are longer than the daemon waits, and three are not.
    const STEP: Duration = Duration::from_secs(LINGER.as_secs() / 4 + 1);
    let mut pair = with_window(5);
    let (_, client) = broken_upload(&mut pair);
    assert_eq!(pair.daemon.open_exchanges(), 1);
    for _ in 0..3 {
        pair.advance(STEP);
        let now = pair.now;
        pair.daemon.handle_timeout(now).unwrap();
        pair.settle();
    }
    assert_eq!((pair.daemon.open_exchanges(), pair.client.broken(client)), (1, None));
    assert!(pair.daemon.next_timeout().unwrap() <= pair.now + STEP);
    pair.advance(STEP);
    let now = pair.now;
    pair.daemon.handle_timeout(now).unwrap();
    pair.settle();
    assert_eq!((pair.daemon.open_exchanges(), pair.client.broken(client)), (0, Some(CANCELLED)));
    assert_eq!(pair.client.unread_bytes(), 0);
}

#[test]
fn a_break_is_judged_like_the_rest_of_a_body() {
    let mut frame = bytes::BytesMut::new();
    cok_proto::frame::put_break(&mut frame, 1, ResetCode::LocalBroken);
    let mut pair = with_window(5);
    pair.open(true);
    assert!(pair.inject(Role::Daemon, &frame).is_err(), "before the final head");
    let mut pair = with_window(5);
    pair.open(true);
    let error = pair.inject(Role::Client, &frame).unwrap_err();
    let cok_proto::SessionError::Protocol(error) = error else { panic!("{error}") };
    assert_eq!(error.code(), ErrorCode::Protocol, "behind the end of the request");
}
