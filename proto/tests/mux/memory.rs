//! How much memory a peer can make us hold.

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, MAX_MESSAGE};
use cok_proto::mux::Event;
use cok_proto::{ErrorCode, ErrorMessage, Role};

use crate::pair::{Pair, Setup, data_frame, events, head_frame, read_all, response};

/// Feeds the daemon a message. `true` if any of its memory is still held.
fn holds(pair: &mut Pair, message: BytesMut) -> bool {
    let message = message.freeze();
    let now = pair.now;
    pair.daemon.receive(message.clone(), now).unwrap();
    !message.is_unique()
}

fn pair_with_response() -> Pair {
    let mut pair = Pair::new(Setup::default());
    pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    events(&mut pair.daemon);
    pair
}

fn padded(mut message: BytesMut, length: usize) -> BytesMut {
    while message.len() < length {
        // Frames of an unknown type. Thousands of small ones would end the session.
        let payload = (length - message.len()).min(4096);
        message.extend_from_slice(&[1, 0x9a, 0]);
        message.extend_from_slice(&(payload as u32).to_be_bytes());
        message.resize(message.len() + payload, 0);
    }
    message
}

#[test]
fn bulk_is_passed_on_in_the_memory_it_came_in() {
    let mut pair = Pair::new(Setup::default());
    let (daemon, _) = pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    for _ in 0..4 {
        assert!(holds(&mut pair, data_frame(1, 16_000, false)));
    }
    assert_eq!(read_all(&mut pair.daemon, daemon).body.len(), 64_000);
}

#[test]
fn single_bytes_that_wait_hold_no_message() {
    let mut pair = Pair::new(Setup::default());
    let (daemon, _) = pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    read_all(&mut pair.daemon, daemon);
    assert!(holds(&mut pair, data_frame(1, 1, false)), "the first is there to be read at once");
    for _ in 0..10_000 {
        assert!(!holds(&mut pair, data_frame(1, 1, false)));
    }
    assert_eq!(pair.daemon.unread_bytes(), 10_001);
}

#[test]
fn a_small_part_holds_no_large_message() {
    for length in [1, 4096, 8192] {
        let mut pair = pair_with_response();
        assert!(!holds(&mut pair, padded(data_frame(1, length, false), MAX_MESSAGE - 64)), "{length}");
    }
    let mut pair = Pair::new(Setup::default());
    let (daemon, _) = pair.open(true);
    assert!(!holds(&mut pair, padded(head_frame(1, 200), MAX_MESSAGE - 64)));
    assert_eq!(read_all(&mut pair.daemon, daemon).heads, [response(200)]);
}

/// A regression: every frame queued an event of a few hundred bytes, and a message holds eleven thousand frames.
#[test]
fn frames_of_one_exchange_make_one_event() {
    let mut pair = pair_with_response();
    let mut message = BytesMut::new();
    while message.len() + 12 <= MAX_MESSAGE {
        message.extend_from_slice(&data_frame(1, 1, false));
    }
    assert!(!holds(&mut pair, message.clone()));
    assert!(matches!(events(&mut pair.daemon)[..], [Event::Readable(_)]));
    assert!(!holds(&mut pair, data_frame(1, 1, false)));
    assert!(matches!(events(&mut pair.daemon)[..], [Event::Readable(_)]), "and again for what comes later");
}

#[test]
fn small_chunks_leave_in_one_frame() {
    let mut pair = Pair::new(Setup::default());
    let (_, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    let chunk = Bytes::from_static(b"0123456789");
    let kept = Bytes::from(vec![0; 100]);
    for _ in 0..500 {
        pair.client.send_data(client, chunk.clone(), false);
    }
    pair.client.send_data(client, kept.clone(), true);
    assert!(kept.is_unique(), "a small chunk that has to wait is copied");
    let frames = pair.frames(Role::Client);
    let [frame::Frame::Response { .. }, frame::Frame::Data { body, end: true, .. }] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(body.len(), 5100);
    assert!(body.starts_with(b"01234567890123"));
}

#[test]
fn the_text_of_an_error_is_bounded_and_quotes_nothing() {
    let secret = "ck_".repeat(5000);
    for payload in
        [format!("\"{secret}\""), format!("{{\"key\":\"k\",\"instance\":\"i\",\"initial_window\":\"{secret}\"}}")]
    {
        let mut pair = Pair::unconnected(Setup::default());
        let mut message = BytesMut::from(&[1, 1, 0][..]);
        message.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        message.extend_from_slice(payload.as_bytes());
        let error = pair.inject(Role::Daemon, message).unwrap_err();
        assert!(!error.to_string().contains("ck_") && error.to_string().len() < 200, "{error}");
        let [frame::Frame::Error(sent)] = &pair.frames(Role::Daemon)[..] else { panic!() };
        assert!(!sent.message.contains("ck_"));
    }
    let error = Pair::unconnected(Setup::default()).inject(Role::Daemon, b"\x01\x01\0\0\0\0\x02{}").unwrap_err();
    assert!(error.to_string().contains("missing field `key`"), "{error}: still says what is missing");
}

#[test]
fn a_long_text_of_our_own_still_fits_into_a_frame() {
    let mut pair = Pair::new(Setup::default());
    pair.daemon.fail(&ErrorMessage { code: ErrorCode::Internal, message: "ä\u{1}".repeat(100_000), retryable: true });
    assert!(matches!(&pair.frames(Role::Daemon)[..], [frame::Frame::Error(_)]));
}
