//! Socket options of the TCP hops.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::Congestion;

/// Unsent bytes that the kernel may hold on a tunnel's connection. Whatever lies there can't be overtaken by another
/// exchange's first bytes, so it is kept to a few writes.
const TUNNEL_NOTSENT_LOWAT: u32 = 128 * 1024;

/// After this much silence the kernel starts to ask whether a peer still exists, so that one that lost its power is
/// let go of. Well above any ordinary pause, since a request may take its time.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// For every TCP connection of ours: no Nagle's algorithm (its wait for a delayed acknowledgement costs 40 ms), and
/// keep-alive probes.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

/// For a connection that carries a tunnel, on top of [`tune`].
pub fn tune_tunnel(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(TUNNEL_NOTSENT_LOWAT)
}

/// Chooses the congestion controller of a socket; connections accepted from a listener inherit its own. Fails where the
/// kernel does not have it, and then the kernel's default stays.
pub fn set_congestion(socket: &impl AsFd, congestion: Congestion) -> io::Result<()> {
    SockRef::from(socket).set_tcp_congestion(congestion.name().as_bytes())
}
