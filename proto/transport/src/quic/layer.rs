//! A wrapper for UDP sockets. A layer overrides some operations; all others go to the socket below.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// The operations of a layer over UDP sockets. Every method but [`UdpLayer::below`] has a default: the same method of
/// the socket below.
pub trait UdpLayer: fmt::Debug + Send + Sync + 'static {
    /// The socket below. `None` if there is none: then nothing arrives, and what is sent is dropped.
    fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>>;

    /// Receives datagrams as [`AsyncUdpSocket::poll_recv`] does: one batch in each buffer, described by its meta.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.below().map_or(Poll::Pending, |socket| socket.poll_recv(cx, buffers, metas))
    }

    /// Sends datagrams as [`AsyncUdpSocket::try_send`] does.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.below().map_or(Ok(()), |socket| socket.try_send(transmit))
    }

    /// Whether a sender waits until the socket below takes more. A layer that drops what does not fit says `false`.
    fn sender_waits(&self) -> bool {
        self.below().is_some()
    }

    /// The local address.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.below().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |socket| socket.local_addr())
    }

    /// The most datagrams in one buffer that is received (GRO).
    fn max_receive_segments(&self) -> usize {
        self.below().map_or(1, |socket| socket.max_receive_segments())
    }
}

/// A UDP socket with one layer over it.
#[derive(Debug)]
pub struct LayeredSocket<L>(L);

impl<L: UdpLayer> LayeredSocket<L> {
    /// The socket that this layer makes.
    pub fn new(layer: L) -> Arc<Self> {
        Arc::new(Self(layer))
    }

    /// The layer.
    pub fn layer(&self) -> &L {
        &self.0
    }
}

impl<L: UdpLayer> AsyncUdpSocket for LayeredSocket<L> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        match self.0.below().filter(|_| self.0.sender_waits()) {
            Some(socket) => socket.clone().create_io_poller(),
            None => Box::pin(AlwaysWritable),
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, buffers, metas)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.below().map_or(1, |socket| socket.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.below().is_none_or(|socket| socket.may_fragment())
    }
}

/// The poller of a socket whose sender never waits.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Bottom;

    impl UdpLayer for Bottom {
        fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>> {
            None
        }
    }

    #[derive(Debug)]
    struct Top(Arc<dyn AsyncUdpSocket>, bool);

    impl UdpLayer for Top {
        fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>> {
            Some(&self.0)
        }

        fn sender_waits(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn a_layer_leaves_everything_to_the_socket_below() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let bottom = LayeredSocket::new(Bottom);
        assert!(bottom.poll_recv(&mut cx, &mut [], &mut []).is_pending());
        assert!(bottom.local_addr().is_err());
        for waits in [true, false] {
            let top = LayeredSocket::new(Top(bottom.clone(), waits));
            assert!(top.poll_recv(&mut cx, &mut [], &mut []).is_pending());
            assert_eq!((top.max_receive_segments(), top.max_transmit_segments(), top.may_fragment()), (1, 1, true));
            assert!(top.local_addr().is_err());
            assert!(top.create_io_poller().as_mut().poll_writable(&mut cx).is_ready());
        }
    }
}
