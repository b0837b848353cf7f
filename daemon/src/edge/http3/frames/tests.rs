use proptest::prelude::*;

use super::super::violation::Scope;
use super::*;

/// `:method: GET` and the like by their place in the static table.
const HEAD: &[u8] = b"\0\0\xd1\xd7\x50\x01a\xc1";
const TRAILERS: &[u8] = b"\0\0\xdd";

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_integer(kind, &mut out);
    write_integer(payload.len() as u64, &mut out);
    [&out[..], payload].concat()
}

/// A header that promises more than there is.
fn promise(kind: u64, length: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_integer(kind, &mut out);
    write_integer(length, &mut out);
    out.to_vec()
}

/// What becomes of a request's stream; neighbouring pieces of its body are put together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    head: Option<Bytes>,
    body: Vec<u8>,
    trailers: Option<Bytes>,
    violation: Option<Violation>,
}

fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut frames = RequestFrames::new();
    let mut outcome = Outcome::default();
    let judge = || -> Result<(), Violation> {
        for part in parts {
            frames.push(Bytes::copy_from_slice(part));
            while let Some(piece) = frames.next()? {
                match piece {
                    Piece::Head(frame) => assert_eq!(outcome.head.replace(frame), None),
                    Piece::Data(data) => {
                        assert!(!data.is_empty() && outcome.trailers.is_none());
                        outcome.body.extend_from_slice(&data);
                    }
                    Piece::Trailers(frame) => assert_eq!(outcome.trailers.replace(frame), None),
                }
            }
        }
        frames.end()
    };
    outcome.violation = judge().err();
    outcome
}

fn violation(stream: &[&[u8]]) -> (Scope, Code) {
    let violation = read([&stream.concat()[..]]).violation.expect("a violation");
    (violation.scope, violation.code)
}

#[test]
fn a_whole_request_passes() {
    let (head, trailers) = (frame(HEADERS, HEAD), frame(HEADERS, TRAILERS));
    let reserved = frame(0x21, b"anything");
    let stream = [&reserved[..], &head, &frame(DATA, b"hello "), &frame(DATA, b""), &reserved, &frame(DATA, b"world")];
    let outcome = read([&stream.concat()[..], &trailers, &reserved]);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.head.as_deref(), Some(&head[..]));
    assert_eq!(outcome.body, b"hello world");
    assert_eq!(outcome.trailers.as_deref(), Some(&trailers[..]));
}

#[test]
fn a_header_of_any_length_is_rewritten() {
    // The type in two bytes, the length in eight.
    let stream = [&b"\x40\x01\xc0\0\0\0\0\0\0\x08"[..], HEAD].concat();
    assert_eq!(read([&stream[..]]).head.as_deref(), Some(&frame(HEADERS, HEAD)[..]));
}

#[test]
fn a_header_is_judged_before_its_payload_comes() {
    let too_long = promise(HEADERS, 200 << 20);
    assert_eq!(violation(&[&too_long]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
    assert_eq!(violation(&[&promise(HEADERS, MAX_SECTION + 1)]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
    assert_eq!(violation(&[&promise(0x21, MAX_OTHER + 1)]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
    assert_eq!(violation(&[&promise(0x21, 1 << 61)]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
    let head = frame(HEADERS, HEAD);
    assert_eq!(violation(&[&head, &promise(HEADERS, MAX_SECTION + 1)]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
}

#[test]
fn nothing_is_allocated_for_a_promise() {
    let mut frames = RequestFrames::new();
    frames.push(promise(HEADERS, MAX_SECTION).into());
    assert_eq!(frames.next(), Ok(None));
    let Within::Kept(payload) = &frames.within else { panic!("{frames:?}") };
    assert!(payload.frame.capacity() <= 64, "{}", payload.frame.capacity());
}

#[test]
fn frames_have_their_place() {
    let (head, data, trailers) = (frame(HEADERS, HEAD), frame(DATA, b"x"), frame(HEADERS, TRAILERS));
    let unexpected = (Scope::Connection, Code::H3_FRAME_UNEXPECTED);
    assert_eq!(violation(&[&data]), unexpected);
    assert_eq!(violation(&[&frame(DATA, b"")]), unexpected);
    assert_eq!(violation(&[&head, &trailers, &data]), unexpected);
    assert_eq!(violation(&[&head, &trailers, &trailers]), unexpected);
    for kind in [2, 3, 4, 5, 6, 7, 8, 9, 0x0d, 0x41] {
        for before in [&b""[..], &head, &[&head[..], &data].concat()] {
            assert_eq!(violation(&[before, &promise(kind, 1 << 40)]), unexpected, "{kind:#x}");
        }
    }
}

#[test]
fn the_end_comes_between_frames() {
    let (head, data) = (frame(HEADERS, HEAD), frame(DATA, b"hello"));
    assert_eq!(violation(&[]), (Scope::Stream, Code::H3_REQUEST_INCOMPLETE));
    assert_eq!(violation(&[&frame(0x21, b"")]), (Scope::Stream, Code::H3_REQUEST_INCOMPLETE));
    let cut = (Scope::Connection, Code::H3_FRAME_ERROR);
    let stream = [head.clone(), data, frame(HEADERS, TRAILERS)].concat();
    let whole = [0, head.len(), stream.len() - frame(HEADERS, TRAILERS).len(), stream.len()];
    for end in 1..stream.len() {
        let outcome = read([&stream[..end]]).violation.map(|violation| (violation.scope, violation.code));
        assert_eq!(outcome, if whole.contains(&end) { None } else { Some(cut) }, "{end}");
    }
    assert_eq!(violation(&[&head, &promise(0x21, 5), b"abc"]), cut);
    assert_eq!(violation(&[&head, &promise(DATA, 5)]), cut);
}

#[test]
fn frames_of_no_use_are_counted() {
    let head = frame(HEADERS, HEAD);
    for useless in [frame(0x21, b""), frame(0x21 + 0x1f * 7, b"abc"), frame(0x1234, b"x")] {
        assert_eq!(read([&[&head[..], &useless.repeat(MAX_USELESS as usize)].concat()[..]]).violation, None);
        let more = useless.repeat(MAX_USELESS as usize + 1);
        assert_eq!(violation(&[&head, &more]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
        assert_eq!(violation(&[&more]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
    }
    let empty = frame(DATA, b"").repeat(MAX_USELESS as usize + 1);
    assert_eq!(violation(&[&head, &empty]), (Scope::Stream, Code::H3_EXCESSIVE_LOAD));
}

fn control(parts: &[&[u8]]) -> Result<Option<Bytes>, Code> {
    let mut frames = ControlFrames::new();
    let mut settings = None;
    for part in parts {
        frames.push(Bytes::copy_from_slice(part));
        while let Some(frame) = frames.next().map_err(|violation| {
            assert_eq!(violation.scope, Scope::Connection);
            violation.code
        })? {
            assert_eq!(settings.replace(frame), None);
        }
    }
    Ok(settings)
}

#[test]
fn a_control_stream_begins_with_settings() {
    let settings = frame(SETTINGS, b"\x06\x40\x64");
    assert_eq!(control(&[&settings]), Ok(Some(settings.clone().into())));
    assert_eq!(control(&[&frame(SETTINGS, b"")]), Ok(Some(frame(SETTINGS, b"").into())));
    for kind in [DATA, HEADERS, GOAWAY, MAX_PUSH_ID, 0x21, PRIORITY_UPDATE[0]] {
        assert_eq!(control(&[&frame(kind, b"\0")]), Err(Code::H3_MISSING_SETTINGS), "{kind:#x}");
    }
    assert_eq!(control(&[&promise(SETTINGS, 200 << 20)]), Err(Code::H3_EXCESSIVE_LOAD));
    assert_eq!(control(&[&settings, &settings]), Err(Code::H3_FRAME_UNEXPECTED));
}

#[test]
fn a_control_stream_carries_no_requests() {
    let settings = frame(SETTINGS, b"");
    for kind in [DATA, HEADERS, PUSH_PROMISE, 2, 6, 8, 9, WEBTRANSPORT_STREAM] {
        assert_eq!(control(&[&settings, &promise(kind, 1 << 40)]), Err(Code::H3_FRAME_UNEXPECTED), "{kind:#x}");
    }
    for kind in [GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, 0x21, PRIORITY_UPDATE[1]] {
        assert_eq!(control(&[&settings, &promise(kind, MAX_OTHER + 1)]), Err(Code::H3_EXCESSIVE_LOAD), "{kind:#x}");
    }
}

#[test]
fn ids_on_a_control_stream_follow_their_rules() {
    let with = |frames: &[(u64, &[u8])]| {
        let frames: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
        control(&[&frame(SETTINGS, b""), &frames]).map(|_| ())
    };
    assert_eq!(with(&[(GOAWAY, b"\x05"), (GOAWAY, b"\x05"), (GOAWAY, b"\x00")]), Ok(()));
    assert_eq!(with(&[(GOAWAY, b"\x05"), (GOAWAY, b"\x06")]), Err(Code::H3_ID_ERROR));
    assert_eq!(with(&[(MAX_PUSH_ID, b"\x05"), (MAX_PUSH_ID, b"\x40\x40")]), Ok(()));
    assert_eq!(with(&[(MAX_PUSH_ID, b"\x05"), (MAX_PUSH_ID, b"\x04")]), Err(Code::H3_ID_ERROR));
    assert_eq!(with(&[(CANCEL_PUSH, b"\x00")]), Err(Code::H3_ID_ERROR));
    for kind in [GOAWAY, MAX_PUSH_ID, CANCEL_PUSH] {
        for payload in [&b""[..], b"\x40", b"\x00\x00"] {
            assert_eq!(with(&[(kind, payload)]), Err(Code::H3_FRAME_ERROR), "{kind:#x} {payload:?}");
        }
    }
}

#[test]
fn the_account_pays_for_the_frames_of_a_control_stream() {
    let settings = frame(SETTINGS, b"");
    let many = |kind, payload| frame(kind, payload).repeat(3);
    // The connection's account pays for them.
    for (frames, expected) in [
        (many(0x21, b""), Toll { spent: 40, earned: 0 }),
        (many(PRIORITY_UPDATE[0], b"\0u=3"), Toll { spent: 19, earned: 0 }),
        (many(MAX_PUSH_ID, b"\x05"), Toll { spent: 40, earned: 0 }),
    ] {
        let mut control = ControlFrames::new();
        control.push([&settings[..], &frames].concat().into());
        while control.next().unwrap().is_some() {}
        assert_eq!(control.toll, expected);
    }
}

#[test]
fn integers() {
    // RFC 9000, appendix A.1.
    for (bytes, value) in [
        (&b"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c"[..], 151_288_809_941_952_652),
        (b"\x9d\x7f\x3e\x7d", 494_878_333),
        (b"\x7b\xbd", 15_293),
        (b"\x25", 37),
    ] {
        assert_eq!(read_integer(&mut &bytes[..]), Some(value));
        assert_eq!(read_integer(&mut &bytes[..bytes.len() - 1]), None);
        let mut out = BytesMut::new();
        write_integer(value, &mut out);
        assert_eq!(out, bytes);
    }
}

/// Splits bytes at some places.
fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Frames as they may come, most of them in place, now and then with a byte of rubbish.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let any_frame = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|data| frame(DATA, &data)),
        2 => Just(frame(HEADERS, TRAILERS)),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|section| frame(HEADERS, &section)),
        2 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(kind, payload)| frame(kind.into(), &payload)),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(any_frame, 0..8).prop_map(|frames| [frame(HEADERS, HEAD), frames.concat()].concat())
}

proptest! {
    #[test]
    fn chunks_make_no_difference(stream in streams(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        prop_assert_eq!(read(split(&stream, &cuts)), read([&stream[..]]));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(read(bytes), read([&stream[..]]));
    }

    #[test]
    fn rubbish_is_no_trouble(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        read([&stream[..]]);
        let section = frame(HEADERS, &stream);
        read([&section[..]]);
        let _ = control(&[&frame(SETTINGS, b""), &stream]);
        let _ = control(&[&stream]);
    }
}
