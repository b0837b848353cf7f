//! The places of a tunnel: which exchanges it has, and whose they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use cok_transport::Account;
use parking_lot::Mutex;
use slab::Slab;

use super::exchange::{End, Exchange};
use super::traffic::Traffic;

/// The exchanges of one tunnel.
#[derive(Debug)]
pub(crate) struct Places {
    pub(super) account: Arc<Account>,
    /// What has passed through the tunnel.
    pub(crate) traffic: Traffic,
    taken: Mutex<Taken>,
    /// It is among the busy ones.
    listed: AtomicBool,
}

#[derive(Debug, Default)]
struct Taken {
    exchanges: Slab<Weak<Exchange>>,
    /// How many each network has. Few networks are in a tunnel at once, so that a search is faster than a hash.
    by_network: BTreeMap<u128, usize>,
}

impl Places {
    pub(super) fn new(account: Arc<Account>, traffic: Traffic) -> Arc<Self> {
        Arc::new(Self { account, traffic, taken: Mutex::default(), listed: AtomicBool::new(false) })
    }

    /// Gives an exchange a place, unless its network has `share` of them.
    pub(super) fn enter(&self, exchange: &Arc<Exchange>, share: usize) -> bool {
        let mut taken = self.taken.lock();
        let count = taken.by_network.entry(exchange.network()).or_default();
        if *count >= share {
            return false;
        }
        *count += 1;
        let place = taken.exchanges.insert(Arc::downgrade(exchange));
        exchange.set_place(place);
        true
    }

    /// The exchange of a place has gone. Its network does not count it any more, unless that was so before.
    pub(super) fn leave(&self, place: usize, counted: Option<u128>) {
        let mut taken = self.taken.lock();
        taken.exchanges.try_remove(place);
        if let Some(network) = counted {
            taken.uncount(network);
        }
    }

    /// The exchange was taken from its visitor, and does not count any more.
    pub(super) fn uncount(&self, network: u128) {
        self.taken.lock().uncount(network);
    }

    /// Whether it becomes busy now.
    pub(super) fn begins(&self) -> bool {
        !self.listed.load(Ordering::Relaxed) && !self.listed.swap(true, Ordering::Relaxed)
    }

    /// Whether it is not busy any more.
    pub(super) fn ends(&self) -> bool {
        let taken = self.taken.lock();
        let ends = taken.exchanges.is_empty();
        if ends {
            self.listed.store(false, Ordering::Relaxed);
        }
        ends
    }

    /// How many exchanges are open.
    pub(crate) fn open(&self) -> usize {
        self.taken.lock().exchanges.len()
    }

    /// All exchanges. They must not be dropped under the lock, which their end takes.
    pub(super) fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.taken.lock().exchanges.iter().filter_map(|(_, exchange)| exchange.upgrade()).collect()
    }

    /// Ends the exchange that stands still longest, of the network that has most; a long-lived one only if the network has
    /// more than its share. `false` if there is none.
    pub(super) fn make_room(&self, share: usize) -> bool {
        let mut counts: Vec<(u128, usize)> =
            self.taken.lock().by_network.iter().map(|(network, count)| (*network, *count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let all = self.exchanges();
        for (network, count) in counts {
            let of_network = all.iter().filter(|exchange| exchange.network() == network && exchange.is_attached());
            let stands = of_network.filter(|exchange| count > share || !exchange.is_long_lived());
            if let Some(exchange) = stands.min_by_key(|exchange| exchange.still_since()) {
                exchange.end(End::Evicted);
                return true;
            }
        }
        false
    }
}

impl Taken {
    fn uncount(&mut self, network: u128) {
        if let Entry::Occupied(mut count) = self.by_network.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
