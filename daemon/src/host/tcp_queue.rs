//! What the kernel knows of a TCP connection's sent bytes, for which there is no safe interface.

use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// Where `tcpi_bytes_acked` is in the kernel's `struct tcp_info` (linux/tcp.h), whose layout is fixed. The libc crate's
/// ends before it.
const BYTES_ACKED: usize = 120;

/// How many bytes the other side's kernel has not acknowledged, our FIN among them (tcp(7), SIOCOUTQ); 0 if that can't be
/// known.
#[expect(unsafe_code, reason = "nothing safe asks for it")]
pub(crate) fn unacknowledged(socket: &TcpStream) -> libc::c_int {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the request writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { bytes } else { 0 }
}

/// How many bytes the other side's kernel has acknowledged (tcp(7), TCP_INFO); 0 if that can't be known.
#[expect(unsafe_code, reason = "nothing safe asks for it")]
pub(crate) fn acknowledged(socket: &TcpStream) -> u64 {
    let mut info = [0_u8; BYTES_ACKED + size_of::<u64>()];
    let Ok(mut length) = libc::socklen_t::try_from(info.len()) else { return 0 };
    let (fd, buffer) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to the buffer, which has as many.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut length) };
    match info.last_chunk() {
        Some(acknowledged) if result == 0 => u64::from_ne_bytes(*acknowledged),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn acknowledged_bytes_are_those_that_arrived() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        // The SYN counts as a byte.
        let before = acknowledged(&sender);
        sender.write_all(&[7; 10_000]).await.unwrap();
        receiver.read_exact(&mut [0; 10_000]).await.unwrap();
        let arrived = async {
            while acknowledged(&sender) < before + 10_000 || unacknowledged(&sender) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), arrived).await.unwrap();
        assert_eq!(acknowledged(&sender), before + 10_000);
    }
}
