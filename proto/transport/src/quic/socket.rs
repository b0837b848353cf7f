//! UDP sockets: how they are bound, and the size of their buffers. What a socket carries is decided elsewhere.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::gro::split_gro;

/// The size in bytes that we request for each buffer of a socket. While the process is busy, 4 MiB hold 30 ms at 1
/// Gbit/s. The kernel grants at most `net.core.rmem_max` and `wmem_max`.
pub const BUFFER: usize = 4 * 1024 * 1024;

/// Size in bytes from which a buffer was chosen on purpose. The kernel's default is 208 KiB.
const CHOSEN: usize = 1024 * 1024;

/// The sizes of a socket's buffers in bytes, as the kernel reports them.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// For receiving.
    pub receive: usize,
    /// For sending.
    pub send: usize,
}

/// Binds a daemon's socket. An IPv6 wildcard takes IPv4 as well. Sockets of the same user may share the address, so
/// that a stopping daemon keeps its peers while its successor has the port. A second daemon, started by mistake, fails
/// on TCP.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = unbound(address)?;
    // Windows has no such option, and no daemon.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Binds a client's socket to a wildcard address, so that the kernel picks the source address of each packet. So a
/// machine that changes its network keeps its sessions by migration (RFC 9000, section 9).
pub(super) fn bind_any() -> io::Result<UdpSocket> {
    let bind = |address: SocketAddr| -> io::Result<UdpSocket> {
        let socket = unbound(address)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// The most datagrams that the kernel takes or gives in one call. 1 means that it has no offload.
#[derive(Clone, Copy, Debug)]
pub struct Offload {
    /// GSO: for sending.
    pub send: usize,
    /// GRO: for receiving.
    pub receive: usize,
}

/// Wraps a socket for quinn, with the GRO split. Must be called within a tokio runtime.
pub fn wrap(socket: UdpSocket) -> io::Result<(Arc<dyn AsyncUdpSocket>, Offload)> {
    let socket = TokioRuntime.wrap_udp_socket(socket)?;
    let offload = Offload { send: socket.max_transmit_segments(), receive: socket.max_receive_segments() };
    Ok((split_gro(socket), offload))
}

/// Asks the kernel for large buffers and returns their sizes. A refusal is no error, and the sizes stay. Buffers that
/// were chosen on purpose stay too: a service manager may exceed the kernel's limits, and we would shrink them.
pub fn enlarge(socket: &UdpSocket) -> io::Result<Buffers> {
    let socket = SockRef::from(socket);
    if socket.recv_buffer_size()? < CHOSEN {
        let _as_it_was = socket.set_recv_buffer_size(BUFFER);
    }
    if socket.send_buffer_size()? < CHOSEN {
        let _as_it_was = socket.set_send_buffer_size(BUFFER);
    }
    Ok(Buffers { receive: socket.recv_buffer_size()?, send: socket.send_buffer_size()? })
}
