//! Parked Initials: first packets of QUIC connections that arrive during a drain, kept for the next daemon.
//!
//! Each daemon in turn reads the sockets of the service manager. A draining daemon reads until its own peers have
//! finished, so it also receives packets meant for its successor. Peers send those again, but at growing intervals (RFC
//! 9002, section 6.2.1): after a drain of some seconds a visitor would wait that long once more. So the daemon parks
//! copies in the state directory, and its successor starts with them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cok_certs::unix_now;
use cok_host::private_file;
use cok_transport::quic::UdpLayer;
use quinn::AsyncUdpSocket;
use quinn::udp::RecvMeta;
use serde::{Deserialize, Serialize};
use tracing::warn;

use parking_lot::Mutex;

const FILE: &str = "first-packets.json";
/// The most parked packets; older ones are dropped. It equals the limit of Initials that wait for a handshake. At the
/// greatest length they take 1.5 MiB.
const MOST: usize = 1024;
/// The lengths of a first packet in bytes. A client pads it to 1,200 bytes (RFC 9000, section 14.1), and Ethernet
/// carries 1,472.
const LENGTHS: std::ops::RangeInclusive<usize> = 1200..=1472;
/// The age after which a packet is useless: its sender has given up or sent it again.
const FRESH: Duration = Duration::from_secs(10);

/// A parked packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstPacket {
    /// The local address of the socket that received it.
    socket: SocketAddr,
    from: SocketAddr,
    /// The destination address, if the socket has several.
    to: Option<IpAddr>,
    /// The packet in base64.
    data: String,
}

impl FirstPacket {
    /// The packet as a socket returns it. `None` if it is damaged.
    fn received(&self) -> Option<(RecvMeta, Vec<u8>)> {
        let data = STANDARD.decode(&self.data).ok().filter(|data| is_first(data))?;
        let length = data.len();
        Some((RecvMeta { addr: self.from, len: length, stride: length, ecn: None, dst_ip: self.to }, data))
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// The time of parking, in seconds since 1970.
    at: i64,
    packets: Vec<FirstPacket>,
}

/// Takes the packets that the last process parked, if that was recent. Removes them from the disk.
pub(crate) fn take(state_dir: &Path) -> Vec<FirstPacket> {
    let path = state_dir.join(FILE);
    let kept = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => Err(error),
    };
    let kept = kept.and_then(|kept| std::fs::remove_file(&path).map(|()| kept));
    match kept {
        Ok(kept) if (0..FRESH.as_secs().cast_signed()).contains(&(unix_now() - kept.at)) => kept.packets,
        Ok(_) => Vec::new(),
        Err(error) => {
            let file = path.display();
            warn!(%file, %error, "first packets for the last process are lost, and their senders try again: {file}: {error}");
            let _gone = std::fs::remove_file(&path);
            Vec::new()
        }
    }
}

/// Saves packets for the next process.
pub(crate) fn leave(state_dir: &Path, packets: Vec<FirstPacket>) -> io::Result<()> {
    let kept = serde_json::to_vec(&Kept { at: unix_now(), packets })?;
    private_file::write(&state_dir.join(FILE), &kept)
}

/// A socket that first returns parked packets, and keeps copies of new ones after [`Socket::park`].
#[derive(Debug)]
pub(crate) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    local: SocketAddr,
    /// True while `before` has packets. Saves the lock when it has none.
    has_before: AtomicBool,
    before: Mutex<VecDeque<(RecvMeta, Vec<u8>)>>,
    keeps: AtomicBool,
    /// True once the socket reads no more.
    over: AtomicBool,
    kept: Mutex<VecDeque<(Instant, FirstPacket)>>,
}

impl Socket {
    /// Wraps `inner`, which returns one datagram in each buffer. Uses those packets of `before` that came to the same
    /// address.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, before: &[FirstPacket]) -> io::Result<Self> {
        let local = inner.local_addr()?;
        let here = before.iter().filter(|packet| packet.socket == local);
        let before: VecDeque<_> = here.filter_map(FirstPacket::received).collect();
        Ok(Self {
            inner,
            local,
            has_before: AtomicBool::new(!before.is_empty()),
            before: Mutex::new(before),
            keeps: AtomicBool::new(false),
            over: AtomicBool::new(false),
            kept: Mutex::default(),
        })
    }

    /// Starts to park first packets for the next process.
    pub(crate) fn park(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Takes the parked packets that are still fresh. Later packets stay in the kernel's queue.
    pub(crate) fn parked(&self) -> Vec<FirstPacket> {
        self.over.store(true, Ordering::Relaxed);
        let mut kept = self.kept.lock();
        kept.drain(..).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, packet)| packet).collect()
    }

    /// Fills buffers with parked packets and returns how many. There must be at least one buffer.
    fn begin(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut before = self.before.lock();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((received, data)) = before.pop_front() else { break };
            let length = data.len().min(buffer.len());
            buffer[..length].copy_from_slice(&data[..length]);
            *meta = RecvMeta { len: length, stride: length, ..received };
            count += 1;
        }
        self.has_before.store(!before.is_empty(), Ordering::Relaxed);
        count
    }

    fn copy(&self, data: &[u8], meta: &RecvMeta) {
        if !is_first(data) {
            return;
        }
        let packet = FirstPacket { socket: self.local, from: meta.addr, to: meta.dst_ip, data: STANDARD.encode(data) };
        let mut kept = self.kept.lock();
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), packet));
    }
}

/// True if it looks like a client's Initial packet of QUIC version 1 (RFC 9000, section 17.2.2).
fn is_first(data: &[u8]) -> bool {
    LENGTHS.contains(&data.len()) && matches!(data, [0xc0..=0xcf, 0, 0, 0, 1, ..])
}

impl UdpLayer for Socket {
    fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>> {
        Some(&self.inner)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.has_before.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(self.begin(buffers, metas)));
        }
        if self.over.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let count = ready!(self.inner.poll_recv(cx, buffers, metas))?;
        if self.keeps.load(Ordering::Relaxed) {
            for (buffer, meta) in buffers.iter().zip(&*metas).take(count) {
                self.copy(buffer.get(..meta.len).unwrap_or_default(), meta);
            }
        }
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use quinn::UdpPoller;
    use quinn::udp::Transmit;

    use super::*;

    /// A socket that returns these datagrams.
    #[derive(Debug, Default)]
    struct Datagrams(Mutex<VecDeque<Vec<u8>>>);

    impl AsyncUdpSocket for Datagrams {
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
            metas: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let Some(data) = self.0.lock().pop_front() else { return Poll::Pending };
            buffers[0][..data.len()].copy_from_slice(&data);
            metas[0] = RecvMeta { len: data.len(), stride: data.len(), addr: peer(), ..RecvMeta::default() };
            Poll::Ready(Ok(1))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 443).into())
        }
    }

    fn peer() -> SocketAddr {
        ([192, 0, 2, 1], 5000).into()
    }

    /// Bytes that look like a first packet and contain a number.
    fn first(number: usize) -> Vec<u8> {
        let mut data = vec![0xc3, 0, 0, 0, 1];
        data.extend(number.to_be_bytes());
        data.resize(1200, 0);
        data
    }

    /// All datagrams that a socket returns.
    fn drained(socket: &Socket) -> Vec<Vec<u8>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            let (mut one, mut two) = ([0; 1472], [0; 1472]);
            let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
            let mut metas = [RecvMeta::default(); 2];
            let Poll::Ready(count) = socket.poll_recv(&mut cx, &mut buffers, &mut metas) else { return all };
            for (buffer, meta) in buffers.iter().zip(&metas).take(count.unwrap()) {
                assert_eq!(meta.addr, peer());
                all.push(buffer[..meta.len].to_vec());
            }
        }
    }

    fn socket(datagrams: impl IntoIterator<Item = Vec<u8>>, before: &[FirstPacket]) -> Socket {
        Socket::new(Arc::new(Datagrams(Mutex::new(datagrams.into_iter().collect()))), before).unwrap()
    }

    #[test]
    fn the_next_process_begins_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let others = [vec![0x40; 1200], vec![0xe0; 1200], first(0)[..1199].to_vec(), Vec::new()];
        let old = socket([first(1)], &[]);
        assert_eq!(drained(&old).len(), 1);
        assert!(old.parked().is_empty(), "it was for this process");
        let packets =
            Arc::new(Datagrams(Mutex::new(others.into_iter().chain([first(2), first(3), first(4)]).collect())));
        let old = Socket::new(packets.clone(), &[]).unwrap();
        old.park();
        assert_eq!(drained(&old).len(), 7, "what is kept is given as well");
        let kept = old.parked();
        packets.0.lock().push_back(first(5));
        assert!(drained(&old).is_empty(), "it stays for the next process");
        leave(folder.path(), kept).unwrap();

        let before = take(folder.path());
        let next = socket([first(5)], &before);
        assert_eq!(drained(&next), [first(2), first(3), first(4), first(5)]);
        assert!(take(folder.path()).is_empty(), "they are given once");
        let elsewhere = FirstPacket { socket: ([127, 0, 0, 1], 8443).into(), ..before[0].clone() };
        assert_eq!(drained(&socket([first(5)], &[elsewhere])), [first(5)]);
    }

    #[test]
    fn a_flood_leaves_the_latest() {
        let old = socket((0..MOST + 10).map(first), &[]);
        old.park();
        drained(&old);
        let kept = old.parked();
        assert_eq!((kept.len(), &kept[0].data), (MOST, &STANDARD.encode(first(10))));
    }

    #[test]
    fn what_is_old_or_damaged_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let old = socket([first(1)], &[]);
        old.park();
        drained(&old);
        let packets = old.parked();
        let path = folder.path().join(FILE);
        for at in [unix_now() - 11, unix_now() + 60] {
            std::fs::write(&path, serde_json::to_vec(&Kept { at, packets: packets.clone() }).unwrap()).unwrap();
            assert!(take(folder.path()).is_empty() && !path.exists());
        }
        for damage in ["", "[]", "{\"at\":1}"] {
            std::fs::write(&path, damage).unwrap();
            assert!(take(folder.path()).is_empty() && !path.exists(), "{damage}");
        }
        let broken = FirstPacket { data: "?".to_owned(), ..packets[0].clone() };
        assert!(drained(&socket([], &[broken])).is_empty());
    }
}
