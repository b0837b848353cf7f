//! What the library gets to see, however the bytes come.

use std::future::poll_fn;
use std::task::Waker;

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// A layer, the visitor's end of its connection, and its verdicts.
fn connection() -> (Stream<DuplexStream>, DuplexStream, Arc<Verdicts>) {
    let (near, far) = duplex(1 << 20);
    let verdicts = Verdicts::new();
    (Stream::new(near, 1024, verdicts.clone()), far, verdicts)
}

/// Reads what is there. `None` at the end.
fn read(stream: &mut Stream<DuplexStream>, size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut seen = Vec::new();
    loop {
        let mut space = vec![0; size];
        let mut buffer = ReadBuf::new(&mut space);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut *stream).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(Err(error)) if seen.is_empty() => return Err(error),
            Poll::Pending | Poll::Ready(Err(_)) => return Ok(Some(seen)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                return Ok(if seen.is_empty() { None } else { Some(seen) });
            }
            Poll::Ready(Ok(())) => seen.extend_from_slice(buffer.filled()),
        }
    }
}

/// Sends `bytes` in pieces of each of some sizes, and reads with buffers of some sizes.
async fn all(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<Option<Fault>>)> {
    let mut outcomes = Vec::new();
    for (piece, size) in [(usize::MAX, 8192), (usize::MAX, 3), (1, 8192), (7, 64)] {
        let (mut stream, mut far, verdicts) = connection();
        let (mut seen, mut faults) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
            far.write_all(piece).await.unwrap();
            if let Ok(Some(more)) = read(&mut stream, size) {
                seen.extend(more);
            }
        }
        while verdicts.has_next() {
            faults.push(verdicts.next().fault);
        }
        outcomes.push((seen, faults));
    }
    outcomes
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: invalid\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn good_messages_pass_as_they_are() {
    let post: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let chunked: &[u8] =
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n";
    for messages in [&[GET][..], &[post], &[chunked], &[GET, GET], &[post, chunked, post, GET], &[chunked, GET, post]] {
        let bytes = messages.concat();
        for (seen, faults) in all(&bytes).await {
            assert_eq!(seen.escape_ascii().to_string(), bytes.escape_ascii().to_string());
            assert_eq!(faults, vec![None; messages.len()]);
        }
    }
}

#[tokio::test]
async fn empty_lines_before_a_request_are_dropped() {
    for (seen, _) in all(&[b"\r\n\r\n", GET, b"\r\n", GET].concat()).await {
        assert_eq!(seen, [GET, GET].concat());
    }
}

#[tokio::test]
async fn many_empty_lines_are_no_request() {
    let lines = b"\r\n".repeat(16);
    for (seen, _) in all(&[&lines[..], GET, &lines, GET].concat()).await {
        assert_eq!(seen, [GET, GET].concat());
    }
    for (seen, faults) in all(&[GET, &lines, b"\r\n", GET].concat()).await {
        assert_eq!(seen, [GET, STAND_IN].concat());
        assert_eq!(faults, [None, Some(Fault::RequestLine)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lingering_close_drops_no_more_than_it_may() {
    let (mut stream, mut far, verdicts) = connection();
    verdicts.end();
    let flood = tokio::spawn(async move {
        let (mut sent, piece) = (0, vec![0; 1 << 16]);
        while let Ok(length) = far.write(&piece).await {
            sent += length as u64;
        }
        sent
    });
    let began = tokio::time::Instant::now();
    stream.shutdown().await.unwrap();
    assert_eq!(began.elapsed(), LINGER);
    drop(stream);
    let sent = flood.await.unwrap();
    assert!((MOST..MOST + (2 << 20)).contains(&sent), "{sent}");
}

#[tokio::test]
async fn nothing_is_read_behind_a_faulty_head() {
    for (bad, fault) in [
        (&b"GET / HTTP/1.1\nhost: a\n\n"[..], Fault::BareLineFeed),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Fault::LengthAndCoding,
        ),
        (b"nonsense\r\n\r\n", Fault::RequestLine),
        (&[b'x'; 2048], Fault::TooLarge),
    ] {
        for (seen, faults) in all(&[GET, bad, GET].concat()).await {
            assert_eq!(seen.escape_ascii().to_string(), [GET, STAND_IN].concat().escape_ascii().to_string());
            assert_eq!(faults, [None, Some(fault)]);
        }
    }
}

#[tokio::test]
async fn a_body_with_broken_framing_is_an_error_and_not_an_end() {
    let (mut stream, mut far, verdicts) = connection();
    let head: &[u8] = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    far.write_all(&[head, b"5 \r\nhello\r\n0\r\n\r\n", GET].concat()).await.unwrap();
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), [head, b"5"].concat());
    assert_eq!(verdicts.next().doubt.unwrap().fault(), Some(Fault::Chunk));
    assert_eq!(read(&mut stream, 8192).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_head_that_is_cut_short_is_faulty() {
    let (mut stream, mut far, verdicts) = connection();
    far.write_all(b"GET / HTT").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), STAND_IN);
    assert_eq!(verdicts.next().fault, Some(Fault::CutShort));
    let (mut stream, mut far, _) = connection();
    far.write_all(GET).await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), GET);
    assert_eq!(read(&mut stream, 8192).unwrap(), None);
}

#[tokio::test]
async fn what_follows_an_upgrade_waits_for_its_answer() {
    let upgrade: &[u8] = b"GET / HTTP/1.1\r\nupgrade: x\r\ncontent-length: 2\r\n\r\nhi";
    for switched in [true, false] {
        let (mut stream, mut far, verdicts) = connection();
        let next: &[u8] = if switched { b"\n raw bytes" } else { GET };
        far.write_all(&[upgrade, next].concat()).await.unwrap();
        assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), upgrade);
        assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), b"");
        verdicts.decide(switched);
        assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), next);
        if switched {
            far.write_all(b"more").await.unwrap();
            far.shutdown().await.unwrap();
            assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), b"more");
            assert_eq!(read(&mut stream, 8192).unwrap(), None);
        }
    }
}

#[tokio::test]
async fn held_bytes_are_bounded_and_not_lost() {
    let (mut stream, mut far, verdicts) = connection();
    far.write_all(b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n").await.unwrap();
    read(&mut stream, 8192).unwrap();
    far.write_all(&vec![b'x'; MAX_HELD * 3]).await.unwrap();
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), b"");
    assert!(stream.held.len() < MAX_HELD + READ * 16);
    verdicts.decide(true);
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap().len(), MAX_HELD * 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_visitor_is_heard_out_for_a_while() {
    let (mut stream, mut far, _) = connection();
    far.write_all(b"nonsense\r\n\r\nand more").await.unwrap();
    read(&mut stream, 8192).unwrap();
    let began = tokio::time::Instant::now();
    poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await.unwrap();
    assert_eq!(began.elapsed(), LINGER);
}

/// Waits once for a request without the library.
fn request(stream: &mut Stream<DuplexStream>) -> Poll<io::Result<bool>> {
    stream.poll_request(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_request_is_waited_for_without_the_library() {
    let (mut stream, mut far, verdicts) = connection();
    assert!(request(&mut stream).is_pending());
    far.write_all(&GET[..7]).await.unwrap();
    assert!(request(&mut stream).is_pending() && !verdicts.has_next());
    far.write_all(&[&GET[7..], GET].concat()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(request(&mut stream), Poll::Ready(Ok(true))));
    }
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), GET.repeat(2));
    far.write_all(GET).await.unwrap();
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), GET);
    // What the library has read and not used comes first.
    far.write_all(GET).await.unwrap();
    stream.put_back(b"first ");
    assert!(matches!(request(&mut stream), Poll::Ready(Ok(true))));
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), [b"first ", GET].concat());
    far.shutdown().await.unwrap();
    assert!(matches!(request(&mut stream), Poll::Ready(Ok(false))));
}

#[tokio::test]
async fn a_faulty_head_is_answered_by_the_library() {
    let (mut stream, mut far, verdicts) = connection();
    far.write_all(&GET[..7]).await.unwrap();
    assert!(request(&mut stream).is_pending());
    far.shutdown().await.unwrap();
    assert!(matches!(request(&mut stream), Poll::Ready(Ok(true))));
    assert_eq!(verdicts.next().fault, Some(Fault::CutShort));
    assert_eq!(read(&mut stream, 8192).unwrap().unwrap(), STAND_IN);
}
