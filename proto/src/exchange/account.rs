//! How many bytes of bodies are held, and for whom: for a visitor, a tunnel, a key and the process.
//!
//! An exchange's [`Holding`] charges each account that it belongs to. Charging never fails. The owner of an account that is
//! above its ceiling resets exchanges until it is not; a signal wakes it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A sum of bytes, and the most that it should be.
pub struct Account {
    held: AtomicUsize,
    ceiling: AtomicUsize,
    /// Wakes the owner.
    signal: Arc<dyn Fn() + Send + Sync>,
}

impl Account {
    /// An account that may hold `ceiling` bytes. `signal` is called for each charge beyond that.
    pub fn new(ceiling: usize, signal: Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), ceiling: AtomicUsize::new(ceiling), signal })
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The most bytes that should be held.
    pub fn ceiling(&self) -> usize {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// Changes the ceiling.
    pub fn set_ceiling(&self, ceiling: usize) {
        self.ceiling.store(ceiling, Ordering::Relaxed);
    }

    /// Whether nothing more should be held.
    pub fn is_full(&self) -> bool {
        self.held() >= self.ceiling()
    }

    /// Whether more than half of the ceiling is held.
    pub fn is_pressed(&self) -> bool {
        self.held() > self.ceiling() / 2
    }

    fn add(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.ceiling() {
            (self.signal)();
        }
    }

    fn sub(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("held", &self.held()).field("ceiling", &self.ceiling()).finish()
    }
}

/// What one exchange holds. Dropping it gives everything back.
#[derive(Debug)]
pub struct Holding {
    held: AtomicUsize,
    accounts: Vec<Arc<Account>>,
    /// An account that is known later than the others.
    joined: OnceLock<Arc<Account>>,
}

impl Holding {
    /// Nothing is held yet.
    pub fn new(accounts: Vec<Arc<Account>>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), accounts, joined: OnceLock::new() })
    }

    /// Charges one more account. The first one counts. The holding must not be used meanwhile.
    pub fn join(&self, account: &Arc<Account>) {
        if self.joined.set(account.clone()).is_ok() {
            account.add(self.held());
        }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether one of its accounts is full.
    pub fn is_full(&self) -> bool {
        self.accounts().any(|account| account.is_full())
    }

    /// The accounts that are charged.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.iter().chain(self.joined.get())
    }

    /// More bytes are held.
    pub fn add(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_add(bytes, Ordering::Relaxed);
            self.accounts().for_each(|account| account.add(bytes));
        }
    }

    /// Bytes that were added are not held any more.
    pub fn sub(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.accounts().for_each(|account| account.sub(bytes));
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let left = *self.held.get_mut();
        self.accounts().for_each(|account| account.sub(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(ceiling: usize) -> (Arc<Account>, Arc<AtomicUsize>) {
        let signals = Arc::new(AtomicUsize::new(0));
        let counted = signals.clone();
        let signal = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        (Account::new(ceiling, Arc::new(signal)), signals)
    }

    #[test]
    fn a_charge_beyond_the_ceiling_wakes_the_owner() {
        let (account, signals) = account(1000);
        let holding = Holding::new(vec![account.clone()]);
        holding.add(999);
        assert_eq!((account.is_pressed(), account.is_full(), signals.load(Ordering::Relaxed)), (true, false, 0));
        holding.add(1);
        assert!(account.is_full() && signals.load(Ordering::Relaxed) == 1);
        holding.sub(600);
        assert_eq!((account.held(), account.is_pressed()), (400, false));
    }

    #[test]
    fn an_account_that_joins_late_is_charged_alike() {
        let ((early, _), (late, _)) = (account(10), account(10));
        let holding = Holding::new(vec![early.clone()]);
        holding.add(3);
        holding.join(&late);
        holding.add(4);
        assert_eq!((early.held(), late.held()), (7, 7));
        drop(holding);
        assert_eq!((early.held(), late.held()), (0, 0));
    }

    /// A model: random charges of many holdings on shared accounts. Sums agree at each step, and all comes back.
    #[test]
    fn sums_agree_and_everything_comes_back() {
        let mut random = 0x9e37_79b9_u32;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % below
        };
        let accounts: Vec<_> = (0..4).map(|_| account(1 << 20).0).collect();
        let mut live: Vec<(Arc<Holding>, usize, [bool; 4])> = Vec::new();
        for _ in 0..20_000 {
            match next(4) {
                0 if live.len() < 50 => {
                    let belongs = [true, next(2) == 0, next(2) == 0, next(2) == 0];
                    let of = accounts.iter().zip(belongs).filter(|(_, belongs)| *belongs);
                    live.push((Holding::new(of.map(|(account, _)| account.clone()).collect()), 0, belongs));
                }
                1 if !live.is_empty() => {
                    live.swap_remove(next(live.len()));
                }
                2 if !live.is_empty() => {
                    let (index, bytes) = (next(live.len()), next(5000));
                    live[index].0.add(bytes);
                    live[index].1 += bytes;
                }
                _ if !live.is_empty() => {
                    let index = next(live.len());
                    let bytes = next(live[index].1 + 1);
                    live[index].0.sub(bytes);
                    live[index].1 -= bytes;
                }
                _ => {}
            }
            for (number, account) in accounts.iter().enumerate() {
                let expected: usize = live.iter().filter(|(_, _, of)| of[number]).map(|(_, held, _)| held).sum();
                assert_eq!(account.held(), expected);
            }
        }
        live.clear();
        assert!(accounts.iter().all(|account| account.held() == 0));
    }
}
