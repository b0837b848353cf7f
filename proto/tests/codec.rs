//! The codec on any input: round trips of every frame type, changed bytes, arbitrary bytes, and frames in parts.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

#[path = "support/encode.rs"]
mod encode;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{
    DATA_CHUNK, Frame, FrameHeader, FrameType, HEADER_LEN, MAX_DATA_FRAME, MAX_HEAD, MAX_PAYLOAD, MESSAGE_TARGET,
};
use cok_proto::head::{self, HeadTooLarge, MAX_FIELDS, RequestHead, ResponseHead, Target};
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, Drain, DrainReason, ErrorCode, ErrorMessage, FallbackReason, ProtocolError,
    ResetCode, Scheme, TunnelFrame, Unbind, UnbindReason,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use serde_json::Value;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,20}", any::<String>()]
}

fn value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![4 => 0x20..=0x7e_u8, 2 => 0x80..=0xff_u8, 1 => Just(b'\t')];
    prop::collection::vec(byte, 0..40).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

/// Fields with few names, so that names repeat.
fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof!["[a-c]", "x-[a-z]{1,10}", "[!#$%&'*+.^_`|~0-9a-z-]{1,30}"];
    let field = (name.prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()), value());
    prop::collection::vec(field, 0..20).prop_map(HeaderMap::from_iter)
}

fn request() -> impl Strategy<Value = RequestHead> {
    let method = "[A-Z]{1,10}|[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}";
    let target = prop_oneof![
        "/[!$-;=@-Z_a-z~%{}|\"]{0,60}(\\?[!$-;=?-Z_a-z~%']{0,60})?".prop_map(|target| target),
        Just("*".to_owned()),
    ];
    let authority = "[a-z0-9.-]{1,40}(:[0-9]{1,5})?|\\[::1\\]:8443";
    (method, target, any::<bool>(), authority, fields()).prop_map(|(method, target, https, authority, headers)| {
        RequestHead {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: target.parse().unwrap(),
            scheme: if https { Scheme::Https } else { Scheme::Http },
            authority: authority.parse().unwrap(),
            headers,
        }
    })
}

fn response() -> impl Strategy<Value = ResponseHead> {
    let reason = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..=255)
    ];
    let micros = prop::option::of(1..=u32::MAX);
    (100..1000_u16, reason, micros, fields()).prop_map(|(status, reason, micros, headers)| ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        reason: reason.into(),
        first_byte: micros.map(|micros| Duration::from_micros(micros.into())),
        headers,
    })
}

fn connect() -> impl Strategy<Value = Connect> {
    let list = prop::collection::vec(text(), 0..4);
    let option = || prop::option::of(text());
    let fallback = prop::option::of(prop_oneof![
        Just(FallbackReason::NoAnswer),
        Just(FallbackReason::BadPath),
        Just(FallbackReason::Other("unheard of".to_owned())),
    ]);
    (text(), any::<bool>(), option(), text(), option(), any::<u32>(), text(), list, fallback).prop_map(
        |(key, tunnel, subdomain, instance, replaces, initial_window, version, features, fallback)| Connect {
            key,
            tunnel,
            subdomain,
            instance,
            replaces,
            initial_window,
            version,
            features,
            fallback,
        },
    )
}

fn ack() -> impl Strategy<Value = ConnectAck> {
    let list = prop::collection::vec(text(), 0..4);
    let option = || prop::option::of(text());
    (text(), option(), option(), any::<u32>(), any::<u32>(), any::<u32>(), list).prop_map(
        |(session, subdomain, url, moved, initial_window, max_exchanges, features)| ConnectAck {
            session,
            subdomain,
            url,
            moved,
            initial_window,
            max_exchanges,
            features,
        },
    )
}

fn drain() -> impl Strategy<Value = Drain> {
    use DrainReason::{Handover, Ids, Other, Restart, Shutdown};
    let known = [Restart, Handover, Ids, Shutdown, Other("moved".to_owned())];
    (prop::sample::select(known.to_vec()), any::<u64>(), any::<Option<u32>>())
        .prop_map(|(reason, deadline_ms, last_exchange)| Drain { reason, deadline_ms, last_exchange })
}

fn error() -> impl Strategy<Value = ErrorMessage> {
    use ErrorCode::{
        Draining, FlowControl, Moved, NameTaken, Other, Protocol, Shutdown, TooLarge, Unsupported, Version,
    };
    let other = Other("new".into());
    let known = [Protocol, Version, TooLarge, FlowControl, NameTaken, Shutdown, Unsupported, Draining, Moved, other];
    (prop::sample::select(known.to_vec()), text(), any::<bool>()).prop_map(|(code, message, retryable)| ErrorMessage {
        code,
        message,
        retryable,
    })
}

fn bind() -> impl Strategy<Value = Bind> {
    let rules = prop::collection::btree_map(text(), prop_oneof![Just(Value::Null), text().prop_map(Value::from)], 0..3);
    let rules = rules.prop_map(|rules| Value::Object(rules.into_iter().collect()));
    let rules = prop_oneof![4 => rules, 1 => text().prop_map(Value::from)];
    (prop_oneof![Just("http".to_owned()), text()], prop::option::of(text()), rules, any::<bool>())
        .prop_map(|(kind, subdomain, rules, take_over)| Bind { kind, subdomain, rules, take_over })
}

fn unbind() -> impl Strategy<Value = Unbind> {
    use UnbindReason::{Closed, Moved, Other, Replaced, Revoked};
    let known = [Closed, Replaced, Moved, Revoked, Other("quota".to_owned())];
    let option = || prop::option::of(text());
    (prop::sample::select(known.to_vec()), any::<u64>(), option(), option())
        .prop_map(|(reason, deadline_ms, address, version)| Unbind { reason, deadline_ms, address, version })
}

fn tunnel_frame() -> impl Strategy<Value = TunnelFrame> {
    prop_oneof![
        bind().prop_map(TunnelFrame::Bind),
        (text(), text()).prop_map(|(subdomain, url)| TunnelFrame::Bound(Bound { subdomain, url })),
        error().prop_map(TunnelFrame::Refused),
        unbind().prop_map(TunnelFrame::Unbind),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = any::<u32>;
    let body = prop_oneof![9 => 0..100_usize, 1 => 0..=DATA_CHUNK].prop_map(|length| Bytes::from(vec![0x5a; length]));
    prop_oneof![
        connect().prop_map(Frame::Connect),
        ack().prop_map(Frame::ConnectAck),
        drain().prop_map(Frame::Drain),
        error().prop_map(Frame::Error),
        (id(), tunnel_frame()).prop_map(|(id, frame)| Frame::Tunnel { id, frame }),
        (id(), id(), request(), any::<bool>()).prop_map(|(id, tunnel, head, end)| Frame::Request {
            id,
            tunnel,
            head,
            end
        }),
        (id(), response(), any::<bool>()).prop_map(|(id, head, end)| Frame::Response { id, head, end }),
        (id(), body, any::<bool>()).prop_map(|(id, body, end)| Frame::Data { id, body, end }),
        (id(), fields()).prop_map(|(id, fields)| Frame::Trailers { id, fields }),
        (id(), id()).prop_map(|(id, code)| Frame::Reset { id, code: code.into() }),
        (id(), 0..9_u32).prop_map(|(id, code)| Frame::Reset { id, code: code.into() }),
        (id(), 0..9_u32).prop_map(|(id, code)| Frame::Break { id, code: code.into() }),
        (id(), id()).prop_map(|(id, increment)| Frame::WindowUpdate { id, increment }),
        any::<[u8; 8]>().prop_map(Frame::Ping),
        any::<[u8; 8]>().prop_map(Frame::Pong),
    ]
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    assert!(encode::encode(&mut out, frame));
    out.freeze()
}

/// Decodes until a frame is wrong or incomplete. The memory of the result must be in proportion to the input.
fn decode_anything(bytes: &[u8]) -> Vec<Frame> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut frames = Vec::new();
    loop {
        let before = rest.len();
        match Frame::decode(&mut rest) {
            Ok(Some(frame)) => {
                assert!(rest.len() + HEADER_LEN <= before);
                if let Some(fields) = fields_of(&frame) {
                    // The decoder allocates only as many fields as the bytes can hold.
                    assert!(fields.capacity() <= 2 * (before / 4) + 16, "{} for {before} bytes", fields.capacity());
                }
                frames.push(frame);
            }
            Ok(None) => {
                assert_eq!(rest.len(), before);
                return frames;
            }
            Err(error) => {
                assert!(error.to_string().len() < 300, "{error}");
                return frames;
            }
        }
    }
}

fn fields_of(frame: &Frame) -> Option<&HeaderMap> {
    match frame {
        Frame::Request { head, .. } => Some(&head.headers),
        Frame::Response { head, .. } => Some(&head.headers),
        Frame::Trailers { fields, .. } => Some(fields),
        _ => None,
    }
}

proptest! {
    #[test]
    fn every_frame_survives_the_way_there_and_back(frame in frame()) {
        let bytes = encoded(&frame);
        let mut rest = bytes.clone();
        prop_assert_eq!(Frame::decode(&mut rest), Ok(Some(frame.clone())));
        prop_assert!(rest.is_empty());
        let header = FrameHeader::parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(header.length, bytes.len() - HEADER_LEN);
        prop_assert!(header.length <= header.kind.limit());
        prop_assert_eq!(Frame::decode_payload(header, bytes.slice(HEADER_LEN..)), Ok(frame));
    }

    #[test]
    fn frames_come_out_one_by_one_wherever_the_bytes_are_split(
        frames in prop::collection::vec(frame(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let all: Vec<u8> = frames.iter().flat_map(|frame| encoded(frame).to_vec()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(all.len() + 1)).collect();
        cuts.extend([0, all.len()]);
        cuts.sort_unstable();
        let mut buffer = BytesMut::new();
        let mut decoded = Vec::new();
        for pair in cuts.windows(2) {
            buffer.extend_from_slice(&all[pair[0]..pair[1]]);
            let mut rest = buffer.split().freeze();
            while let Some(frame) = Frame::decode(&mut rest).unwrap() {
                decoded.push(frame);
            }
            buffer.extend_from_slice(&rest);
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn a_frame_cut_short_is_unfinished(frame in frame(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&frame);
        let mut short = bytes.slice(..cut.index(bytes.len()));
        let length = short.len();
        prop_assert_eq!(Frame::decode(&mut short), Ok(None));
        prop_assert_eq!(short.len(), length);
    }

    #[test]
    fn flipped_bits_do_no_harm(
        frame in frame(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..8),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = encoded(&frame).to_vec();
        bytes.extend_from_slice(&tail);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        decode_anything(&bytes);
    }

    #[test]
    fn a_payload_with_bytes_added_or_missing_is_refused(frame in frame(), change in -5..5_isize) {
        let bytes = encoded(&frame);
        let header = FrameHeader::parse(&bytes).unwrap().unwrap();
        let length = header.length.saturating_add_signed(change);
        let mut payload = bytes[HEADER_LEN..].to_vec();
        payload.resize(length, 0x01);
        let result = Frame::decode_payload(header, payload.into());
        let fixed = !matches!(frame, Frame::Data { .. });
        if length != header.length && fixed {
            prop_assert!(matches!(result, Err(ProtocolError::Malformed { .. })), "{:?}", result);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_anything(&bytes);
    }

    #[test]
    fn arbitrary_payloads_do_no_harm(kind in any::<u8>(), end in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1, kind, u8::from(end)];
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&payload);
        decode_anything(&bytes);
    }

    #[test]
    fn fields_keep_their_order_and_bytes(
        values in prop::collection::vec((0..4_usize, value()), 0..200),
    ) {
        let names = ["set-cookie", "x-a", "x-b", "link"];
        let mut fields = HeaderMap::new();
        for (name, value) in &values {
            fields.append(names[*name], value.clone());
        }
        let frame = Frame::Trailers { id: 1, fields };
        let Ok(Some(Frame::Trailers { fields, .. })) = Frame::decode(&mut encoded(&frame)) else { panic!() };
        for (index, name) in names.iter().enumerate() {
            let expected: Vec<_> = values.iter().filter(|(of, _)| *of == index).map(|(_, value)| value).collect();
            prop_assert_eq!(fields.get_all(*name).iter().collect::<Vec<_>>(), expected);
        }
    }

    /// The decoder accepts every target that an HTTP library accepts.
    #[test]
    fn any_target_of_the_library_arrives(target in prop_oneof!["[/?#][!-~]{0,40}", "[/?]\\PC{0,20}"]) {
        if let Ok(target) = target.parse::<PathAndQuery>() {
            let head = RequestHead {
                method: Method::GET,
                target: target.clone().into(),
                scheme: Scheme::Https,
                authority: "a".parse().unwrap(),
                headers: HeaderMap::new(),
            };
            let mut out = BytesMut::new();
            head.encode(&mut out);
            prop_assert_eq!(head.encoded_len(), Ok(out.len()));
            let decoded = RequestHead::decode(out.freeze()).unwrap();
            let (arrived, sent) = (decoded.target.as_bytes(), target.as_str().as_bytes());
            prop_assert!(arrived == sent || arrived[1..] == *sent);
            prop_assert!(arrived.starts_with(b"/"));
        }
    }
}

#[test]
fn lengths_are_checked_by_the_header_alone() {
    for byte in 0..=255_u8 {
        let Ok(kind) = FrameType::from_u8(byte) else { continue };
        assert_eq!(kind.to_u8(), byte);
        let header = |length: usize| {
            let mut header = vec![1, byte, 0];
            header.extend_from_slice(&(length as u32).to_be_bytes());
            header
        };
        assert!(FrameHeader::parse(&header(kind.limit())).unwrap().is_some());
        let error = FrameHeader::parse(&header(kind.limit() + 1)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TooLarge);
        assert_eq!(Frame::decode(&mut header(kind.limit()).into()), Ok(None), "nothing is set aside for it");
        assert!(kind.limit() <= MAX_PAYLOAD);
    }
    assert_eq!(FrameType::Data.limit() + HEADER_LEN, MAX_DATA_FRAME);
    assert_eq!(HEADER_LEN + 4 + DATA_CHUNK, MESSAGE_TARGET);
}

#[test]
fn a_foreign_version_is_known_by_its_first_byte() {
    for byte in (0..=255).filter(|byte| *byte != 1) {
        assert_eq!(FrameHeader::parse(&[byte]), Err(ProtocolError::UnknownVersion(byte)));
    }
}

#[test]
fn a_head_that_does_not_fit_is_refused_to_its_sender() {
    let head = |headers| ResponseHead::new(StatusCode::OK, headers);
    let mut fields = HeaderMap::new();
    for index in 0..MAX_FIELDS {
        fields.append("x", HeaderValue::from(index));
    }
    assert!(head(fields.clone()).encoded_len().is_ok());
    fields.append("x", HeaderValue::from_static(""));
    assert_eq!(head(fields).encoded_len(), Err(HeadTooLarge));

    let long = HeaderValue::from_bytes(&vec![b'v'; 65_536]).unwrap();
    assert_eq!(head(HeaderMap::from_iter([(http::header::ACCEPT, long)])).encoded_len(), Err(HeadTooLarge));
    let method = Method::from_bytes(&[b'M'; 256]).unwrap();
    let request = RequestHead {
        method,
        target: Target::root(),
        scheme: Scheme::Https,
        authority: "a".parse().unwrap(),
        headers: HeaderMap::new(),
    };
    assert_eq!(request.encoded_len(), Err(HeadTooLarge));
    assert!(head::fields_len(&HeaderMap::new()).unwrap() < MAX_HEAD);
}

#[test]
fn a_reason_phrase_that_cannot_be_carried_is_left_out() {
    for (reason, carried) in [
        (vec![b'r'; 255], true),
        (vec![b'r'; 256], false),
        (b"OK\r\nset-cookie: a=1".to_vec(), false),
        (b"caf\xc3\xa9\tau lait".to_vec(), true),
        (b"\x7f".to_vec(), false),
    ] {
        let head =
            ResponseHead { reason: reason.clone().into(), ..ResponseHead::new(StatusCode::OK, HeaderMap::new()) };
        let mut out = BytesMut::new();
        head.encode(&mut out);
        assert_eq!(head.encoded_len(), Ok(out.len()));
        let decoded = ResponseHead::decode(out.freeze()).unwrap();
        assert_eq!(decoded.reason, if carried { reason } else { Vec::new() });
    }
}

#[test]
fn unknown_codes_are_kept() {
    for code in 0..20 {
        assert_eq!(ResetCode::from(code).to_u32(), code);
    }
    let parse = |payload: &str| {
        let mut bytes = vec![1, 0xff, 0];
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload.as_bytes());
        Frame::decode(&mut bytes.into())
    };
    let error = parse(r#"{"code":"quota","message":"m","retryable":true,"more":[1,{"x":null}]}"#);
    assert!(matches!(error, Ok(Some(Frame::Error(message))) if message.code == ErrorCode::Other("quota".to_owned())));
}

#[test]
fn a_control_payload_is_an_object() {
    for (kind, id, members) in [
        (0x01, &[][..], r#"["k",true,null,"i"]"#),
        (0x02, &[], r#"["s",null,null]"#),
        (0x03, &[], r#"["restart",1]"#),
        (0x04, &[0, 0, 0, 1], " []"),
        (0x05, &[0, 0, 0, 1], r#"["a","u"]"#),
        (0x06, &[0, 0, 0, 1], r#"["internal","m",true]"#),
        (0x07, &[0, 0, 0, 1], r#"["closed"]"#),
        (0xff, &[], r#"["internal","m",true]"#),
    ] {
        let mut bytes = vec![1, kind, 0, 0, 0, 0, (id.len() + members.len()) as u8];
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(members.as_bytes());
        assert!(matches!(Frame::decode(&mut bytes.into()), Err(ProtocolError::Malformed { .. })), "{members}");
    }
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    let connect = Connect { key: "ck_secret".to_owned(), ..Connect::default() };
    assert!(!format!("{:?}", Frame::Connect(connect)).contains("secret"));
}
