//! UDP sockets: bound with large buffers, and what the kernel really gave.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What is asked for each of a socket's buffers: 4 MiB hold 30 ms at 1 Gbit/s while the process is busy elsewhere. The
/// kernel gives no more than `net.core.rmem_max` and `wmem_max` allow.
pub const BUFFER: usize = 4 * 1024 * 1024;

/// A socket's buffers in bytes, as the kernel counts them.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// For receiving.
    pub receive: usize,
    /// For sending.
    pub send: usize,
}

/// Binds a socket. An IPv6 wildcard takes IPv4 as well.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Binds a client's socket to a wildcard address, so that the kernel picks the source address afresh for every packet: a
/// machine that changes its network keeps its sessions by migration (RFC 9000, section 9).
pub(super) fn bind_any() -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// Asks for large buffers and tells what they are now. Failing to enlarge them is no error: they are as they were.
pub fn enlarge(socket: &UdpSocket) -> io::Result<Buffers> {
    let socket = SockRef::from(socket);
    let _as_it_was = socket.set_recv_buffer_size(BUFFER);
    let _as_it_was = socket.set_send_buffer_size(BUFFER);
    Ok(Buffers { receive: socket.recv_buffer_size()?, send: socket.send_buffer_size()? })
}
