//! What passes from the exchanges to the recorder. Exchanges never wait here: what has no room is not captured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;

use super::kind::Kind;
use super::live::{Live, Side};

/// The most bytes that wait for the recorder. A fast tunnel carries them in some tenths of a second, for which a busy
/// machine may keep the recorder waiting.
const ROOM: usize = 16 * 1024 * 1024;
/// Room that only heads and ends take, so that a flood of bodies leaves the list of requests true.
const RESERVE: usize = 4 * 1024 * 1024;
/// What an item weighs besides its bytes: its place in the queue, and the buffer around a small piece.
const ITEM: usize = 256;

/// One thing that happened in an exchange.
#[derive(Debug)]
pub(super) struct Item {
    /// The exchange.
    pub(super) live: Arc<Live>,
    /// What happened.
    pub(super) what: What,
}

/// What happens in an exchange.
#[derive(Debug)]
pub(super) enum What {
    /// It began. The request names this kind.
    Began(Option<Kind>),
    /// The head of an interim response, in the form of the tunnel.
    Interim {
        /// The head.
        head: Bytes,
        /// The time since the beginning.
        after: Duration,
    },
    /// The head of the response, in the form of the tunnel.
    Head {
        /// The head.
        head: Bytes,
        /// The kind that follows from it.
        kind: Option<Kind>,
        /// The time since the beginning.
        after: Duration,
    },
    /// Bytes of a body.
    Data(Side, Bytes),
    /// Trailers in the form of the tunnel.
    Trailers(Side, Bytes),
    /// A body is longer than what is captured of one.
    Truncated(Side),
    /// A half is gone.
    Over(Side),
}

impl What {
    fn weight(&self) -> usize {
        ITEM + match self {
            Self::Interim { head: bytes, .. }
            | Self::Head { head: bytes, .. }
            | Self::Data(_, bytes)
            | Self::Trailers(_, bytes) => bytes.len(),
            Self::Began(_) | Self::Truncated(_) | Self::Over(_) => 0,
        }
    }

    fn limit(&self) -> usize {
        if matches!(self, Self::Data(..)) { ROOM } else { ROOM + RESERVE }
    }
}

/// The queue's end for exchanges.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Item>,
    load: Arc<Load>,
}

/// How full the queue is, and what it had no room for.
#[derive(Debug, Default)]
pub(super) struct Load {
    weight: AtomicUsize,
    lost: AtomicU64,
    number: AtomicU64,
}

impl Load {
    /// The number of things that were not captured, since there was no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The bytes that wait.
    pub(super) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// A number for an exchange. The first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that the recorder has taken an item.
    pub(super) fn taken(&self, item: &Item) {
        self.weight.fetch_sub(item.what.weight(), Ordering::Relaxed);
    }
}

/// A queue, and its end for the recorder.
pub(super) fn queue() -> (Arc<Queue>, Receiver<Item>) {
    let (sender, receiver) = channel();
    (Arc::new(Queue { sender, load: Arc::default() }), receiver)
}

impl Queue {
    /// The queue's load.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Adds what happened in an exchange. Without room, the exchange loses it, and its viewers see that.
    pub(super) fn push(&self, live: &Arc<Live>, what: What) {
        let (weight, limit) = (what.weight(), what.limit());
        if self.load.weight.fetch_add(weight, Ordering::Relaxed) + weight > limit {
            self.load.weight.fetch_sub(weight, Ordering::Relaxed);
            self.load.lost.fetch_add(1, Ordering::Relaxed);
            live.is_lost.store(true, Ordering::Relaxed);
            return;
        }
        // Without a recorder, nothing is captured any more.
        let _ended = self.sender.send(Item { live: live.clone(), what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TunnelHandle;

    fn live() -> Arc<Live> {
        Arc::new(Live::new(1, TunnelHandle(0), Bytes::new()))
    }

    #[test]
    fn a_full_queue_loses_bodies_and_keeps_ends() {
        let (queue, receiver) = queue();
        let (fits, loses) = (live(), live());
        let piece = Bytes::from(vec![0; ROOM / 2]);
        queue.push(&fits, What::Data(Side::Response, piece.clone()));
        queue.push(&loses, What::Data(Side::Response, piece.clone()));
        queue.push(&loses, What::Over(Side::Response));
        assert_eq!(queue.load().lost(), 1);
        assert!(loses.is_lost.load(Ordering::Relaxed) && !fits.is_lost.load(Ordering::Relaxed));
        // What was taken makes room again.
        for item in receiver.try_iter() {
            queue.load().taken(&item);
        }
        assert_eq!(queue.load().weight(), 0);
        queue.push(&fits, What::Data(Side::Response, piece));
        assert_eq!((queue.load().lost(), receiver.try_iter().count()), (1, 1));
    }

    #[test]
    fn an_exchange_goes_on_without_a_recorder() {
        let (queue, receiver) = queue();
        drop(receiver);
        queue.push(&live(), What::Began(None));
    }
}
