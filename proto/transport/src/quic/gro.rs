//! GRO split: a layer that returns single datagrams, although the kernel delivers them in batches. It also divides batches
//! that are too large for the kernel to send.
//!
//! With receive offload (GRO) up to 64 datagrams come in one piece of memory. Quinn keeps such a piece until the last
//! byte of its datagrams is read, so a stalled stream could hold 40 times its window. A datagram that is copied out
//! holds only itself, and quinn's own limits are right.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};

use super::layer::{LayeredSocket, UdpLayer};

/// The most bytes that the kernel gives in one batch.
const BATCH: usize = 64 * 1024;
/// The most bytes that the kernel takes in one batch.
const MOST_SENT: usize = 65_000;
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

    /// Quinn puts ten datagrams into a batch, however large they are. The kernel takes 64 KiB.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > MOST_SENT) else {
            return self.below.try_send(transmit);
        };
        let size = (MOST_SENT / segment).max(1) * segment;
        for contents in transmit.contents.chunks(size) {
            let segment_size = (contents.len() > segment).then_some(segment);
            self.below.try_send(&Transmit { contents, segment_size, ..*transmit })?;
        }
        Ok(())
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

    /// Notes what is sent: the length of each batch and of its datagrams.
    #[derive(Debug, Default)]
    struct Sent(Mutex<Vec<(usize, Option<usize>)>>);

    impl AsyncUdpSocket for Sent {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nobody waits")
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.0.lock().push((transmit.contents.len(), transmit.segment_size));
            Ok(())
        }

        fn poll_recv(
            &self,
            _cx: &mut Context<'_>,
            _buffers: &mut [IoSliceMut<'_>],
            _meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
    }

    #[test]
    fn batches_that_the_kernel_does_not_take_are_sent_in_parts() {
        let below = Arc::new(Sent::default());
        let socket = split_gro(below.clone());
        let contents = vec![0; 10 * 8952];
        for (length, segment_size) in [(14_520, Some(1452)), (8952, None), (8 * 8952 + 100, Some(8952))] {
            let contents = &contents[..length];
            let destination = ([127, 0, 0, 1], 2).into();
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            socket.try_send(&transmit).unwrap();
        }
        let expected = [(14_520, Some(1452)), (8952, None), (7 * 8952, Some(8952)), (8952 + 100, Some(8952))];
        assert_eq!(*below.0.lock(), expected);
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
