//! Exchanges with visitors: how many one visitor may have, how long one may stand still, and how many bytes all may hold.
//!
//! Each request to a tunnel has an [`Exchange`] among the [`Places`] of the tunnel. It watches whose turn it is to move: the
//! visitor's, while bytes wait for it or its upload is awaited, or the service's, whose pauses never count. One task looks
//! after all exchanges ([`Exchanges::watch`]). It ends those whose visitors stand still, and those that hold most when an
//! account of bytes is full. Nothing here knows a version of HTTP or a transport.

mod exchange;
mod halves;
mod leash;
mod places;
mod traffic;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use cok_http::visitor::network_bits;
use cok_transport::{Account, Holding};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::exchange::{End, Exchange, Waiting};
pub(crate) use self::leash::{Leash, Leashes};
pub(crate) use self::places::Places;
use self::traffic::Carried;
pub(crate) use self::traffic::Traffic;

/// The parts of the ceiling that a tunnel, a key and a visitor's address may hold, as numerator and denominator. One visitor must not fill a tunnel, and one tunnel must not fill the process.
const OF_TUNNEL: (usize, usize) = (1, 2);
const OF_KEY: (usize, usize) = (3, 4);
const OF_VISITOR: (usize, usize) = (1, 4);

/// Locks for the table of visitors. More of them would only help with more cores than daemons have.
const SHARDS: usize = 64;

/// Settings of exchanges. A reload changes all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// How long a visitor may owe bytes of its upload, or leave bytes of a response that wait for it. Over HTTP/1.1, how long
    /// the machine of a visitor that may pause may say nothing. A quarter of it while
    /// the tunnel's or the process's account of bytes is more than half full. 1 s to 1 h, default 60 s. A shorter time frees
    /// memory and places sooner, and breaks off visitors on bad lines.
    pub(crate) stall_timeout: Duration,
    /// How long a request's head may take from its first byte on. 1 s to 1 h, default 15 s.
    pub(crate) head_timeout: Duration,
    /// The part of a tunnel's exchanges (`max_exchanges`) that one visitor's address may have, in percent. An IPv6 /64 is one
    /// address. 1 to 100, default 50. With 100, one address can take a whole tunnel.
    pub(crate) visitor_share: u32,
    /// The most bytes of bodies that exchanges hold in the process. A tunnel may hold half of it, a key three quarters, a
    /// visitor's address a quarter. 8 MiB to 1 TiB, default 256 MiB.
    pub(crate) max_buffered: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(15),
            visitor_share: 50,
            max_buffered: 256 * 1024 * 1024,
        }
    }
}

/// Why a request gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its address has its share of the tunnel.
    Share,
    /// An account of bytes is full.
    Bytes,
}

/// All exchanges, and the accounts of what they hold.
pub(crate) struct Exchanges {
    config: ArcSwap<Config>,
    process: Arc<Account>,
    visitors: Vec<Mutex<HashMap<u128, Weak<Account>>>>,
    keys: Mutex<HashMap<Arc<str>, Weak<KeyUse>>>,
    /// Places that have exchanges, or had some lately.
    busy: Mutex<Vec<Arc<Places>>>,
    /// An account is full.
    full: Arc<Notify>,
    counts: Arc<Counts>,
}

/// How many exchanges there are, and how many were ended before their time.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    open: AtomicUsize,
    stalled: AtomicU64,
    evicted: AtomicU64,
    carried: Carried,
}

/// The counts of all exchanges at a moment, and what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Exchanges that are open.
    pub(crate) open: usize,
    /// Those that were ended because their visitors stood still.
    pub(crate) stalled: u64,
    /// Those that were ended because others needed their place or their memory.
    pub(crate) evicted: u64,
    /// Bytes of bodies that came from visitors, and that went to them.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Bytes of bodies that they hold.
    pub(crate) held: usize,
    /// The most that they may hold.
    pub(crate) most_held: usize,
}

/// What the tunnels of one key use together.
#[derive(Debug)]
pub(crate) struct KeyUse {
    account: Arc<Account>,
    exchanges: AtomicUsize,
}

impl KeyUse {
    /// Counts one more exchange. `false` if there are `most` already.
    fn take(&self, most: usize) -> bool {
        let more = |count: usize| (count < most).then_some(count + 1);
        self.exchanges.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self) {
        self.exchanges.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchanges {
    /// No exchanges yet.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let full = Arc::<Notify>::default();
        let process = account(config.max_buffered, &full);
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            process,
            visitors: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            keys: Mutex::default(),
            busy: Mutex::default(),
            full,
            counts: Arc::default(),
        })
    }

    /// The counts at this moment. Takes no lock.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            open: self.counts.open.load(Ordering::Relaxed),
            stalled: self.counts.stalled.load(Ordering::Relaxed),
            evicted: self.counts.evicted.load(Ordering::Relaxed),
            received: self.counts.carried.received(),
            sent: self.counts.carried.sent(),
            held: self.process.held(),
            most_held: self.process.ceiling(),
        }
    }

    /// Takes new settings. Accounts of visitors, tunnels and keys follow as they are used afresh.
    pub(crate) fn reload(&self, config: Config) {
        self.process.set_ceiling(config.max_buffered);
        for places in self.busy() {
            places.account.set_ceiling(part(config.max_buffered, OF_TUNNEL));
        }
        self.config.store(Arc::new(config));
    }

    /// The current settings. Not to be held across an await.
    pub(crate) fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// The places of a new tunnel.
    pub(crate) fn places(&self) -> Arc<Places> {
        Places::new(self.account(OF_TUNNEL), Traffic::new(self.counts.clone(), Instant::now()))
    }

    /// What the tunnels of a key use.
    pub(crate) fn key(&self, id: &Arc<str>) -> Arc<KeyUse> {
        let mut keys = self.keys.lock();
        if let Some(used) = keys.get(id).and_then(Weak::upgrade) {
            return used;
        }
        keys.retain(|_, used| used.strong_count() > 0);
        let used = Arc::new(KeyUse { account: self.account(OF_KEY), exchanges: AtomicUsize::new(0) });
        keys.insert(id.clone(), Arc::downgrade(&used));
        used
    }

    /// A place for a request that has just come. `most` is how many exchanges the tunnel may have; without a share, the
    /// address may take all of them.
    pub(crate) fn enter(
        &self,
        places: &Arc<Places>,
        address: IpAddr,
        (most, has_share): (u32, bool),
        leash: Leash,
        upload_room: usize,
    ) -> Result<Arc<Exchange>, Full> {
        let percent = if has_share { u64::from(self.config().visitor_share) } else { 100 };
        let share = (u64::from(most) * percent).div_ceil(100).max(1);
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        let network = network_bits(address);
        let visitor = self.visitor(network);
        if [&visitor, &places.account, &self.process].into_iter().any(|account| account.is_full()) {
            self.full.notify_one();
            return Err(Full::Bytes);
        }
        let holding = Holding::new(vec![visitor, places.account.clone(), self.process.clone()]);
        let exchange = Exchange::new(places.clone(), network, share, holding, leash, upload_room);
        if !places.enter(&exchange, share) {
            return Err(Full::Share);
        }
        places.traffic.count_request(Instant::now());
        if places.begins() {
            self.busy.lock().push(places.clone());
        }
        Ok(exchange)
    }

    /// The account of a visitor's network.
    fn visitor(&self, network: u128) -> Arc<Account> {
        let Some(shard) = self.visitors.get(shard(network)) else { return self.account(OF_VISITOR) };
        let mut shard = shard.lock();
        if let Some(account) = shard.get(&network).and_then(Weak::upgrade) {
            return account;
        }
        let account = self.account(OF_VISITOR);
        shard.insert(network, Arc::downgrade(&account));
        account
    }

    fn account(&self, of: (usize, usize)) -> Arc<Account> {
        account(part(self.config().max_buffered, of), &self.full)
    }

    fn busy(&self) -> Vec<Arc<Places>> {
        self.busy.lock().clone()
    }

    /// All exchanges.
    fn all(&self) -> Vec<Arc<Exchange>> {
        self.busy().iter().flat_map(|places| places.exchanges()).collect()
    }
}

impl std::fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanges").field("process", &self.process).finish_non_exhaustive()
    }
}

/// The shard of a network. Neighbours differ in the last bits of an IPv4 address or of a /64.
fn shard(network: u128) -> usize {
    (network ^ (network >> 64)) as usize % SHARDS
}

fn part(whole: usize, (numerator, denominator): (usize, usize)) -> usize {
    whole / denominator * numerator
}

fn account(ceiling: usize, full: &Arc<Notify>) -> Arc<Account> {
    let full = full.clone();
    Account::new(ceiling, Arc::new(move || full.notify_one()))
}

#[cfg(test)]
mod tests;
