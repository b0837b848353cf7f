//! What passes and what is cut off, in any pieces.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const PRIORITY: u8 = 2;
const PRIORITY_UPDATE: u8 = 0x10;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection whose preface has come.
fn connection(now: Instant) -> Frames {
    let mut frames = Frames::new();
    frames.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
    frames
}

/// How many of the same frame pass at once.
fn most(frame: &[u8]) -> usize {
    let now = Instant::now();
    let mut frames = connection(now);
    (0..100_000).take_while(|_| frames.receive(frame, now).is_ok()).count()
}

#[test]
fn each_flood_is_cut_off() {
    let floods = [
        ("ping", frame(PING, 0, 0, &[0; 8]), 1000),
        ("ping-ack", frame(PING, ACK, 0, &[0; 8]), 1000),
        ("settings", frame(SETTINGS, 0, 0, &[]), 100),
        ("settings-ack", frame(SETTINGS, ACK, 0, &[]), 100),
        ("priority", frame(PRIORITY, 0, 3, &[0; 5]), 1000),
        ("priority-update", frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=3"), 1000),
        ("window", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 1000),
        ("unknown", frame(99, 0, 0, b"abc"), 1000),
        ("empty-data", frame(DATA, 0, 1, &[]), 1000),
        ("padding", frame(DATA, PADDED, 1, &[200; 201]), 1000),
        ("padding-only", frame(DATA, PADDED, 1, &[0]), 1000),
        ("no-padding-length", frame(DATA, PADDED, 1, &[]), 1000),
        ("one-byte-data", frame(DATA, 0, 1, b"a"), 10_000),
        ("reset", frame(RST_STREAM, 0, 1, &[0; 4]), 90),
        ("continuation", frame(CONTINUATION, 0, 1, &[]), 1000),
        ("goaway", frame(GOAWAY, 0, 0, &[0; 8]), 1000),
    ];
    for (name, flood, expected) in floods {
        assert_eq!(most(&flood), expected, "{name}");
    }
}

#[test]
fn requests_and_bodies_are_never_cut_off() {
    let now = Instant::now();
    let mut frames = connection(now);
    let block = frame(DATA, 0, 1, &[0; 100]);
    for number in 0..10_000 {
        frames.receive(&frame(HEADERS, 0, 2 * number + 1, b"head"), now).unwrap();
        frames.receive(&block, now).unwrap();
        frames.receive(&frame(DATA, END_STREAM, 2 * number + 1, &[]), now).unwrap();
        // Ten reorderings of each request are no trouble.
        for _ in 0..10 {
            frames.receive(&frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=3"), now).unwrap();
        }
    }
}

#[test]
fn requests_that_end_before_their_bodies_may_always_be_reset() {
    let now = Instant::now();
    let mut frames = connection(now);
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        frames.receive(&frame(HEADERS, 0, stream, b"head"), now).unwrap();
        frames.send(&frame(HEADERS, END_STREAM, stream, b"head"));
        frames.receive(&frame(RST_STREAM, 0, stream, &[0; 4]), now).unwrap();
    }
}

#[test]
fn a_thousand_requests_may_be_cancelled_at_once() {
    let now = Instant::now();
    let mut frames = connection(now);
    let cancelled = (0..).map(|number| 2 * number + 1).take_while(|stream| {
        frames.receive(&frame(HEADERS, 0, *stream, b"head"), now).unwrap();
        frames.receive(&frame(RST_STREAM, 0, *stream, &[0; 4]), now).is_ok()
    });
    assert!((980..=1000).contains(&cancelled.count()));
}

#[test]
fn sent_data_justifies_the_updates_of_honest_programs() {
    let now = Instant::now();
    let mut frames = connection(now);
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    // A gibibyte to a client that answers each frame twice and measures the path with a PING each time.
    let data = frame(DATA, 0, 1, &[0; 16 * 1024]);
    for _ in 0..64 * 1024 {
        frames.send(&data);
        frames.receive(&update, now).unwrap();
        frames.receive(&update, now).unwrap();
        frames.receive(&frame(PING, 0, 0, &[0; 8]), now).unwrap();
    }
    // Small events, each answered twice.
    for _ in 0..100_000 {
        frames.send(&frame(DATA, 0, 1, b"data: 1\n\n"));
        frames.receive(&update, now).unwrap();
        frames.receive(&update, now).unwrap();
    }
    // What a download has justified does not last for a flood.
    let rest = (0..1_000_000).take_while(|_| frames.receive(&update, now).is_ok()).count();
    assert!(rest <= MOST_UPDATES as usize + 1000, "{rest}");
}

#[test]
fn a_quiet_connection_may_always_ping() {
    let began = Instant::now();
    let mut frames = connection(began);
    for second in 0..100_000 {
        let now = began + Duration::from_secs(second);
        for _ in 0..90 {
            frames.receive(&frame(PING, 0, 0, &[0; 8]), now).unwrap();
        }
    }
}

#[test]
fn the_library_is_interrupted_only_between_frames() {
    let mut frames = connection(Instant::now());
    let data = frame(DATA, 0, 1, b"abc");
    for (sent, rest) in [(0, 0), (1, 8), (8, 1), (9, 3), (10, 2), (12, 0)] {
        let mut frames = Frames { sent: Headers::default(), ..connection(Instant::now()) };
        frames.send(&data[..sent]);
        assert_eq!(frames.rest_of_frame(), rest, "{sent}");
    }
    frames.send(&[&data[..], &data[..5]].concat());
    assert_eq!(frames.rest_of_frame(), 4);
}

#[test]
fn goaway_names_the_newest_request_and_the_code() {
    let now = Instant::now();
    let mut frames = connection(now);
    frames.receive(&frame(HEADERS, 0, 0x8000_0007, b"head"), now).unwrap();
    let goaway = frames.goaway();
    assert_eq!(&goaway[..17], [0, 0, 40, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]);
    assert_eq!(goaway.len(), 9 + 40);
}

/// A frame of a connection. Payloads may begin like headers.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![Just(0), 0..40usize, Just(1024usize)]
        .prop_flat_map(|length| proptest::collection::vec(prop_oneof![Just(0u8), Just(8), any::<u8>()], length));
    (0..12u8, any::<u8>(), any::<u32>(), payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream % 64, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn boundaries_of_pieces_do_not_matter(
        sequence in proptest::collection::vec(any_frame(), 0..100),
        cuts in proptest::collection::vec(1..50usize, 1..20),
    ) {
        let now = Instant::now();
        let bytes = sequence.concat();
        let (mut whole, mut pieces) = (connection(now), connection(now));
        whole.send(&bytes);
        let verdict = whole.receive(&bytes, now);
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            pieces.send(piece);
            rest = behind;
        }
        let mut seen = Ok(());
        rest = &bytes;
        while !rest.is_empty() && seen.is_ok() {
            let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            seen = pieces.receive(piece, now);
            rest = behind;
        }
        prop_assert_eq!(verdict, seen);
        prop_assert_eq!((whole.updates, whole.newest, whole.rest_of_frame()), (pieces.updates, pieces.newest, pieces.rest_of_frame()));
        prop_assert_eq!(format!("{:?}", whole.budget), format!("{:?}", pieces.budget));
    }

    #[test]
    fn anything_at_all_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut frames = Frames::new();
        let _verdict = frames.receive(&bytes, Instant::now());
        frames.send(&bytes);
    }
}
