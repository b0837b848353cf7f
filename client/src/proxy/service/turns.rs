//! A queue in which visitors take turns, so that one who asks for much does not hold up the others.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use cok_http::visitor::network;
use cok_proto::head::name::X_REAL_IP;
use http::HeaderMap;

/// The network of the address that the daemon saw. `None` if the daemon does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Visitor(Option<IpAddr>);

impl Visitor {
    /// The visitor of a request with these fields.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let address = headers.get(X_REAL_IP).and_then(|value| value.to_str().ok()?.parse().ok());
        Self(address.map(network))
    }
}

/// What waits, of each visitor in order. The visitors come round in turn.
#[derive(Debug)]
pub(super) struct Turns<T> {
    of_visitor: HashMap<Visitor, VecDeque<T>>,
    /// Each visitor that has something waiting, once.
    round: VecDeque<Visitor>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { of_visitor: HashMap::new(), round: VecDeque::new() }
    }
}

impl<T> Turns<T> {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.round.is_empty()
    }

    /// Puts it behind all that waits of its visitor.
    pub(super) fn push(&mut self, visitor: Visitor, item: T) {
        let queue = self.of_visitor.entry(visitor).or_default();
        if queue.is_empty() {
            self.round.push_back(visitor);
        }
        queue.push_back(item);
    }

    /// Takes the first of the visitor whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let visitor = self.round.pop_front()?;
        let queue = self.of_visitor.get_mut(&visitor)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.of_visitor.remove(&visitor);
        } else {
            self.round.push_back(visitor);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(address: &'static str) -> Visitor {
        Visitor::of(&HeaderMap::from_iter([(
            http::HeaderName::from_static("x-real-ip"),
            http::HeaderValue::from_static(address),
        )]))
    }

    #[test]
    fn visitors_take_turns() {
        let mut turns = Turns::default();
        let (greedy, modest) = (visitor("192.0.2.1"), visitor("192.0.2.2"));
        for number in 0..4 {
            turns.push(greedy, ("greedy", number));
        }
        turns.push(modest, ("modest", 0));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [("greedy", 0), ("modest", 0), ("greedy", 1), ("greedy", 2), ("greedy", 3)]);
        assert!(turns.is_empty() && turns.of_visitor.is_empty());
    }

    #[test]
    fn a_visitor_is_a_network() {
        assert_eq!(visitor("2001:db8::1"), visitor("2001:db8::2"));
        assert_ne!(visitor("2001:db8::1"), visitor("2001:db8:0:1::1"));
        assert_eq!(Visitor::of(&HeaderMap::new()), visitor("none"));
    }
}
