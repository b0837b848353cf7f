use super::super::{Kind, Limits, Progress, Stream};
use super::*;

/// The messages of a stream, in pieces of every size.
fn lines(kind: &Kind, stream: &[u8]) -> Vec<Message> {
    let in_pieces = |piece| {
        let mut parser = Stream::new(kind, &[], Limits { shown: 20, ..Limits::default() });
        let mut all = Vec::new();
        for mut piece in stream.chunks(piece) {
            while parser.push(&mut piece, &mut all) == Progress::More {}
        }
        parser.end(&mut all);
        all
    };
    let whole = in_pieces(stream.len());
    for piece in 1..stream.len() {
        assert_eq!(in_pieces(piece), whole, "in pieces of {piece}");
    }
    whole
}

fn shown(messages: &[Message]) -> Vec<(u64, &str)> {
    messages.iter().map(|message| (message.offset, str::from_utf8(&message.bytes).unwrap())).collect()
}

#[test]
fn each_line_is_a_message() {
    let all = lines(&Kind::Lines, b"{\"a\":1}\n\r\n{\"b\":2}\r\n \n[3]");
    assert_eq!(shown(&all), [(0, "{\"a\":1}"), (10, "{\"b\":2}"), (21, "[3]")]);
    assert!(all.iter().all(|message| message.trouble.is_none()));
}

#[test]
fn each_record_is_a_message() {
    let all = lines(&Kind::Sequence, b"\x1e{\"a\":\n1}\n\x1e\x1e[2]\n\x1e[3");
    assert_eq!(shown(&all), [(1, "{\"a\":\n1}"), (12, "[2]"), (17, "[3")]);
    let troubles: Vec<_> = all.iter().map(|message| message.trouble.clone()).collect();
    assert_eq!(troubles, [None, None, Some(Trouble::EndsEarly)]);
}

#[test]
fn long_lines_are_cut() {
    let stream = [&[b'x'; 50][..], b"\r\n", b"y\n"].concat();
    let all = lines(&Kind::Lines, &stream);
    assert_eq!((all[0].bytes.as_slice(), all[0].size), (&[b'x'; 20][..], 51));
    assert_eq!(shown(&all[1..]), [(52, "y")]);
}
