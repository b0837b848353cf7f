//! GRO split: a layer that returns single datagrams, although the kernel delivers them in batches.
//!
//! With receive offload (GRO) up to 64 datagrams come in one piece of memory. Quinn keeps such a piece until the last
//! byte of its datagrams is read, so a stalled stream could hold 40 times its window. A datagram that is copied out
//! holds only itself, and quinn's own limits are right.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::AsyncUdpSocket;
use quinn::udp::RecvMeta;

use super::layer::{LayeredSocket, UdpLayer};

/// The most bytes that the kernel gives in one batch.
const BATCH: usize = 64 * 1024;
/// Batches that are taken in one call.
const BATCHES: usize = 4;

/// A socket over `below` that gives one datagram in each buffer.
pub fn split_gro(below: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
    LayeredSocket::new(GroSplit { below, received: Mutex::new(Received::new()) })
}

#[derive(Debug)]
struct GroSplit {
    below: Arc<dyn AsyncUdpSocket>,
    received: Mutex<Received>,
}

impl UdpLayer for GroSplit {
    fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>> {
        Some(&self.below)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock();
        if received.next >= received.count {
            ready!(received.poll_fill(cx, &*self.below))?;
        }
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            if !received.take(buffer, meta) {
                break;
            }
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn max_receive_segments(&self) -> usize {
        1
    }
}

/// Batches with datagrams that are not handed out yet.
#[derive(Debug)]
struct Received {
    memory: Box<[u8]>,
    metas: [RecvMeta; BATCHES],
    /// How many of `metas` are in use.
    count: usize,
    /// The batch that comes next.
    next: usize,
    /// Bytes of that batch that were handed out.
    offset: usize,
}

impl Received {
    fn new() -> Self {
        Self {
            memory: vec![0; BATCHES * BATCH].into(),
            metas: [RecvMeta::default(); BATCHES],
            count: 0,
            next: 0,
            offset: 0,
        }
    }

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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::pin::Pin;

    use quinn::UdpPoller;
    use quinn::udp::Transmit;

    use super::*;

    /// Gives these batches, each as (length, stride). Every byte is the number of its datagram in the batch.
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
            let Some(batches) = self.0.lock().pop() else { return Poll::Pending };
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
        let socket = split_gro(Arc::new(inner));
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
