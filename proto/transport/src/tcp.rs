//! Socket options of TCP connections. It opens no connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
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
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

/// Whether nothing waits to be read from a socket that does not block, neither bytes nor the end nor an error.
pub fn is_quiet(socket: &impl AsFd) -> bool {
    let peeked = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Sets the congestion controller of a socket. Connections that a listener accepts inherit it. If the kernel does not
/// have the controller, this fails and the kernel's default stays.
pub fn set_congestion(socket: &impl AsFd, congestion: Congestion) -> io::Result<()> {
    SockRef::from(socket).set_tcp_congestion(congestion.name().as_bytes())
}
