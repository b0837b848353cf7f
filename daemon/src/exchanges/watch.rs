//! The task that looks after all exchanges.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cok_transport::Account;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::Exchanges;
use super::exchange::{End, Exchange};

/// How often exchanges are looked at, at most. Stalls are known that exactly.
const LOOK: Duration = Duration::from_secs(1);
/// Looks within the time for a stall.
const LOOKS: u32 = 8;
/// The part of the time that a visitor has under pressure.
const PRESSED: u32 = 4;
/// How long exchanges that were ended may take to give their bytes back before more are ended.
const GIVE_BACK: Duration = Duration::from_millis(20);

/// Bytes that make a burst when they are held.
const BURST: usize = 1024 * 1024;
/// How long after a burst the workers are woken at each look.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Has sleeping workers give back the memory that they have freed (`host::memory`).
fn wake_workers() {
    let runtime = tokio::runtime::Handle::current();
    for _ in 0..runtime.metrics().num_workers() {
        runtime.spawn(async {});
    }
}

impl Exchanges {
    /// Ends exchanges that stand still, and those that hold most while an account is full. Runs until it is dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        let (mut next, mut burst) = (Instant::now(), None);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    self.end_stalled(Instant::now());
                    if self.process.held() > BURST {
                        burst = Some(Instant::now());
                    } else if burst.is_some_and(|seen: Instant| seen.elapsed() < AFTERMATH) {
                        wake_workers();
                    }
                    next = Instant::now() + (self.config().stall_timeout / LOOKS).min(LOOK);
                }
                () = self.full.notified() => {
                    self.relieve();
                    sleep(GIVE_BACK).await;
                }
            }
        }
    }

    /// How long a visitor may stand still with what is no exchange of a tunnel.
    pub(crate) fn patience(&self) -> Duration {
        let limit = self.config().stall_timeout;
        if self.process.is_pressed() { limit / PRESSED } else { limit }
    }

    /// Ends exchanges whose visitors stand still for too long.
    pub(super) fn end_stalled(&self, now: Instant) {
        let limit = self.config().stall_timeout;
        let process = self.process.is_pressed();
        for exchange in self.all() {
            let since = exchange.visitor_still_since(now);
            let pressed = process || exchange.is_pressed();
            let limit = match (exchange.is_long_lived(), pressed) {
                (true, false) => continue,
                (true, true) | (false, false) => limit,
                (false, true) => limit / PRESSED,
            };
            if now.duration_since(since) >= limit {
                debug!(address = %exchange.address(), "an exchange is ended: its visitor stands still");
                exchange.end(End::Stalled);
            }
        }
        self.busy.lock().retain(|places| !places.ends());
        for shard in &self.visitors {
            shard.lock().retain(|_, account| account.strong_count() > 0);
        }
    }

    /// Ends exchanges until no account is full: of each account, the longest still ones of the address that holds most.
    pub(super) fn relieve(&self) {
        let all = self.all();
        let mut full: Vec<&Arc<Account>> = Vec::new();
        for account in all.iter().flat_map(|exchange| exchange.holding.accounts()) {
            if account.is_full() && !full.iter().any(|other| Arc::ptr_eq(other, account)) {
                full.push(account);
            }
        }
        for account in full {
            let charges =
                |exchange: &&Arc<Exchange>| exchange.holding.accounts().any(|other| Arc::ptr_eq(other, account));
            relieve(account, all.iter().filter(charges));
        }
    }
}

/// An exchange, since when it stands still, and what it holds.
type Still<'a> = (Instant, usize, &'a Arc<Exchange>);

/// Ends exchanges of an account until an eighth of it is free.
fn relieve<'a>(account: &Account, exchanges: impl Iterator<Item = &'a Arc<Exchange>>) {
    let mut excess = account.held().saturating_sub(account.ceiling() / 8 * 7);
    let mut by_network: HashMap<u128, (usize, Vec<Still<'_>>)> = HashMap::new();
    for exchange in exchanges {
        let held = exchange.holding.held();
        if held > 0 {
            let (sum, of_network) = by_network.entry(exchange.network()).or_default();
            *sum += held;
            of_network.push((exchange.still_since(), held, exchange));
        }
    }
    for (_, of_network) in by_network.values_mut() {
        of_network.sort_unstable_by_key(|(since, _, _)| std::cmp::Reverse(*since));
    }
    while excess > 0
        && let Some((sum, of_network)) = by_network.values_mut().max_by_key(|(sum, _)| *sum)
        && let Some((_, held, exchange)) = of_network.pop()
    {
        *sum -= held;
        excess = excess.saturating_sub(held);
        if exchange.ended().is_some() {
            exchange.end_connection();
        } else {
            debug!(address = %exchange.address(), held, "an exchange is ended: an account of bytes is full");
            exchange.end(End::Evicted);
        }
    }
}
