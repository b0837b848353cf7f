//! A UDP socket that hands datagrams over one by one, though the kernel gives them in batches.
//!
//! With receive offload (GRO) up to 64 datagrams come as one piece of memory. quinn would keep such a piece for as long
//! as one byte of one of its datagrams waits to be read, so a stream whose reader has stopped could hold 40 times its
//! window. Copied out one by one, each datagram holds only itself, and quinn's own accounts are right.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// What the kernel may give at once, in one batch.
const BATCH: usize = 64 * 1024;
/// Batches that are taken in one call.
const BATCHES: usize = 4;

/// The socket. See the module's documentation.
#[derive(Debug)]
pub struct Unbatched {
    inner: Arc<dyn AsyncUdpSocket>,
    received: Mutex<Received>,
}

/// Batches that are not all handed over yet.
#[derive(Debug)]
struct Received {
    memory: Box<[u8]>,
    metas: [RecvMeta; BATCHES],
    /// How many of `metas` are in use, and which comes next.
    count: usize,
    next: usize,
    /// How much of the next one was handed over.
    offset: usize,
}

impl Unbatched {
    /// Takes them from this socket.
    pub fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        let received = Received {
            memory: vec![0; BATCHES * BATCH].into(),
            metas: [RecvMeta::default(); BATCHES],
            count: 0,
            next: 0,
            offset: 0,
        };
        Self { inner, received: Mutex::new(received) }
    }
}

impl Received {
    fn poll_fill(&mut self, cx: &mut Context<'_>, socket: &dyn AsyncUdpSocket) -> Poll<io::Result<()>> {
        let mut memory = self.memory.chunks_mut(BATCH);
        let mut buffers: [IoSliceMut<'_>; BATCHES] =
            std::array::from_fn(|_| IoSliceMut::new(memory.next().unwrap_or_default()));
        self.count = ready!(socket.poll_recv(cx, &mut buffers, &mut self.metas))?.min(BATCHES);
        (self.next, self.offset) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Copies the next datagram out; `false` if there is none.
    fn take(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) -> bool {
        let Some(batch) = self.metas[..self.count].get(self.next) else { return false };
        let length = batch.len.saturating_sub(self.offset).min(batch.stride);
        let start = self.next * BATCH + self.offset;
        let copied = length.min(buffer.len());
        buffer[..copied].copy_from_slice(&self.memory[start..start + copied]);
        *meta = RecvMeta { len: copied, stride: copied, ..*batch };
        self.offset += length;
        if length == 0 || self.offset >= batch.len {
            (self.next, self.offset) = (self.next + 1, 0);
        }
        true
    }
}

impl AsyncUdpSocket for Unbatched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.next >= received.count {
            ready!(received.poll_fill(cx, &*self.inner))?;
        }
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            if !received.take(buffer, meta) {
                break;
            }
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the batches that it is told to, each as (length, stride), of bytes that count up.
    #[derive(Debug)]
    struct Batches(Mutex<Vec<Vec<(usize, usize)>>>);

    impl AsyncUdpSocket for Batches {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
            unreachable!("nothing is sent")
        }

        fn poll_recv(
            &self,
            _cx: &mut Context<'_>,
            buffers: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let Some(batches) = self.0.lock().unwrap().pop() else { return Poll::Pending };
            for (index, (length, stride)) in batches.iter().enumerate() {
                for (at, byte) in buffers[index][..*length].iter_mut().enumerate() {
                    *byte = (at / stride) as u8;
                }
                meta[index] = RecvMeta { len: *length, stride: *stride, ..RecvMeta::default() };
            }
            Poll::Ready(Ok(batches.len()))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
    }

    #[test]
    fn batches_come_apart() {
        let inner = Batches(Mutex::new(vec![vec![(5, 5)], vec![(2500, 1200), (1, 1), (0, 0)]]));
        let socket = Unbatched::new(Arc::new(inner));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut got = Vec::new();
        loop {
            let (mut first, mut second) = ([0; 1472], [0; 1472]);
            let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let mut metas = [RecvMeta::default(); 2];
            let Poll::Ready(count) = socket.poll_recv(&mut cx, &mut buffers, &mut metas) else { break };
            for (buffer, meta) in buffers.iter().zip(&metas).take(count.unwrap()) {
                assert_eq!(meta.len, meta.stride);
                got.push((meta.len, buffer.first().copied().filter(|_| meta.len > 0)));
            }
        }
        let expected = [(1200, Some(0)), (1200, Some(1)), (100, Some(2)), (1, Some(0)), (0, None), (5, Some(0))];
        assert_eq!(got, expected);
    }
}
