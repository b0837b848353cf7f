//! What the kernel knows of a TCP connection's sent bytes, for which there is no safe interface.

use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// Where the kernel's `struct tcp_info` (linux/tcp.h) has `tcpi_bytes_acked`. The layout is fixed, and the libc crate's
/// ends before it.
const BYTES_ACKED: usize = 120;
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

/// A count that grows with what a connection carries (tcp(7), TCP_INFO); 0 if that can't be known. It adds up the bytes
/// that came, and the bytes and segments that the other side's kernel acknowledged, even behind a lost one. Empty
/// segments do not count: a kernel sends them for a program that has stopped.
#[expect(unsafe_code, reason = "nothing safe asks for it")]
pub(crate) fn progress(socket: &TcpStream) -> u64 {
    let mut info = [0_u8; DELIVERED + size_of::<u32>()];
    let Ok(mut length) = libc::socklen_t::try_from(info.len()) else { return 0 };
    let (fd, buffer) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to the buffer, which has as many.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut length) };
    if result != 0 {
        return 0;
    }
    let bytes = |at: usize| info[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let delivered = info.last_chunk().map_or(0, |segments| u32::from_ne_bytes(*segments));
    bytes(BYTES_ACKED).wrapping_add(bytes(BYTES_RECEIVED)).wrapping_add(delivered.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
