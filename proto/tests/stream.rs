//! Readers of streams: the length of a stream's pieces does not change the result, and broken rules are refused.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cok_proto::exchange::MAX_INTERIM_HEADS;
use cok_proto::frame::{self, FrameType};
use cok_proto::stream::{Arrived, ControlReader, ExchangeReader};
use cok_proto::{Drain, DrainReason, Frame, ProtocolError, Received, RequestHead, ResponseHead, Role, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

fn request() -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert("x-long", HeaderValue::from_str(&"v".repeat(300)).unwrap());
    RequestHead {
        method: Method::PUT,
        target: "/a?b".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.example.com".parse().unwrap(),
        headers,
    }
}

fn response(status: u16) -> ResponseHead {
    ResponseHead::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new())
}

fn data(out: &mut BytesMut, body: &[u8], end: bool) {
    frame::put_data_header(out, 7, body.len(), end);
    out.extend_from_slice(body);
}

/// All parts that a reader returns, with body bytes joined, so that only their order and number count.
fn read(reader: Role, wire: &[u8], cuts: &[usize]) -> Result<(Vec<String>, bool), ProtocolError> {
    let mut exchange = ExchangeReader::new(reader, 7);
    let (mut seen, mut body) = (Vec::new(), Vec::new());
    let mut from = 0;
    for to in cuts.iter().copied().chain([wire.len()]) {
        exchange.push(Bytes::copy_from_slice(&wire[from..to]));
        from = to;
        while let Some(arrived) = exchange.read(Instant::now())? {
            match arrived {
                Arrived::Part(Received::Data { data, end }) => {
                    body.extend_from_slice(&data);
                    if end {
                        seen.push(format!("{body:?} end"));
                    }
                }
                other => seen.push(format!("{body:?} {other:?}")),
            }
        }
    }
    seen.push(format!("{body:?}"));
    Ok((seen, exchange.has_ended()))
}

fn skipped(out: &mut BytesMut, length: u16) {
    out.extend_from_slice(&[1, 0x90, 0, 0, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.resize(out.len() + usize::from(length), 9);
}

fn a_response() -> BytesMut {
    let mut wire = BytesMut::new();
    frame::put_response(&mut wire, 7, &response(103), false);
    skipped(&mut wire, 300);
    frame::put_response(&mut wire, 7, &response(200), false);
    data(&mut wire, &[1; 700], false);
    data(&mut wire, b"", false);
    skipped(&mut wire, 0);
    data(&mut wire, b"last", false);
    let mut fields = HeaderMap::new();
    fields.insert(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"));
    frame::put_trailers(&mut wire, 7, &fields);
    wire
}

fn a_request() -> BytesMut {
    let mut wire = BytesMut::new();
    frame::put_request(&mut wire, 7, 3, &request(), false);
    data(&mut wire, &[3; 400], false);
    skipped(&mut wire, 20);
    data(&mut wire, b"end", true);
    wire
}

proptest! {
    /// Pieces of any length give the same result as one piece.
    #[test]
    fn pieces_do_not_matter(cuts in prop::collection::vec(0_usize..2000, 0..40)) {
        for (role, wire) in [(Role::Daemon, a_response()), (Role::Client, a_request())] {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % wire.len()).collect();
            cuts.sort_unstable();
            let whole = read(role, &wire, &[]).unwrap();
            prop_assert!(whole.1);
            prop_assert_eq!(read(role, &wire, &cuts).unwrap(), whole);
        }
    }

    /// A reader refuses arbitrary bytes or waits for more; it never panics.
    #[test]
    fn nonsense_does_not_panic(wire in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let cut = [cut.min(wire.len())];
        let _any = read(Role::Daemon, &wire, &cut);
        let _any = read(Role::Client, &wire, &cut);
        let mut control = ControlReader::default();
        control.push(wire.into());
        while let Ok(Some(_)) = control.read() {}
    }

    /// The same for streams with a few wrong bytes.
    #[test]
    fn one_wrong_byte_does_not_panic(at in 0_usize..2000, byte in any::<u8>(), cut in 0_usize..2000) {
        for (role, mut wire) in [(Role::Daemon, a_response()), (Role::Client, a_request())] {
            let length = wire.len();
            wire[at % length] = byte;
            let _any = read(role, &wire, &[cut % length]);
        }
    }
}

#[test]
fn a_body_passes_as_it_comes() {
    let mut wire = BytesMut::new();
    frame::put_request(&mut wire, 7, 3, &request(), false);
    data(&mut wire, b"abcdef", true);
    let body = wire.split_off(wire.len() - 6).freeze();
    let mut reader = ExchangeReader::new(Role::Client, 7);
    reader.push(wire.freeze());
    assert!(matches!(reader.read(Instant::now()).unwrap(), Some(Arrived::Request { end: false, .. })));
    assert_eq!(reader.read(Instant::now()).unwrap(), None);
    for (at, byte) in body.chunks(1).enumerate() {
        reader.push(Bytes::copy_from_slice(byte));
        let expected = Received::Data { data: Bytes::copy_from_slice(byte), end: at == 5 };
        assert_eq!(reader.read(Instant::now()).unwrap(), Some(Arrived::Part(expected)));
        assert_eq!(reader.read(Instant::now()).unwrap(), None);
    }
    assert!(reader.has_ended());
}

#[test]
fn rules_of_an_exchange() {
    type Build = fn(&mut BytesMut);
    let wrong: [(&str, Role, Build); 12] = [
        ("body before its head", Role::Daemon, |out| data(out, b"x", false)),
        ("trailers before the head", Role::Daemon, |out| frame::put_trailers(out, 7, &HeaderMap::new())),
        ("a request to a daemon", Role::Daemon, |out| frame::put_request(out, 7, 3, &request(), true)),
        ("a response to a client", Role::Client, |out| frame::put_response(out, 7, &response(200), true)),
        ("another exchange", Role::Daemon, |out| frame::put_response(out, 8, &response(200), true)),
        ("an interim head with END", Role::Daemon, |out| frame::put_response(out, 7, &response(103), true)),
        ("two final heads", Role::Daemon, |out| {
            frame::put_response(out, 7, &response(200), false);
            frame::put_response(out, 7, &response(200), false);
        }),
        ("two requests", Role::Client, |out| {
            frame::put_request(out, 7, 3, &request(), false);
            frame::put_request(out, 7, 3, &request(), false);
        }),
        ("more behind END", Role::Daemon, |out| {
            frame::put_response(out, 7, &response(204), true);
            data(out, b"", true);
        }),
        ("too many interim heads", Role::Daemon, |out| {
            for _ in 0..=MAX_INTERIM_HEADS {
                frame::put_response(out, 7, &response(103), false);
            }
        }),
        ("a Reset, which is QUIC's to do", Role::Daemon, |out| {
            frame::put_reset(out, 7, cok_proto::ResetCode::Cancelled);
        }),
        ("a stream of skipped frames", Role::Client, |out| {
            for _ in 0..20 {
                skipped(out, u16::MAX);
            }
        }),
    ];
    for (what, role, build) in wrong {
        let mut wire = BytesMut::new();
        build(&mut wire);
        assert!(read(role, &wire, &[]).is_err(), "{what}");
    }
}

#[test]
fn control_frames_come_whole() {
    let drain = Drain { reason: DrainReason::Restart, deadline_ms: 5, last_exchange: Some(3) };
    let mut wire = BytesMut::new();
    frame::put_json(&mut wire, FrameType::Drain, &drain);
    skipped(&mut wire, 1000);
    frame::put_ping(&mut wire, [5; 8]);
    let mut control = ControlReader::default();
    let mut seen = Vec::new();
    for byte in &wire {
        control.push(Bytes::copy_from_slice(&[*byte]));
        while let Some(frame) = control.read().unwrap() {
            seen.push(frame);
        }
    }
    assert_eq!(seen, [Frame::Drain(drain), Frame::Ping([5; 8])]);
    let mut control = ControlReader::default();
    let mut wire = BytesMut::new();
    data(&mut wire, b"", true);
    control.push(wire.freeze());
    assert!(matches!(control.read(), Err(ProtocolError::Unexpected { kind: "Data", .. })));
}
