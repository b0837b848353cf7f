use proptest::prelude::*;

use super::super::{Kind, Limits, Progress, Stream};
use super::*;

/// All messages of a stream that comes in pieces.
fn messages(stream: &[u8], piece: usize) -> Vec<Message> {
    let mut parser = Stream::new(&Kind::EventStream, &[], Limits { shown: 100, ..Limits::default() });
    let mut all = Vec::new();
    for mut piece in stream.chunks(piece) {
        while parser.push(&mut piece, &mut all) == Progress::More {}
        assert!(piece.is_empty());
    }
    parser.end(&mut all);
    assert_eq!(parser.received(), stream.len() as u64);
    all
}

/// Events as name, id and data; comments as `#`.
fn shown(stream: &[u8]) -> Vec<(String, String, String)> {
    let text = |message: &Message| String::from_utf8_lossy(&message.bytes).into_owned();
    let whole = messages(stream, stream.len().max(1));
    for piece in 1..stream.len().min(20) {
        assert_eq!(messages(stream, piece), whole, "in pieces of {piece}");
    }
    let line = |message: &Message| match &message.kind {
        MessageKind::Event { name, id, .. } => {
            (name.clone().unwrap_or_default(), id.clone().unwrap_or_default(), text(message))
        }
        _ => ("#".into(), String::new(), text(message)),
    };
    whole.iter().map(line).collect()
}

fn event(name: &str, id: &str, data: &str) -> (String, String, String) {
    (name.into(), id.into(), data.into())
}

#[test]
fn the_examples_of_the_standard() {
    // WHATWG HTML, section 9.2.6.
    assert_eq!(shown(b"data: YHOO\ndata: +2\ndata: 10\n\n"), [event("", "", "YHOO\n+2\n10")]);
    let stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let expected = [
        event("#", "", " test stream"),
        event("", "1", "first event"),
        event("", "", "second event"),
        event("", "", " third event"),
    ];
    let expected = expected
        .map(|(name, id, data)| if name == "#" { (name, id, data.trim_start().into()) } else { (name, id, data) });
    assert_eq!(shown(stream), expected);
    assert_eq!(shown(b"data\n\ndata\ndata\n\ndata:"), [event("", "", ""), event("", "", "\n"), event("", "", "")]);
    assert_eq!(shown(b"data:test\n\ndata: test\n\n"), [event("", "", "test"), event("", "", "test")]);
}

#[test]
fn lines_may_end_in_all_three_ways() {
    let expected = [event("a", "", "1\n2"), event("b", "", "3")];
    assert_eq!(shown(b"event:a\ndata:1\ndata:2\n\nevent:b\ndata:3\n\n"), expected);
    assert_eq!(shown(b"event:a\r\ndata:1\r\ndata:2\r\n\r\nevent:b\r\ndata:3\r\n\r\n"), expected);
    assert_eq!(shown(b"event:a\rdata:1\rdata:2\r\revent:b\rdata:3\r\r"), expected);
    assert_eq!(shown(b"event:a\r\ndata:1\rdata:2\n\revent:b\ndata:3\n\r\n"), expected);
}

#[test]
fn a_byte_order_mark_is_skipped_once() {
    assert_eq!(shown(b"\xef\xbb\xbfdata: x\n\n"), [event("", "", "x")]);
    assert_eq!(shown(b"\xef\xbbdata: x\n\n"), []);
    assert_eq!(shown(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n"), []);
}

#[test]
fn fields_without_a_meaning_are_ignored() {
    assert_eq!(shown(b"datas: x\ndat: x\nother\nDATA: x\n data: x\n\n"), []);
    assert_eq!(shown(b"id: a\0b\ndata: x\n\n"), [event("", "", "x")]);
    let retry = |stream: &[u8]| match &messages(stream, 100)[0].kind {
        MessageKind::Event { retry, has_data, .. } => (*retry, *has_data),
        kind => panic!("{kind:?}"),
    };
    assert_eq!(retry(b"retry: 1500\n\n"), (Some(1500), false));
    assert_eq!(retry(b"retry: 1.5\ndata\n\n"), (None, true));
    assert_eq!(retry(b"retry: 99999999999999999999999\n\n"), (None, false));
    assert_eq!(retry(b"retry\n\n"), (None, false));
}

#[test]
fn an_event_that_is_cut_off_is_shown_as_such() {
    let all = messages(b"data: whole\n\ndata: half\nid: 7\nda", 5);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].trouble, None);
    assert_eq!((all[1].bytes.as_slice(), &all[1].trouble), (&b"half"[..], &Some(Trouble::EndsEarly)));
}

#[test]
fn places_are_counted() {
    let all = messages(b"\xef\xbb\xbfdata: a\r\n\r\n: c\r\n\nid: 1\ndata: b\n\n", 3);
    let places: Vec<_> = all.iter().map(|message| (message.ordinal, message.offset)).collect();
    assert_eq!(places, [(0, 3), (1, 14), (2, 20)]);
}

#[test]
fn long_events_are_cut() {
    let stream = [&b"event: "[..], &[b'n'; 5000], b"\ndata: ", &[b'x'; 5000], b"\ndata: y\n\ndata: z\n\n"].concat();
    let all = messages(&stream, 64);
    assert_eq!((all[0].bytes.len(), all[0].size, all[0].is_truncated()), (100, 5002, true));
    assert!(matches!(&all[0].kind, MessageKind::Event { name: Some(name), .. } if name.len() == LONGEST_TEXT));
    assert_eq!((all[1].bytes.as_slice(), all[1].is_truncated()), (&b"z"[..], false));
}

#[test]
fn one_call_reports_few_messages() {
    let stream = b"data\n\n".repeat(10_000);
    let mut parser = Stream::new(&Kind::EventStream, &[], Limits::default());
    let (mut input, mut out, mut count) = (stream.as_slice(), Vec::new(), 0);
    loop {
        let progress = parser.push(&mut input, &mut out);
        assert!(out.len() <= 256);
        count += out.drain(..).count();
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(count, 10_000);
    assert!(parser.memory() < 1024);
}

#[test]
fn events_are_found_behind_a_coding() {
    use super::super::Coding;
    use super::super::codings::tests::gzip;
    let data = gzip(&b"data: the same again\n\n".repeat(5000));
    let mut parser = Stream::new(&Kind::EventStream, &[Coding::Gzip], Limits::default());
    let (mut input, mut out) = (data.as_slice(), Vec::new());
    while parser.push(&mut input, &mut out) == Progress::More {}
    parser.end(&mut out);
    assert_eq!((out.len(), parser.trouble()), (5000, None));
    assert!(out.iter().all(|message| message.bytes == b"the same again"));
    assert!(parser.memory() < 100 << 10);

    let bomb = gzip(&vec![b'x'; 100 << 20]);
    let mut parser = Stream::new(&Kind::EventStream, &[Coding::Gzip], Limits::default());
    let mut input = bomb.as_slice();
    while parser.push(&mut input, &mut out) == Progress::More {}
    assert_eq!(parser.trouble(), Some(&Trouble::Expands));
    assert_eq!((parser.received(), input), (bomb.len() as u64, &b""[..]));
    let mut input = &b"more"[..];
    assert_eq!(parser.push(&mut input, &mut out), Progress::Done);
    assert_eq!(parser.received(), bomb.len() as u64 + 4);
}

proptest! {
    /// However a stream is cut, the messages are the same, and their sizes add up.
    #[test]
    fn messages_do_not_depend_on_how_the_stream_is_cut(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                &b"data"[..], b"id", b"event", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"text", b"\0", b"\xef", b"\xbb\xbf",
                b"12",
            ]),
            0..200,
        ),
        piece in 1..30_usize,
    ) {
        let stream = parts.concat();
        let whole = messages(&stream, stream.len().max(1));
        prop_assert_eq!(&messages(&stream, piece), &whole);
        prop_assert!(whole.iter().map(|message| message.size).sum::<u64>() <= stream.len() as u64);
        prop_assert!(whole.is_sorted_by_key(|message| message.ordinal));
    }
}
