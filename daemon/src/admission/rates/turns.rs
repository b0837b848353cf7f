//! Turns: few handshakes are computed at once, and addresses take turns.
//!
//! A handshake costs the daemon much more than its peer. Without turns, the handshakes of one busy address would delay
//! those of all others, and the traffic of established connections.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Hands out turns.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Those who wait, by address.
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<Turn>>>,
    /// The addresses that have anyone waiting, in the order of their turns.
    order: VecDeque<IpAddr>,
}

/// A turn. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    state: Option<Arc<Mutex<State>>>,
}

impl Turns {
    /// Lets `most` have their turn at once.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: most.max(1), waiting: HashMap::new(), order: VecDeque::new() })))
    }

    /// Waits for a turn. Those of one address wait in one line, and the lines take turns.
    pub(super) async fn turn(&self, address: IpAddr) -> Turn {
        let receiver = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Turn { state: Some(self.0.clone()) };
            }
            let (sender, receiver) = oneshot::channel();
            let State { waiting, order, .. } = &mut *state;
            let line = waiting.entry(address).or_default();
            if line.is_empty() {
                order.push_back(address);
            }
            line.push_back(sender);
            receiver
        };
        // The sender is dropped only with the turns, and then none needs to wait.
        receiver.await.unwrap_or(Turn { state: None })
    }
}

impl State {
    /// Takes the next one who waits out of line.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(address) = self.order.pop_front() {
            let Some(line) = self.waiting.get_mut(&address) else { continue };
            // Some have left meanwhile.
            let next = loop {
                match line.pop_front() {
                    Some(sender) if sender.is_closed() => {}
                    next => break next,
                }
            };
            if line.is_empty() {
                self.waiting.remove(&address);
            } else {
                self.order.push_back(address);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.state.take() else { return };
        loop {
            let next = {
                let mut state = shared.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn { state: Some(shared.clone()) }) {
                Ok(()) => return,
                // Left at this moment: the turn is still this one's to hand on.
                Err(mut unwanted) => unwanted.state = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[tokio::test]
    async fn addresses_take_turns() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.turn(address(0)).await;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for number in [1, 1, 1, 1, 2, 3] {
            let (turns, sender) = (turns.clone(), sender.clone());
            tokio::spawn(async move {
                let _turn = turns.turn(address(number)).await;
                sender.send(number).unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop((held, sender));
        let mut order = Vec::new();
        while let Some(number) = receiver.recv().await {
            order.push(number);
        }
        assert_eq!(order, [1, 2, 3, 1, 1, 1]);
    }

    #[tokio::test]
    async fn who_leaves_holds_none_up() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.turn(address(0)).await;
        for _ in 0..3 {
            let waiting = turns.turn(address(1));
            assert!(tokio::time::timeout(std::time::Duration::from_millis(1), waiting).await.is_err());
        }
        drop(held);
        let _again = turns.turn(address(2)).await;
        let state = turns.0.lock();
        assert!(state.free == 0 && state.waiting.is_empty() && state.order.is_empty());
    }
}
