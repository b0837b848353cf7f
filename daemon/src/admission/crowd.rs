//! Who is connected, and since when each has been idle. When there is no room, those that have been idle longest go.
//!
//! A connection notes its requests in its own member. The crowd is looked through only when there is no room.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The number of shards. Connections come and go in different ones.
const SHARDS: u64 = 16;
/// Who has been idle for less may be about to ask.
const IDLE_FOR: Duration = Duration::from_millis(500);
/// The pause between two looks through the crowd.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All public connections.
#[derive(Debug)]
pub(super) struct Crowd {
    began: Instant,
    next: AtomicU64,
    shards: Vec<Mutex<HashMap<u64, Arc<Member>>>>,
    looked: Mutex<Option<Instant>>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Member {
    began: Instant,
    /// How much is under way on it.
    busy: AtomicUsize,
    /// When it became idle, in milliseconds of the crowd.
    idle_since: AtomicU64,
    shed: AtomicBool,
    /// Whether it holds a descriptor, as over TCP.
    has_descriptor: bool,
    waker: Mutex<Option<Waker>>,
}

/// A connection's place in the crowd. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    pub(super) member: Arc<Member>,
}

/// Keeps a connection busy.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Member>);

impl Crowd {
    pub(super) fn new() -> Arc<Self> {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS as usize).collect();
        Arc::new(Self { began: Instant::now(), next: AtomicU64::new(0), shards, looked: Mutex::default() })
    }

    /// Adds a connection, which is idle until its first request.
    pub(super) fn join(self: &Arc<Self>, has_descriptor: bool) -> Place {
        let member = Arc::new(Member {
            began: self.began,
            busy: AtomicUsize::new(0),
            idle_since: AtomicU64::new(millis(self.began.elapsed())),
            shed: AtomicBool::new(false),
            has_descriptor,
            waker: Mutex::default(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.shard(number) {
            shard.lock().insert(number, member.clone());
        }
        Place { crowd: self.clone(), number, member }
    }

    /// Has at most `most` connections closed that have been idle longest, either of all or of those with descriptors.
    /// Returns how many.
    pub(super) fn shed(&self, most: usize, descriptors: bool) -> usize {
        let Some(mut looked) = self.looked.try_lock() else { return 0 };
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return 0;
        }
        *looked = Some(Instant::now());
        let limit = millis(self.began.elapsed().saturating_sub(IDLE_FOR));
        let mut idle: Vec<(u64, Arc<Member>)> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let of_these = shard.values().filter(|member| member.has_descriptor || !descriptors);
            let since = of_these.filter_map(|member| Some((member.idle_since()?, member)));
            idle.extend(since.filter(|(since, _)| *since <= limit).map(|(since, member)| (since, member.clone())));
        }
        if idle.len() > most {
            idle.select_nth_unstable_by_key(most, |(since, _)| *since);
            idle.truncate(most);
        }
        for (_, member) in &idle {
            member.shed();
        }
        idle.len()
    }

    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Member>>>> {
        self.shards.get((number % SHARDS) as usize)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shard) = self.crowd.shard(self.number) {
            shard.lock().remove(&self.number);
        }
    }
}

impl Member {
    /// Notes that something has begun on it.
    pub(crate) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that something has ended on it.
    pub(crate) fn end(&self) {
        self.idle_since.store(millis(self.began.elapsed()), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps it busy until the guard is dropped.
    pub(crate) fn keep(self: &Arc<Self>) -> Busy {
        self.begin();
        Busy(self.clone())
    }

    fn idle_since(&self) -> Option<u64> {
        let idle = self.busy.load(Ordering::Relaxed) == 0 && !self.shed.load(Ordering::Relaxed);
        idle.then(|| self.idle_since.load(Ordering::Relaxed))
    }

    fn shed(&self) {
        self.shed.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Ready once the connection has to make room. It need not if it has become busy meanwhile.
    pub(crate) fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shed.load(Ordering::SeqCst) {
            let mut waker = self.waker.lock();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            drop(waker);
            if !self.shed.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        if self.busy.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(());
        }
        self.shed.store(false, Ordering::SeqCst);
        // To be woken by the next one.
        self.poll_shed(cx)
    }

    /// Waits until the connection has to make room.
    pub(crate) async fn is_shed(&self) {
        poll_fn(|cx| self.poll_shed(cx)).await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shed(place: &Place) -> bool {
        place.member.poll_shed(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_go_first() {
        let crowd = Crowd::new();
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(crowd.join(true));
            tokio::time::advance(IDLE_FOR).await;
        }
        let busy = places[0].member.keep();
        places[1].member.begin();
        places[1].member.end();
        assert_eq!(crowd.shed(1, false), 1);
        assert_eq!(places.iter().map(is_shed).collect::<Vec<_>>(), [false, false, true, false]);
        // The second has just become idle.
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(crowd.shed(9, false), 1);
        assert_eq!(crowd.shed(9, false), 0);
        drop(busy);
        tokio::time::advance(IDLE_FOR).await;
        assert_eq!(crowd.shed(9, false), 2);
        assert!(places.iter().all(is_shed));
        drop(places);
        assert!(crowd.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_some_hold_descriptors() {
        let crowd = Crowd::new();
        let places = [false, true, false].map(|has_descriptor| crowd.join(has_descriptor));
        tokio::time::advance(IDLE_FOR).await;
        assert_eq!(crowd.shed(9, true), 1);
        assert_eq!(places.each_ref().map(is_shed), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_meanwhile_stays() {
        let crowd = Crowd::new();
        let place = crowd.join(true);
        tokio::time::advance(IDLE_FOR).await;
        assert_eq!(crowd.shed(1, false), 1);
        place.member.begin();
        assert!(!is_shed(&place));
        place.member.end();
        assert!(!is_shed(&place));
    }
}
