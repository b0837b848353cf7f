//! Refusals of wrong keys, which wait. Keys are always checked, and a right one never waits. So owners of keys cannot be
//! locked out by others at their address. A wrong key gets its answer at the pace of its address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Rates;

/// The most refusals that wait at once. Each holds a connection, of some 30 KiB.
const MOST: usize = 1024;

/// The refusals that wait.
#[derive(Debug)]
pub(crate) struct WrongKeys {
    rates: Arc<Rates>,
    room: Arc<Semaphore>,
}

/// A refusal that waits.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// How long it waits.
    pub(crate) wait: Duration,
    _room: OwnedSemaphorePermit,
}

impl WrongKeys {
    pub(super) fn new(rates: Arc<Rates>) -> Self {
        Self { rates, room: Arc::new(Semaphore::new(MOST)) }
    }

    /// Counts a wrong key from this address. `None` if too many refusals wait, of this address or in all. Then there is no
    /// answer: a quick one would let more keys be tried at any pace.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        let room = self.room.clone().try_acquire_owned().ok()?;
        Some(Refusal { wait: self.rates.failed_key(address)?, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::rates::Config;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_bounded_in_all_and_by_address() {
        let wrong = WrongKeys::new(Rates::new(Config::default(), Vec::new(), 1));
        let refusal = |number: u32| wrong.refusal(IpAddr::from(number.to_be_bytes()));
        let of_one: Vec<_> = (0..400).filter_map(|_| refusal(1)).collect();
        assert_eq!(of_one.len(), 257);
        let others: Vec<_> = (2..2000).filter_map(refusal).collect();
        assert_eq!(others.len(), MOST - of_one.len());
        drop(others);
        assert_eq!(refusal(3).map(|refusal| refusal.wait > Duration::ZERO), Some(true));
    }
}
