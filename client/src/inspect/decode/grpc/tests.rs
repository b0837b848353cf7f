use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::super::codings::tests::gzip;
use super::super::{Kind, Limits, Progress, Stream};
use super::*;

fn message(flags: u8, payload: &[u8]) -> Vec<u8> {
    [&[flags][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// All messages of a stream that comes in pieces, and why it could not be followed.
fn messages(coding: Option<Coding>, is_text: bool, stream: &[u8], piece: usize) -> (Vec<Message>, Option<Trouble>) {
    let mut parser = Stream::new(&Kind::Grpc { coding, is_text }, &[], Limits { shown: 100, ..Limits::default() });
    let mut all = Vec::new();
    for mut piece in stream.chunks(piece) {
        while parser.push(&mut piece, &mut all) == Progress::More {}
    }
    parser.end(&mut all);
    assert!(parser.memory() < 64 << 10);
    (all, parser.trouble().cloned())
}

/// Kind, offset, size and payload of each message.
fn shown(messages: &[Message]) -> Vec<(&str, u64, u64, &[u8])> {
    let line = |message: &'_ Message| (message.kind.name(), message.offset, message.size);
    messages.iter().map(|message| (line(message), &*message.bytes)).map(|((a, b, c), d)| (a, b, c, d)).collect()
}

#[test]
fn messages_come_one_by_one() {
    let stream =
        [message(0, b"one"), message(0, b""), message(1, &gzip(b"two two two")), message(0x80, b"grpc-status: 0\r\n")];
    let stream = stream.concat();
    for piece in 1..stream.len() {
        let (all, trouble) = messages(Some(Coding::Gzip), false, &stream, piece);
        let expected: [(&str, u64, u64, &[u8]); 4] = [
            ("grpc", 0, 3, b"one"),
            ("grpc", 8, 0, b""),
            ("grpc", 13, 11, b"two two two"),
            ("grpc_end", stream.len() as u64 - 21, 16, b"grpc-status: 0\r\n"),
        ];
        assert_eq!(shown(&all), expected, "in pieces of {piece}");
        assert_eq!(all[2].kind, MessageKind::Grpc { compressed: true });
        assert_eq!((all[2].sent, trouble), (gzip(b"two two two").len() as u64, None));
    }
}

#[test]
fn the_text_form_may_pad_each_message() {
    let parts = [message(0, b"one"), message(0, b"four"), message(0x80, b"grpc-status: 0\r\n")];
    let apart: String = parts.iter().map(|part| STANDARD.encode(part)).collect();
    for stream in [apart, STANDARD.encode(parts.concat())] {
        for piece in 1..stream.len() {
            let (all, trouble) = messages(None, true, stream.as_bytes(), piece);
            assert_eq!(
                shown(&all).iter().map(|it| it.3).collect::<Vec<_>>(),
                [&b"one"[..], b"four", b"grpc-status: 0\r\n"]
            );
            assert_eq!(trouble, None);
        }
    }
    let (_, trouble) = messages(None, true, b"AAAA*", 2);
    assert!(matches!(trouble, Some(Trouble::Invalid { format: "base64", .. })));
}

#[test]
fn what_is_wrong_is_said() {
    let (all, _) = messages(None, false, &message(0, b"half")[..7], 2);
    assert_eq!(shown(&all), [("grpc", 0, 2, &b"ha"[..])]);
    assert_eq!((all[0].sent, &all[0].trouble), (2, &Some(Trouble::EndsEarly)));

    let stream = [message(1, b"not gzip"), message(0, b"next")].concat();
    let (all, trouble) = messages(Some(Coding::Gzip), false, &stream, 3);
    assert_eq!(shown(&all), [("grpc", 0, 0, &b""[..]), ("grpc", 13, 4, b"next")]);
    assert!(matches!(all[0].trouble, Some(Trouble::Damaged(Coding::Gzip, _))));
    assert_eq!((all[0].sent, trouble), (8, None));

    let (all, _) = messages(None, false, &message(1, b"snappy"), 3);
    assert_eq!((shown(&all), &all[0].trouble), (vec![("grpc", 0, 6, &b"snappy"[..])], &Some(Trouble::NoCoding)));

    let (all, trouble) = messages(None, false, b"HTTP/1.1 is not gRPC", 3);
    assert!(all.is_empty() && matches!(trouble, Some(Trouble::Invalid { format: "gRPC", .. })));
}

#[test]
fn bombs_have_a_limit_over_all_messages() {
    let bomb = message(1, &gzip(&vec![0; 4 << 20]));
    let stream = bomb.repeat(40);
    let (all, trouble) = messages(Some(Coding::Gzip), false, &stream, 65_536);
    assert_eq!((all.len(), trouble), (40, None));
    let size: u64 = all.iter().map(|message| message.size).sum();
    assert!(size <= 5 << 20 && all.iter().any(|message| message.trouble == Some(Trouble::Expands)), "{size}");
}

proptest! {
    /// Whatever comes, nothing panics, and all of it is taken.
    #[test]
    fn any_bytes_are_taken(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                Just(message(1, &gzip(b"text"))),
                Just(message(0, b"text")),
                Just(b"AAAAAAA=".to_vec()),
            ],
            0..10,
        ),
        piece in 1..50_usize,
        is_text: bool,
    ) {
        let stream = parts.concat();
        let (all, _) = messages(Some(Coding::Gzip), is_text, &stream, piece);
        let (whole, _) = messages(Some(Coding::Gzip), is_text, &stream, stream.len().max(1));
        prop_assert_eq!(all, whole);
    }
}
