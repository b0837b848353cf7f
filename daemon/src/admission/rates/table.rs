//! One bounded table for all buckets, of any kind and owner.
//!
//! A bucket is one number: governor's theoretical arrival time. It is full once that time has passed, and a full bucket
//! need not be in the table at all. So a shard without room drops the full ones first.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The number of shards. Each has a lock of its own.
const SHARDS: usize = 64;
/// The most buckets in one shard, of some 50 bytes each: 131,072 and 7 MB in all.
const SHARD_ROOM: usize = 2048;
/// How often a shard without room looks through all its buckets. In between it drops the fullest of a few.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How many buckets compete for being dropped between two sweeps.
const SAMPLE: usize = 8;

/// The name of a bucket: what it counts, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) kind: Kind,
    pub(super) owner: u128,
}

/// What a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    VisitorRequests,
    TunnelRequests,
    KeyRequests,
    VisitorOfTunnel,
    TunnelBytes,
    KeyBytes,
    Connections,
    Handshakes,
    UnprovedHandshakes,
    FailedKeys,
}

/// A bucket with the hash of its name, which is computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    bucket: Bucket,
    hash: u64,
}

impl Hash for Placed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes a hash that is known already.
#[derive(Clone, Copy, Debug, Default)]
struct Known(u64);

impl Hasher for Known {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All buckets.
#[derive(Debug)]
pub(super) struct Table {
    began: Instant,
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Placed, Nanos, BuildHasherDefault<Known>>,
    swept: Nanos,
}

impl Table {
    pub(super) fn new() -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { began: Instant::now(), shards, hasher: RandomState::new() }
    }

    /// The owner's number, of anything that can be hashed. No client can find two owners with one number.
    pub(super) fn owner(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// Takes `count` from a bucket. If it has less, takes nothing and says how long it needs to have as much.
    pub(super) fn take(&self, bucket: Bucket, quota: Quota, count: NonZeroU32) -> Result<(), Duration> {
        let now = self.now();
        let reading = Reading { now, begun: Cell::new(false) };
        let limiter = RateLimiter::<Bucket, _, _, NoOpMiddleware<Nanos>>::new(quota, Now { table: self, now }, reading);
        match limiter.check_key_n(&bucket, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(NotUntil::wait_time_from(&until, now)),
            // It never has as much, so it has to be full.
            Err(_) => Err(quota.burst_size_replenished_in()),
        }
    }

    /// Takes `count` from a bucket even if it has less, and says how long its owner has to wait. If that is more than
    /// `longest`, takes nothing.
    pub(super) fn charge(
        &self,
        bucket: Bucket,
        quota: Quota,
        count: u32,
        longest: Duration,
    ) -> Result<Duration, Duration> {
        let now = self.now();
        let each = Nanos::from(quota.replenish_interval().max(Duration::from_nanos(1)));
        let tolerance = each * u64::from(quota.burst_size().get());
        Now { table: self, now }.measure_and_replace(&bucket, |arrival| {
            let next = arrival.unwrap_or(now).max(now) + each * u64::from(count);
            let wait = Duration::from(next.saturating_sub(tolerance).saturating_sub(now));
            if wait > longest { Err(wait) } else { Ok((wait, next)) }
        })
    }

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2))
    }

    /// The shard of a bucket, and its name there. The map takes the lowest and the highest bits of the hash.
    fn place(&self, bucket: Bucket) -> (&Mutex<Shard>, Placed) {
        let hash = self.hasher.hash_one(bucket);
        (&self.shards[(hash >> 32) as usize % SHARDS], Placed { bucket, hash })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }
}

/// The table at one moment.
struct Now<'a> {
    table: &'a Table,
    now: Nanos,
}

impl StateStore for Now<'_> {
    type Key = Bucket;

    fn measure_and_replace<T, F, E>(&self, bucket: &Bucket, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (shard, placed) = self.table.place(*bucket);
        let mut shard = shard.lock();
        if let Some(arrival) = shard.buckets.get_mut(&placed) {
            let (outcome, next) = decide(Some(*arrival))?;
            *arrival = next;
            return Ok(outcome);
        }
        let (outcome, next) = decide(None)?;
        if shard.buckets.len() >= SHARD_ROOM {
            shard.make_room(self.now);
        }
        shard.buckets.insert(placed, next);
        Ok(outcome)
    }
}

impl Shard {
    /// Drops all buckets that are full, or the one that is full soonest among a few.
    fn make_room(&mut self, now: Nanos) {
        if Duration::from(now.saturating_sub(self.swept)) >= SWEEP_EVERY {
            self.swept = now;
            self.buckets.retain(|_, arrival| *arrival > now);
        }
        if self.buckets.len() >= SHARD_ROOM
            && let Some(fullest) = self.buckets.iter().take(SAMPLE).min_by_key(|(_, arrival)| **arrival)
        {
            let fullest = *fullest.0;
            self.buckets.remove(&fullest);
        }
    }
}

/// The time of one decision. governor counts from a clock's first reading, which is the beginning of the table here.
#[derive(Clone, Debug)]
struct Reading {
    now: Nanos,
    begun: Cell<bool>,
}

impl Clock for Reading {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        if self.begun.replace(true) { self.now } else { Nanos::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn quota(per_second: u32, burst: u32) -> Quota {
        let number = |number| NonZeroU32::new(number).unwrap();
        Quota::per_second(number(per_second)).allow_burst(number(burst))
    }

    fn bucket(owner: u128) -> Bucket {
        Bucket { kind: Kind::VisitorRequests, owner }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills() {
        let table = Table::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        let take = |owner| table.take(bucket(owner), quota(10, 3), ONE);
        assert_eq!([take(1), take(1), take(1)], [Ok(()); 3]);
        assert_eq!(take(1), Err(Duration::from_millis(100)));
        assert_eq!(take(2), Ok(()));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(take(1), Ok(()));
        assert!(take(1).is_err());
        let most = NonZeroU32::new(4).unwrap();
        assert_eq!(table.take(bucket(3), quota(10, 3), most), Err(Duration::from_millis(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_charge_may_go_into_debt() {
        let table = Table::new();
        let charge = |count| table.charge(bucket(1), quota(1000, 500), count, Duration::from_secs(10));
        assert_eq!(charge(500), Ok(Duration::ZERO));
        assert_eq!(charge(2000), Ok(Duration::from_secs(2)));
        assert_eq!(charge(1000), Ok(Duration::from_secs(3)));
        assert_eq!(charge(8000), Err(Duration::from_secs(11)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(charge(1), Ok(Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_empty_buckets() {
        let table = Table::new();
        let empty = bucket(u128::MAX);
        assert_eq!(table.charge(empty, quota(1, 1), 1000, Duration::MAX), Ok(Duration::from_secs(999)));
        for owner in 0..4 * (SHARDS * SHARD_ROOM) as u128 {
            assert_eq!(table.take(bucket(owner), quota(10, 3), ONE), Ok(()));
        }
        assert!(table.len() <= SHARDS * SHARD_ROOM);
        assert!(table.take(empty, quota(1, 1), ONE).is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        for owner in 0..4 * (SHARDS * SHARD_ROOM) as u128 {
            let _ = table.take(bucket(u128::from(u64::MAX) + owner), quota(10, 3), ONE);
        }
        assert!(table.take(empty, quota(1, 1), ONE).is_err());
    }
}
