//! The tunnel quota: how many tunnels each key may have at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::KeyRecord;
use crate::names::Subdomain;
use parking_lot::Mutex;

/// The names that each key has online. A name counts once, even during a takeover by a new session.
#[derive(Debug, Default)]
pub(crate) struct TunnelQuota(Mutex<HashMap<Arc<str>, Names>>);

/// The names of one key.
#[derive(Debug, Default)]
struct Names {
    /// How many names there were. Later ones have higher numbers.
    taken: u64,
    online: HashMap<Subdomain, Online>,
}

/// One name of a key.
#[derive(Debug)]
struct Online {
    number: u64,
    /// How many sessions have a permit for it.
    sessions: usize,
}

impl TunnelQuota {
    /// Takes a permit for a session of `key` that serves `name`. Returns `None` if the key has reached its quota.
    pub(crate) fn acquire(self: &Arc<Self>, key: &KeyRecord, name: &Subdomain) -> Option<TunnelPermit> {
        let mut keys = self.0.lock();
        let names = keys.entry(key.id.clone()).or_default();
        if let Some(online) = names.online.get_mut(name) {
            online.sessions += 1;
        } else if names.online.len() >= key.limits.tunnels {
            return None;
        } else {
            names.online.insert(name.clone(), Online { number: names.taken, sessions: 1 });
            names.taken += 1;
        }
        Some(TunnelPermit { quota: self.clone(), key: key.id.clone(), name: name.clone() })
    }

    /// The names that a key has beyond its present quota. The newest go first.
    pub(crate) fn excess(&self, key: &KeyRecord) -> HashSet<Subdomain> {
        let keys = self.0.lock();
        let Some(names) = keys.get(&key.id).filter(|names| names.online.len() > key.limits.tunnels) else {
            return HashSet::new();
        };
        let mut online: Vec<_> = names.online.iter().map(|(name, online)| (online.number, name)).collect();
        online.sort_unstable_by_key(|(number, _)| *number);
        online.split_off(key.limits.tunnels).into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// A permit for one session to serve a name. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct TunnelPermit {
    quota: Arc<TunnelQuota>,
    key: Arc<str>,
    name: Subdomain,
}

impl Drop for TunnelPermit {
    fn drop(&mut self) {
        let mut keys = self.quota.0.lock();
        let Some(names) = keys.get_mut(&self.key) else { return };
        if let Some(online) = names.online.get_mut(&self.name) {
            online.sessions -= 1;
            if online.sessions == 0 {
                names.online.remove(&self.name);
            }
        }
        if names.online.is_empty() {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::KeyLimits;
    use crate::names::KeyDigest;

    #[test]
    fn a_name_counts_once_and_is_given_back() {
        let quota = Arc::new(TunnelQuota::default());
        let key = KeyRecord {
            id: "k".into(),
            name: "k".into(),
            digest: KeyDigest::of("secret"),
            subdomains: Vec::new(),
            limits: KeyLimits { tunnels: 1, ..KeyLimits::default() },
            expires: None,
        };
        let (a, b) = (Subdomain::parse("a").unwrap(), Subdomain::parse("b").unwrap());
        let first = quota.acquire(&key, &a).unwrap();
        let successor = quota.acquire(&key, &a).unwrap();
        assert!(quota.acquire(&key, &b).is_none());
        drop(first);
        assert!(quota.acquire(&key, &b).is_none());
        drop(successor);
        assert!(quota.acquire(&key, &b).is_some());
        assert!(quota.0.lock().is_empty());
    }

    #[test]
    fn a_lower_quota_names_the_newest_as_excess() {
        let quota = Arc::new(TunnelQuota::default());
        let key = |tunnels| KeyRecord {
            id: "k".into(),
            name: "k".into(),
            digest: KeyDigest::of("secret"),
            subdomains: Vec::new(),
            limits: KeyLimits { tunnels, ..KeyLimits::default() },
            expires: None,
        };
        let names: Vec<_> = ["c", "a", "b"].iter().map(|name| Subdomain::parse(name).unwrap()).collect();
        let permits: Vec<_> = names.iter().map(|name| quota.acquire(&key(3), name).unwrap()).collect();
        assert!(quota.excess(&key(3)).is_empty());
        assert_eq!(quota.excess(&key(1)), names[1..].iter().cloned().collect());
        drop(permits);
        assert!(quota.excess(&key(1)).is_empty());
    }
}
