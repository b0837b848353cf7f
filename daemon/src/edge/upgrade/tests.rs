//! Which requests are upgrades, how they are sent and granted, and the Close frame of a visitor's WebSocket.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use std::collections::VecDeque;
use std::sync::Arc;

use http_body::Frame;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, duplex};

use super::*;
use crate::drain::{Config, Drain, Phase};
use crate::edge::interim::InterimHeads;
use crate::edge::request::{BrokenOff, RequestBody, VisitorStream};
use crate::test_halves::TestHalf;

#[test]
fn the_visitor_gets_one_close_frame_in_the_farewell_phase() {
    let drain = Drain::new(Config::default());
    let (near, mut far) = duplex(1024);
    let mut carried =
        pin!(carry(near, Box::<TestHalf>::default(), Box::<TestHalf>::default(), Some(drain.watch(Phase::Farewell))));
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    assert!(carried.as_mut().poll(&mut cx).is_pending());
    assert!(pin!(far.read_buf(&mut seen)).poll(&mut cx).is_pending(), "nothing before the phase");
    drain.enter(Phase::Farewell);
    assert!(carried.as_mut().poll(&mut cx).is_pending(), "the service may still answer");
    assert!(matches!(pin!(far.read_buf(&mut seen)).poll(&mut cx), Poll::Ready(Ok(_))));
    assert!(carried.as_mut().poll(&mut cx).is_pending());
    assert!(pin!(far.read_buf(&mut seen)).poll(&mut cx).is_pending(), "once is enough");
    assert_eq!(seen, going_away(RESTARTING));
}

/// The protocol that a request asks for, if it is an upgrade.
fn asked(version: Version, method: &str, fields: &[(&str, &str)], body: &'static str) -> Option<String> {
    let mut request = Request::builder().version(version).method(method);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    match Upgrade::of(&request.body(Full::new(Bytes::from(body))).unwrap()) {
        Upgrade::Http1(protocol) => Some(protocol.to_str().unwrap().to_owned()),
        _ => None,
    }
}

#[test]
fn one_protocol_other_than_http_is_an_upgrade() {
    let upgrade = |protocol| asked(Version::HTTP_11, "GET", &[("connection", "Upgrade"), ("upgrade", protocol)], "");
    for protocol in ["websocket", "WebSocket", "tcp", "SPDY/3.1", "odd/1"] {
        assert_eq!(upgrade(protocol).as_deref(), Some(protocol));
    }
    for protocol in [
        "",
        "h2c",
        "H2C",
        "h2c/1",
        "h2",
        "h3",
        "HTTP/2.0",
        "http/1.1",
        "a, b",
        "websocket, h2c",
        "h2c, x",
        "a b",
        "a/",
        "/1",
        "a/1/2",
        ",",
    ] {
        assert_eq!(upgrade(protocol), None, "{protocol}");
    }
}

#[test]
fn an_upgrade_has_conditions() {
    let named = [("connection", "keep-alive, upgrade"), ("upgrade", "tcp")];
    let h1 = Version::HTTP_11;
    for method in ["GET", "POST", "PUT"] {
        assert!(asked(h1, method, &named, "").is_some() && asked(h1, method, &named, "body").is_some(), "{method}");
    }
    assert_eq!(asked(Version::HTTP_10, "GET", &named, ""), None);
    assert_eq!(asked(h1, "GET", &named[1..], ""), None);
    assert_eq!(asked(h1, "GET", &[named[0], named[1], ("upgrade", "tcp")], ""), None);
    assert_eq!(asked(h1, "GET", &[named[0], named[1], ("http2-settings", "x")], ""), None);
    let websocket = [named[0], ("upgrade", "websocket")];
    assert!(asked(h1, "GET", &websocket, "").is_some());
    assert_eq!(asked(h1, "POST", &websocket, ""), None);
    let expects = [named[0], named[1], ("expect", "100-continue")];
    assert!(asked(h1, "POST", &expects, "").is_some());
    assert_eq!(asked(h1, "POST", &expects, "body"), None);
}

#[test]
fn a_switch_names_what_was_asked_for() {
    let upgrade = Upgrade::Http1(HeaderValue::from_static("websocket"));
    let complete =
        |named: Option<&'static str>| upgrade.complete(HeaderMap::new(), named.map(HeaderValue::from_static));
    let response = complete(Some("WebSocket")).unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        (&response.headers()[UPGRADE], &response.headers()[CONNECTION]),
        (&"WebSocket".parse().unwrap(), &"upgrade".parse().unwrap())
    );
    for named in [None, Some(""), Some("tcp"), Some("websocket, tcp"), Some("websocket/13")] {
        assert!(complete(named).is_none(), "{named:?}");
    }
}

/// A body that is there in parts.
#[derive(Debug)]
struct Parts(VecDeque<&'static str>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(Bytes::from(part)))))
    }
}

impl VisitorStream for Parts {
    fn poll_abandoned(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn interim(&self) -> Arc<InterimHeads> {
        Arc::new(InterimHeads::new(Arc::default()))
    }
}

#[test]
fn raw_bytes_follow_the_end_of_a_body() {
    let half = TestHalf::default();
    let taken = half.taken.clone();
    let body = RequestBody::Stream(Box::pin(Parts(["a ", "body"].into())));
    let mut sending = Sending::new(Some(body), Box::new(half));
    for _ in 0..2 {
        sending.poll(&mut Context::from_waker(Waker::noop()));
    }
    sending.into_send().send_data(Bytes::from("raw"), false);
    let taken = taken.lock();
    let expected = [("a ", false), ("body", false), ("", true), ("raw", false)];
    assert_eq!(taken.data, expected.map(|(data, end)| (Bytes::from(data), end)));
    assert_eq!(taken.resets, []);
}
