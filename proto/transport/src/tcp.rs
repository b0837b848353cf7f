//! Socket options of TCP connections. It opens no connection.

use std::io;
use std::mem::MaybeUninit;
#[cfg(unix)]
use std::os::fd::AsFd as AsSocket;
#[cfg(windows)]
use std::os::windows::io::AsSocket;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::Congestion;

/// Unsent bytes that the kernel may hold on a connection: a few writes. Another exchange's first bytes cannot overtake what
/// the kernel holds, and a visitor who does not read would fill four megabytes that no account knows.
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Silence after which the kernel probes whether the peer still exists, so that a connection to a dead machine ends. It
/// is long, because a slow request is silent too.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Sets the options of every TCP connection: keep-alive probes, and few unsent bytes in the kernel. Nagle's algorithm is
/// off, since its wait for a delayed acknowledgement costs 40 ms.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    system::limit_unsent(&socket, NOTSENT_LOWAT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

/// Whether nothing waits to be read from a socket that does not block, neither bytes nor the end nor an error.
pub fn is_quiet(socket: &impl AsSocket) -> bool {
    let peeked = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Sets the congestion controller of a socket. Connections that a listener accepts inherit it. If the kernel does not
/// have the controller, this fails and the kernel's default stays.
pub fn set_congestion(socket: &impl AsSocket, congestion: Congestion) -> io::Result<()> {
    system::set_congestion(&SockRef::from(socket), congestion)
}

/// What Linux alone has.
#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use socket2::SockRef;

    use crate::Congestion;

    pub(super) fn limit_unsent(socket: &SockRef<'_>, bytes: u32) -> io::Result<()> {
        socket.set_tcp_notsent_lowat(bytes)
    }

    pub(super) fn set_congestion(socket: &SockRef<'_>, congestion: Congestion) -> io::Result<()> {
        socket.set_tcp_congestion(congestion.name().as_bytes())
    }
}

/// Other systems do without: the kernel holds more unsent bytes, and chooses the controller.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use socket2::SockRef;

    use crate::Congestion;

    #[expect(clippy::unnecessary_wraps, reason = "Linux can fail")]
    pub(super) fn limit_unsent(_socket: &SockRef<'_>, _bytes: u32) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn set_congestion(_socket: &SockRef<'_>, _congestion: Congestion) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not let programs choose it"))
    }
}
