//! Turns to send: tunnels take turns, and within a tunnel its exchanges do.
//!
//! A tunnel with hundreds of exchanges so gets no more of the pipe than a tunnel with one.

use std::collections::VecDeque;

use slab::Slab;

use super::ExchangeKey;
use super::exchange::Exchange;
use crate::ids::ById;

/// Exchanges that wait for a turn. Each is in at most one such ring. The exchanges of a tunnel are a linked list through
/// [`Exchange::next`], so that no queue is allocated for each tunnel.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Tunnels with exchanges that wait, in the order of their turns.
    tunnels: VecDeque<u32>,
    lists: ById<List>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: ExchangeKey,
    last: ExchangeKey,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Queues an exchange behind the others of its tunnel.
    pub(super) fn push(&mut self, key: ExchangeKey, exchanges: &mut Slab<Exchange>) {
        exchanges[key.0].next = None;
        let tunnel = exchanges[key.0].tunnel;
        if let Some(list) = self.lists.get_mut(&tunnel) {
            exchanges[list.last.0].next = Some(key);
            list.last = key;
        } else {
            self.lists.insert(tunnel, List { first: key, last: key });
            self.tunnels.push_back(tunnel);
        }
    }

    /// The exchange whose turn it is.
    pub(super) fn front(&self) -> Option<ExchangeKey> {
        self.lists.get(self.tunnels.front()?).map(|list| list.first)
    }

    /// Takes the exchange out whose turn it is. Then it is another tunnel's turn.
    pub(super) fn pop(&mut self, exchanges: &mut Slab<Exchange>) -> Option<ExchangeKey> {
        let tunnel = self.tunnels.pop_front()?;
        let list = self.lists.get_mut(&tunnel)?;
        let key = list.first;
        if let Some(next) = exchanges[key.0].next.take() {
            list.first = next;
            self.tunnels.push_back(tunnel);
        } else {
            self.lists.remove(&tunnel);
        }
        Some(key)
    }
}
