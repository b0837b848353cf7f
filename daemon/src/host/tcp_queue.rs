//! What the kernel knows of a TCP connection's sent bytes, for which there is no safe interface.

use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use tokio::net::TcpStream;

/// Where the kernel's `struct tcp_info` (linux/tcp.h) has `tcpi_bytes_acked`. The layout is fixed, and the libc crate's
/// ends before it.
const BYTES_ACKED: usize = 120;
/// Where it has `tcpi_retransmits`, `tcpi_probes`, `tcpi_last_data_sent` and `tcpi_last_ack_recv`.
const RETRANSMITS: usize = 2;
const PROBES: usize = 3;
const LAST_DATA_SENT: usize = 44;
const LAST_ACK_RECEIVED: usize = 56;
const BYTES_RECEIVED: usize = 128;
/// Where it has `tcpi_delivered`, if the kernel is Linux 4.18 or later.
const DELIVERED: usize = 192;

/// How many bytes the other side's kernel has not acknowledged, our FIN among them (tcp(7), SIOCOUTQ); 0 if that can't be
/// known.
#[expect(unsafe_code, reason = "nothing safe asks for it")]
pub(crate) fn unacknowledged(socket: &TcpStream) -> libc::c_int {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the request writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { bytes } else { 0 }
}

/// A count that grows with what a connection carries; 0 if that can't be known. It adds up the bytes that came and what
/// [`taken`] counts.
pub(crate) fn progress(socket: &TcpStream) -> u64 {
    let info = info(socket);
    taken_of(&info).wrapping_add(bytes_of(&info, BYTES_RECEIVED))
}

/// A count that grows as the other side takes what was sent; 0 if that can't be known. It adds up the bytes and segments
/// that its kernel acknowledged, even behind a lost one. Empty segments do not count: a kernel sends them for a program
/// that has stopped.
pub(crate) fn taken(socket: &TcpStream) -> u64 {
    taken_of(&info(socket))
}

/// How long the other side's kernel has said nothing, while ours sends something again. `None` if all was answered, or if
/// that can't be known.
pub(crate) fn unanswered(socket: &TcpStream) -> Option<Duration> {
    let info = info(socket);
    let ms = |at: usize| info[at..].first_chunk().map_or(0, |ms| u32::from_ne_bytes(*ms));
    let (sent, heard) = (ms(LAST_DATA_SENT), ms(LAST_ACK_RECEIVED));
    // A visitor without room answers what is sent again, and has it sent again later.
    let waits = info[PROBES] > 0 || (info[RETRANSMITS] > 0 && heard > sent);
    waits.then(|| Duration::from_millis(heard.into()))
}

/// The beginning of a connection's `tcp_info`.
type Info = [u8; DELIVERED + size_of::<u32>()];

fn taken_of(info: &Info) -> u64 {
    let delivered = info.last_chunk().map_or(0, |segments| u32::from_ne_bytes(*segments));
    bytes_of(info, BYTES_ACKED).wrapping_add(delivered.into())
}

fn bytes_of(info: &Info, at: usize) -> u64 {
    info[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// What the kernel knows of a connection (tcp(7), TCP_INFO). Zeros stand for what it does not know.
#[expect(unsafe_code, reason = "nothing safe asks for it")]
fn info(socket: &TcpStream) -> Info {
    let mut info = [0; DELIVERED + size_of::<u32>()];
    let Ok(mut length) = libc::socklen_t::try_from(info.len()) else { return info };
    let (fd, buffer) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to the buffer, which has as many.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut length) };
    if result == 0 { info } else { [0; DELIVERED + size_of::<u32>()] }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_connection_carries_is_its_progress() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            let before = progress(&near);
            near.write_all(&[7; 10_000]).await.unwrap();
            far.read_exact(&mut [0; 10_000]).await.unwrap();
            let arrived = async {
                while progress(&near) <= before + 10_000 || unacknowledged(&near) > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), arrived).await.unwrap();
            let sent = progress(&near);
            assert!(sent < before + 10_100, "bytes, and some segments");
            far.write_all(&[7; 10_000]).await.unwrap();
            near.read_exact(&mut [0; 10_000]).await.unwrap();
            assert_eq!(progress(&near), sent + 10_000);
        }
    }
}
