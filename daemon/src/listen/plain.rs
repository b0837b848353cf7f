//! Plain HTTP on the port for HTTPS: its visitor gets an answer in words instead of a broken connection.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the visitor may go on sending once it has its answer. A close before that could destroy the answer.
const LINGER: Duration = Duration::from_secs(1);
/// The most bytes of that which are read and dropped.
const MOST: usize = 64 * 1024;

/// The answer. Its reader may be a person at a browser or a program's log.
const ANSWER: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 105\r\n\
    cache-control: no-store\r\n\
    x-content-type-options: nosniff\r\n\
    content-security-policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n\
    referrer-policy: no-referrer\r\n\
    connection: close\r\n\
    \r\n\
    This port speaks HTTPS\n\
    Your browser or program sent plain HTTP. Use an address that begins with https://\n";

/// Whether a fresh connection begins like plain HTTP: with a letter, as methods do. TLS begins with 22 (RFC 8446, section
/// 5.1). Waits for the first byte.
pub(super) async fn is_plain_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    Ok(length > 0 && first[0].is_ascii_alphabetic())
}

/// Answers, and closes the connection.
pub(super) async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await?;
    let mut dropped = [0; 1024];
    let rest = async {
        for _ in 0..MOST / dropped.len() {
            if !matches!(stream.read(&mut dropped).await, Ok(1..)) {
                return;
            }
        }
        pending::<()>().await;
    };
    let _long_enough = timeout(LINGER, rest).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_length_is_right() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }

    #[tokio::test]
    async fn only_a_letter_is_plain_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (bytes, expected) in
            [(&b"GET / HTTP/1.1\r\n"[..], true), (b"\x16\x03\x01", false), (b"\0", false), (b"", false)]
        {
            let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            visitor.write_all(bytes).await.unwrap();
            visitor.shutdown().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(is_plain_http(&stream).await.unwrap(), expected);
        }
    }
}
