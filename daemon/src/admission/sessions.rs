//! The session quota: how many sessions each key may have at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::KeyRecord;

/// The most sessions that count as one: a session and its successor.
const IN_TURN: usize = 2;

/// The sessions of each key. A session and the one that takes its tunnels over count once.
#[derive(Debug, Default)]
pub(crate) struct SessionQuota(Mutex<Register>);

#[derive(Debug, Default)]
struct Register {
    /// How many permits there were. Later ones have higher numbers.
    permits: u64,
    /// By keys and numbers: how many sessions have a permit with this number.
    keys: HashMap<Arc<str>, BTreeMap<u64, usize>>,
}

/// A permit for one session. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct SessionPermit {
    quota: Arc<SessionQuota>,
    key: Arc<str>,
    number: u64,
}

impl SessionQuota {
    /// Takes a permit for a session of `key`. Returns `None` if the key has reached its quota.
    pub(crate) fn acquire(self: &Arc<Self>, key: &KeyRecord) -> Option<SessionPermit> {
        let mut register = self.0.lock();
        let number = register.permits;
        let held = register.keys.entry(key.id.clone()).or_default();
        if held.len() >= key.limits.sessions {
            return None;
        }
        held.insert(number, 1);
        register.permits += 1;
        Some(SessionPermit { quota: self.clone(), key: key.id.clone(), number })
    }
}

impl SessionPermit {
    /// A permit for the session that takes this one's tunnels over. Returns `None` if there is one already.
    pub(crate) fn succeed(&self) -> Option<Self> {
        let mut register = self.quota.0.lock();
        let sessions = register.keys.get_mut(&self.key)?.get_mut(&self.number)?;
        if *sessions >= IN_TURN {
            return None;
        }
        *sessions += 1;
        Some(Self { quota: self.quota.clone(), key: self.key.clone(), number: self.number })
    }

    /// Whether the key may still have this session, now that it may have `most`. The newest go first.
    pub(crate) fn is_within(&self, most: usize) -> bool {
        let register = self.quota.0.lock();
        register.keys.get(&self.key).is_none_or(|held| held.range(..self.number).count() < most)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut register = self.quota.0.lock();
        let Some(held) = register.keys.get_mut(&self.key) else { return };
        if let Some(sessions) = held.get_mut(&self.number) {
            *sessions -= 1;
            if *sessions == 0 {
                held.remove(&self.number);
            }
        }
        if held.is_empty() {
            register.keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::KeyLimits;
    use crate::names::KeyDigest;

    #[test]
    fn a_session_counts_once_with_its_successor() {
        let quota = Arc::new(SessionQuota::default());
        let key = KeyRecord {
            id: "k".into(),
            name: "k".into(),
            digest: KeyDigest::of("secret"),
            subdomains: Vec::new(),
            limits: KeyLimits { sessions: 2, ..KeyLimits::default() },
            expires: None,
        };
        let (first, second) = (quota.acquire(&key).unwrap(), quota.acquire(&key).unwrap());
        assert!(quota.acquire(&key).is_none());
        let successor = first.succeed().unwrap();
        assert!(first.succeed().is_none() && successor.succeed().is_none());
        drop(first);
        let last = successor.succeed().unwrap();
        assert!(quota.acquire(&key).is_none());
        assert!(last.is_within(1) && second.is_within(2) && !second.is_within(1));
        drop((successor, last));
        assert!(second.is_within(1) && quota.acquire(&key).is_some());
        drop(second);
        assert!(quota.0.lock().keys.is_empty());
    }
}
