use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::super::{Kind, Limits, Progress, Stream};
use super::*;

const KEEPS: Option<PerMessageDeflate> = Some(PerMessageDeflate { keeps_window: true });
const FORGETS: Option<PerMessageDeflate> = Some(PerMessageDeflate { keeps_window: false });

/// A frame as a peer writes it.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { MASK } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(bit | length as u8),
        length @ 126..=0xffff => {
            frame.push(bit + 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(bit + 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Compresses messages as permessage-deflate does.
struct Deflater(Compress);

impl Deflater {
    fn new() -> Self {
        Self(Compress::new(Compression::default(), false))
    }

    fn message(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 100);
        self.0.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(out.split_off(out.len() - 4), TAIL);
        out
    }
}

fn messages(agreed: Option<PerMessageDeflate>, stream: &[u8], piece: usize) -> (Vec<Message>, Option<Trouble>) {
    let mut parser = Stream::new(&Kind::WebSocket(agreed), &[], Limits { shown: 1000, ..Limits::default() });
    let mut all = Vec::new();
    for mut piece in stream.chunks(piece) {
        while parser.push(&mut piece, &mut all) == Progress::More {}
    }
    parser.end(&mut all);
    assert!(parser.memory() < 64 << 10);
    (all, parser.trouble().cloned())
}

/// Kind, size and payload of each message, which must not depend on how the stream is cut.
fn shown(agreed: Option<PerMessageDeflate>, stream: &[u8]) -> Vec<(MessageKind, u64, Vec<u8>)> {
    let (whole, trouble) = messages(agreed, stream, stream.len());
    for piece in (1..20).filter(|piece| *piece < stream.len()) {
        assert_eq!(messages(agreed, stream, piece), (whole.clone(), trouble.clone()), "in pieces of {piece}");
    }
    whole.into_iter().map(|message| (message.kind, message.size, message.bytes)).collect()
}

#[test]
fn the_examples_of_the_standard() {
    // RFC 6455, section 5.7.
    let hello = |kind| vec![(kind, 5, b"Hello".to_vec())];
    assert_eq!(shown(None, b"\x81\x05Hello"), hello(MessageKind::Text));
    assert_eq!(shown(None, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), hello(MessageKind::Text));
    assert_eq!(shown(None, b"\x01\x03Hel\x80\x02lo"), hello(MessageKind::Text));
    assert_eq!(shown(None, b"\x89\x05Hello"), hello(MessageKind::Ping));
    assert_eq!(shown(None, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), hello(MessageKind::Pong));
    for length in [256, 65536] {
        let stream = frame(FIN | BINARY, &vec![7; length], None);
        assert_eq!(shown(None, &stream), [(MessageKind::Binary, length as u64, vec![7; length.min(1000)])]);
    }
    // RFC 7692, section 7.2.3.
    assert_eq!(shown(KEEPS, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), hello(MessageKind::Text));
    assert_eq!(shown(KEEPS, b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"), hello(MessageKind::Text));
    let twice = [hello(MessageKind::Text), hello(MessageKind::Text)].concat();
    assert_eq!(shown(KEEPS, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00"), twice);
    assert_eq!(shown(FORGETS, &b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00".repeat(2)), twice);
    assert_eq!(shown(KEEPS, b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), hello(MessageKind::Text));
    assert_eq!(shown(KEEPS, b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), hello(MessageKind::Text));
    assert_eq!(shown(KEEPS, b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), hello(MessageKind::Text));
}

#[test]
fn control_frames_stand_between_fragments() {
    let stream = [
        frame(TEXT, b"one ", Some([1, 2, 3, 4])),
        frame(FIN | PING, b"ping", Some([9, 8, 7, 6])),
        frame(CONTINUATION, b"two ", Some([0; 4])),
        frame(FIN | CONTINUATION, b"three", Some([5, 5, 5, 5])),
        frame(FIN | CLOSE, b"\x03\xe9bye", Some([1, 1, 1, 1])),
    ];
    let expected = [
        (MessageKind::Ping, 4, b"ping".to_vec()),
        (MessageKind::Text, 13, b"one two three".to_vec()),
        (MessageKind::Close { code: Some(1001) }, 3, b"bye".to_vec()),
    ];
    assert_eq!(shown(None, &stream.concat()), expected);
    let (all, _) = messages(None, &stream.concat(), 9);
    assert_eq!(all.iter().map(|message| message.offset).collect::<Vec<_>>(), [10, 0, 41]);
    assert_eq!(shown(None, b"\x88\x00"), [(MessageKind::Close { code: None }, 0, vec![])]);
}

#[test]
fn messages_refer_to_those_before() {
    let texts: Vec<_> = (0..30).map(|n| format!("the same message, number {n}").repeat(4)).collect();
    let (mut keeping, mut stream, mut apart) = (Deflater::new(), Vec::new(), Vec::new());
    for (n, text) in texts.iter().enumerate() {
        let mask = (n % 2 == 0).then_some([n as u8, 1, 2, 3]);
        stream.extend(frame(FIN | COMPRESSED | TEXT, &keeping.message(text.as_bytes()), mask));
        apart.extend(frame(FIN | COMPRESSED | TEXT, &Deflater::new().message(text.as_bytes()), mask));
        stream.extend(frame(FIN | TEXT, b"plain", mask));
    }
    let all = shown(KEEPS, &stream);
    assert!(texts.iter().zip(all.iter().step_by(2)).all(|(text, message)| message.2 == text.as_bytes()));
    assert!(all.iter().skip(1).step_by(2).all(|message| message.2 == b"plain"));
    let all = shown(FORGETS, &apart);
    assert!(texts.iter().zip(&all).all(|(text, message)| message.2 == text.as_bytes()));
    assert_eq!(all.len(), texts.len());
}

#[test]
fn what_is_wrong_is_said() {
    let damaged = frame(FIN | COMPRESSED | TEXT, &[0xff; 20], None);
    let good = frame(FIN | COMPRESSED | TEXT, &Deflater::new().message(b"good"), None);
    let stream = [damaged, good].concat();
    let (all, trouble) = messages(KEEPS, &stream, 5);
    assert!(matches!(all[0].trouble, Some(Trouble::Damaged(Coding::Deflate, _))));
    assert_eq!((all[0].sent, &all[1].trouble, trouble), (20, &Some(Trouble::Lost), None));
    let (all, _) = messages(FORGETS, &stream, 5);
    assert_eq!((all[1].bytes.as_slice(), &all[1].trouble), (&b"good"[..], &None));

    let troubles = |stream: &[u8]| {
        let (all, trouble) = messages(None, stream, 3);
        (all.iter().map(|message| message.trouble.is_some()).collect::<Vec<_>>(), trouble.is_some())
    };
    // Reserved bits, unknown opcodes, a continuation of nothing, a long Ping, a half message, a message within another.
    assert_eq!(troubles(b"\xc1\x02hi\x81\x02hi"), (vec![true, false], false));
    assert_eq!(troubles(b"\x83\x02hi\x8f\x02hi\x80\x02hi\x81\x02hi"), (vec![true, true, true, false], false));
    assert_eq!(
        troubles(&[frame(FIN | PING, &[0; 126], None), frame(FIN | TEXT, b"", None)].concat()),
        (vec![true, false], false)
    );
    assert_eq!(troubles(b"\x88\x01x\x01\x03Hel\x81\x02hi\x01\x05He"), (vec![true, true, false, true], false));
    // A length that cannot be: nothing behind it can be found.
    assert_eq!(troubles(b"\x81\x02hi\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x02hi"), (vec![false], true));
}

#[test]
fn large_messages_are_counted() {
    let stream =
        [frame(FIN | BINARY, &vec![1; 3 << 20], Some([1, 2, 3, 4])), frame(FIN | TEXT, b"next", None)].concat();
    let (all, _) = messages(None, &stream, 16 << 10);
    assert_eq!((all[0].bytes.as_slice(), all[0].size), (&[1; 1000][..], 3 << 20));
    assert_eq!(all[1].bytes, b"next");

    let zeros = frame(FIN | COMPRESSED | BINARY, &Deflater::new().message(&vec![0; 40 << 20]), None);
    let (all, trouble) = messages(FORGETS, &[zeros, frame(FIN | TEXT, b"next", None)].concat(), 16 << 10);
    assert_eq!((&all[0].trouble, all[1].bytes.as_slice(), trouble), (&Some(Trouble::Expands), &b"next"[..], None));
}

#[test]
fn the_response_says_what_is_agreed() {
    let agreed = |value: &str| {
        Negotiated::from_response([value.as_bytes()]).map(|all| (all.client.keeps_window, all.server.keeps_window))
    };
    assert_eq!(agreed("permessage-deflate"), Some((true, true)));
    assert_eq!(
        agreed("x-other; a=b, Permessage-Deflate ; server_max_window_bits=10;client_no_context_takeover"),
        Some((false, true))
    );
    assert_eq!(agreed("permessage-deflate; server_no_context_takeover"), Some((true, false)));
    assert_eq!(agreed("x-webkit-deflate-frame"), None);
    assert_eq!(agreed(""), None);
}

proptest! {
    /// However a stream of frames is cut, the messages are the same, and every byte of a payload is counted.
    #[test]
    fn messages_do_not_depend_on_how_the_stream_is_cut(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300), any::<Option<[u8; 4]>>()), 0..12),
        rest in prop::collection::vec(any::<u8>(), 0..20),
        piece in 1..100_usize,
        keeps_window: bool,
    ) {
        let payloads: usize = frames.iter().map(|(_, payload, _)| payload.len()).sum();
        let mut stream: Vec<u8> = frames.iter().flat_map(|(first, payload, mask)| frame(*first, payload, *mask)).collect();
        let agreed = Some(PerMessageDeflate { keeps_window });
        let (all, trouble) = messages(agreed, &stream, piece);
        prop_assert_eq!(all.iter().map(|message| message.sent).sum::<u64>(), payloads as u64);
        prop_assert_eq!(trouble, None);
        stream.extend(rest);
        // How much is decompressed before damage is found depends on the pieces.
        let alike = |piece| {
            let (mut all, trouble) = messages(agreed, &stream, piece);
            for message in all.iter_mut().filter(|message| matches!(message.trouble, Some(Trouble::Damaged(..)))) {
                (message.bytes, message.size) = (Vec::new(), 0);
            }
            (all, trouble)
        };
        prop_assert_eq!(alike(piece), alike(stream.len().max(1)));
    }
}
