//! The tunnel quota: how many tunnels each key may have at once.

use std::collections::HashMap;
use std::sync::Arc;

use super::KeyRecord;
use crate::names::Subdomain;
use parking_lot::Mutex;

/// The names that each key has online. A name counts once, even during a takeover by a new session.
#[derive(Debug, Default)]
pub(crate) struct TunnelQuota(Mutex<HashMap<Arc<str>, HashMap<Subdomain, usize>>>);

impl TunnelQuota {
    /// Takes a permit for a session of `key` that serves `name`. Returns `None` if the key has reached its quota.
    pub(crate) fn acquire(self: &Arc<Self>, key: &KeyRecord, name: &Subdomain) -> Option<TunnelPermit> {
        let mut keys = self.0.lock();
        let names = keys.entry(key.id.clone()).or_default();
        if !names.contains_key(name) && names.len() >= key.limits.tunnels {
            return None;
        }
        *names.entry(name.clone()).or_default() += 1;
        Some(TunnelPermit { quota: self.clone(), key: key.id.clone(), name: name.clone() })
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
        if let Some(sessions) = names.get_mut(&self.name) {
            *sessions -= 1;
            if *sessions == 0 {
                names.remove(&self.name);
            }
        }
        if names.is_empty() {
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
    }
}
