//! What passes from the exchanges to the recorder. Exchanges never wait here: what has no room, or is beyond the budgets, is
//! not captured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cok_proto::budget::Budget;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::kind::Kind;
use super::live::{Live, Side};

/// The most bytes that wait for the recorder. A fast tunnel carries them in some tenths of a second, for which a busy
/// machine may keep the recorder waiting.
const ROOM: usize = 16 * 1024 * 1024;
/// Room that only heads and ends take, so that a flood of bodies leaves the list of requests true.
const RESERVE: usize = 4 * 1024 * 1024;
/// What an item weighs besides its bytes: its place in the queue, and the buffer around a small piece.
const ITEM: usize = 256;
/// The most requests that are captured in a second, and the most at once. No viewer can follow more. Each costs the client
/// about a third of what it takes to carry it.
const REQUESTS: (u32, u32) = (250, 1000);
/// The most bytes of bodies that are captured in a second, and the most at once.
const BYTES: (u32, u32) = (16 * 1024 * 1024, 20 * 1024 * 1024);
/// The beginning of a body is captured whatever other exchanges carry.
const BEGINNING: u64 = 4096;
/// What a piece counts for besides its bytes, since a stream of small pieces costs more than its bytes.
const PIECE: usize = 512;
/// How often a viewer looks whether the recorder has caught up, and after which time. It takes 50 ms as a rule.
const LOOKS: usize = 20;
const LOOK: Duration = Duration::from_millis(5);

/// What the recorder has not taken of an exchange.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    items: Vec<What>,
    /// The exchange is in the queue.
    is_announced: bool,
}

impl News {
    /// Adds an item. Returns whether the recorder must be told.
    fn add(&self, what: What) -> bool {
        let mut waiting = self.0.lock();
        waiting.items.push(what);
        !std::mem::replace(&mut waiting.is_announced, true)
    }

    /// Takes what has come.
    fn take(&self) -> Vec<What> {
        std::mem::take(&mut *self.0.lock()).items
    }
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
    sender: Sender<Arc<Live>>,
    load: Arc<Load>,
    requests: Mutex<Budget>,
    bytes: Mutex<Budget>,
}

/// How full the queue is, and what it had no room for.
#[derive(Debug, Default)]
pub(super) struct Load {
    weight: AtomicUsize,
    lost: AtomicU64,
    skipped: AtomicU64,
    missed_ends: AtomicU64,
    number: AtomicU64,
}

impl Load {
    /// The number of parts of requests that were not captured, since there was too much.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The number of requests that were not captured at all, since there were too many.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The number of ends that had no room.
    pub(super) fn missed_ends(&self) -> u64 {
        self.missed_ends.load(Ordering::Relaxed)
    }

    /// The bytes that wait.
    pub(super) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// Waits until the recorder has taken what waits now, so that a viewer sees what has just ended. Under steady load,
    /// something always waits; then it is [`LOOKS`] times [`LOOK`].
    pub(super) async fn settled(&self) {
        for _ in 0..LOOKS {
            if self.weight() == 0 {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// A number for an exchange. The first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes what has happened in an exchange, for the recorder.
    pub(super) fn take(&self, live: &Live) -> Vec<What> {
        let items = live.news.take();
        self.weight.fetch_sub(items.iter().map(What::weight).sum(), Ordering::Relaxed);
        items
    }
}

/// A queue, and its end for the recorder: the exchanges in which something has happened.
pub(super) fn queue() -> (Arc<Queue>, Receiver<Arc<Live>>) {
    let (sender, receiver) = channel();
    let budget = |(per_second, most)| Mutex::new(Budget::new(most, per_second));
    (Arc::new(Queue { sender, load: Arc::default(), requests: budget(REQUESTS), bytes: budget(BYTES) }), receiver)
}

impl Queue {
    /// The queue's load.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Whether one more request is captured. If not, it counts as skipped.
    pub(super) fn admits_request(&self) -> bool {
        let is_admitted = self.requests.lock().spend(1, Instant::now()).is_ok();
        if !is_admitted {
            self.load.skipped.fetch_add(1, Ordering::Relaxed);
        }
        is_admitted
    }

    /// Adds bytes of a body, unless there is too much. `before` counts those that were captured already.
    pub(super) fn push_data(&self, live: &Arc<Live>, side: Side, data: Bytes, before: u64) {
        let cost = u32::try_from(PIECE + data.len()).unwrap_or(u32::MAX);
        let is_beginning = before + data.len() as u64 <= BEGINNING;
        if is_beginning || self.bytes.lock().spend(cost, Instant::now()).is_ok() {
            self.push(live, What::Data(side, data));
        } else {
            self.lose(live);
        }
    }

    /// Adds what happened in an exchange, unless there is no room.
    pub(super) fn push(&self, live: &Arc<Live>, what: What) {
        let (weight, limit) = (what.weight(), what.limit());
        if self.load.weight.fetch_add(weight, Ordering::Relaxed) + weight > limit {
            self.load.weight.fetch_sub(weight, Ordering::Relaxed);
            if matches!(what, What::Over(_)) {
                self.load.missed_ends.fetch_add(1, Ordering::Relaxed);
            }
            return self.lose(live);
        }
        if live.news.add(what) {
            // Without a recorder, nothing is captured any more.
            let _ended = self.sender.send(live.clone());
        }
    }

    /// Notes that an exchange loses a part. Its viewers see that.
    fn lose(&self, live: &Live) {
        self.load.lost.fetch_add(1, Ordering::Relaxed);
        live.is_lost.store(true, Ordering::Relaxed);
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
        let taken: Vec<usize> = receiver.try_iter().map(|live| queue.load().take(&live).len()).collect();
        assert_eq!((taken, queue.load().weight()), (vec![1, 1], 0));
        queue.push(&fits, What::Data(Side::Response, piece));
        assert_eq!((queue.load().lost(), receiver.try_iter().count()), (1, 1));
    }

    #[test]
    fn an_exchange_is_announced_once_until_it_is_taken() {
        let (queue, receiver) = queue();
        let live = live();
        for side in [Side::Request, Side::Response] {
            queue.push(&live, What::Over(side));
        }
        assert_eq!(receiver.try_iter().count(), 1);
        assert_eq!(queue.load().take(&live).len(), 2);
        queue.push(&live, What::Over(Side::Response));
        assert_eq!(receiver.try_iter().count(), 1);
    }

    #[test]
    fn too_many_requests_are_skipped_and_counted() {
        let (queue, _receiver) = queue();
        let admitted = (0..2 * REQUESTS.1).filter(|_| queue.admits_request()).count() as u64;
        let most = u64::from(REQUESTS.1);
        assert!((most..2 * most).contains(&admitted), "{admitted}");
        assert_eq!(queue.load().skipped(), 2 * most - admitted);
    }

    #[test]
    fn beyond_the_budget_of_bytes_only_beginnings_are_captured() {
        let (queue, receiver) = queue();
        let (long, short) = (live(), live());
        let piece = Bytes::from(vec![0; 1024 * 1024]);
        let mut before = 0;
        while !long.is_lost.load(Ordering::Relaxed) {
            queue.push_data(&long, Side::Response, piece.clone(), before);
            before += piece.len() as u64;
            for live in receiver.try_iter() {
                queue.load().take(&live);
            }
        }
        assert!(before >= u64::from(BYTES.1) && queue.load().lost() == 1);
        queue.push_data(&short, Side::Response, piece.slice(..BEGINNING as usize), 0);
        assert!(!short.is_lost.load(Ordering::Relaxed) && receiver.try_iter().count() == 1);
    }

    #[test]
    fn an_exchange_goes_on_without_a_recorder() {
        let (queue, receiver) = queue();
        drop(receiver);
        queue.push(&live(), What::Began(None));
    }
}
