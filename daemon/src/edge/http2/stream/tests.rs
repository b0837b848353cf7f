//! What the library and the visitor get.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ACK: &[u8] = &[0, 0, 8, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn connection(capacity: usize) -> (Budgeted<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(capacity);
    (Budgeted::new(near), far)
}

/// Reads until the end or an error.
async fn read_all(stream: &mut Budgeted<DuplexStream>) -> (usize, io::Result<usize>) {
    let mut seen = Vec::new();
    let result = stream.read_to_end(&mut seen).await;
    (seen.len(), result)
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_not_changed() {
    let (mut stream, mut far) = connection(1 << 20);
    let input = [PREFACE, &ACK.repeat(1000)].concat();
    far.write_all(&input).await.unwrap();
    far.shutdown().await.unwrap();
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    assert!(seen == input);
    let pieces = [IoSlice::new(b""), IoSlice::new(&PING[..3]), IoSlice::new(&PING[3..])];
    assert_eq!(stream.write_vectored(&pieces).await.unwrap(), PING.len());
    drop(stream);
    seen.clear();
    far.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, PING);
}

#[tokio::test(start_paused = true)]
async fn a_flood_gets_a_goaway_and_the_end() {
    let (mut stream, mut far) = connection(1 << 20);
    far.write_all(PREFACE).await.unwrap();
    far.write_all(&ACK.repeat(10_000)).await.unwrap();
    let reader = tokio::spawn(async move {
        let (length, result) = read_all(&mut stream).await;
        assert!(length <= PREFACE.len() + 1000 * ACK.len() && result.is_err());
        drop(stream);
    });
    let mut seen = Vec::new();
    far.read_to_end(&mut seen).await.unwrap();
    assert_eq!((seen[3], seen[16]), (7, 0xb));
    // The visitor goes on, and the end comes in spite of that.
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_goaway_comes_behind_the_frame_that_is_being_written() {
    let (mut stream, mut far) = connection(1 << 20);
    stream.write_all(&PING[..12]).await.unwrap();
    far.write_all(PREFACE).await.unwrap();
    far.write_all(&ACK.repeat(10_000)).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        reading.read_to_end(&mut seen).await
    });
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The rest of it and two more frames, of which the visitor gets none.
    writing.write_all(&[&PING[12..], PING, PING].concat()).await.unwrap();
    let mut seen = vec![0; PING.len() + 17];
    far.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen[..PING.len()], PING);
    assert_eq!((seen[PING.len() + 3], seen[PING.len() + 16]), (7, 0xb));
    assert!(reader.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_reads_nothing_is_cut_off_in_time() {
    let (mut stream, mut far) = connection(64);
    let flood = tokio::spawn(async move {
        let _cut = far.write_all(&[PREFACE, &ACK.repeat(10_000)].concat()).await;
        far
    });
    stream.write_all(&PING.repeat(3)).await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(read_all(&mut stream).await.1.is_err());
    assert!(began.elapsed() <= LINGER + Duration::from_millis(10));
    drop(stream);
    flood.await.unwrap();
}
