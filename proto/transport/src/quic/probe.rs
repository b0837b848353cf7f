//! Asks whether UDP passes to a QUIC server and back, without a connection.
//!
//! A server answers a version that no server has by a list of its own (RFC 8999, section 6). This needs no certificate and
//! no key, and a server keeps no state for it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// A version that is reserved to be unknown (RFC 9000, section 15).
const NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// The bytes of a question. Servers answer no smaller one (RFC 9000, section 14.1).
const SIZE: usize = 1200;
/// The bytes of each connection id.
const ID: usize = 8;
/// The waits before the question is sent again.
const REPEAT: Duration = Duration::from_millis(500);

/// The round trip to the server's answer, or an error of the kind `TimedOut` if none comes within `limit`.
///
/// The kernel may send the question in fragments. So an answer does not show that QUIC's packets pass whole.
pub async fn reaches(server: SocketAddr, id: [u8; ID], limit: Duration) -> io::Result<Duration> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (question, end) = (question(id), Instant::now() + limit);
    let mut answer = [0; 256];
    loop {
        let sent = Instant::now();
        socket.send(&question).await?;
        while let Ok(received) = timeout_at((sent + REPEAT).min(end), socket.recv(&mut answer)).await {
            let length = received?;
            if answer.get(..length).is_some_and(|answer| is_answer(answer, id)) {
                return Ok(sent.elapsed());
            }
        }
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// A long header with an unknown version, two connection ids, and nothing that means something.
fn question(id: [u8; ID]) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend_from_slice(&NO_VERSION);
    for _ in 0..2 {
        packet.push(ID as u8);
        packet.extend_from_slice(&id);
    }
    packet.resize(SIZE, 0);
    packet
}

/// Whether this is a Version Negotiation packet for our connection ids.
fn is_answer(packet: &[u8], id: [u8; ID]) -> bool {
    let Some((head, ids)) = packet.split_at_checked(5) else { return false };
    let expected = [&[ID as u8], &id[..], &[ID as u8], &id[..]].concat();
    head[0] & 0x80 != 0 && head[1..] == [0; 4] && ids.starts_with(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let id = *b"12345678";
        let answer = [&[0x80, 0, 0, 0, 0, 8], &id[..], &[8], &id[..], &[0, 0, 0, 1]].concat();
        assert!(is_answer(&answer, id));
        assert!(!is_answer(&answer, *b"87654321") && !is_answer(&answer[..20], id) && !is_answer(b"", id));
        assert!(!is_answer(&question(id), id), "an echo is no answer");
        assert_eq!(question(id).len(), SIZE);
    }
}
