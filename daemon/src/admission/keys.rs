//! API keys: who may open tunnels, and under which names. Keys come from the configuration; the rest of the daemon sees
//! only [`KeyStore`].

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::limits::KeyLimits;
use crate::names::{KeyDigest, Subdomain, SubdomainPattern};

/// The characters of generated names. Without vowels and look-alikes, they form no words and are easy to copy.
const FILLER: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";

/// Eight characters for a generated name, one from each byte.
pub(crate) fn filler(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| char::from(FILLER[usize::from(*byte) % FILLER.len()])).collect()
}

/// A key and its grant.
#[derive(Clone, Debug)]
pub(crate) struct KeyRecord {
    /// What names, tunnels and rates are counted under, for as long as the key exists. A key of the configuration has its
    /// name for an id.
    pub(crate) id: Arc<str>,
    /// Its name, for operators and logs.
    pub(crate) name: Arc<str>,
    /// The digest of the secret.
    pub(crate) digest: KeyDigest,
    /// The names that it may use.
    pub(crate) subdomains: Vec<SubdomainPattern>,
    /// How much of the daemon it may use.
    pub(crate) limits: KeyLimits,
    /// When it stops working.
    pub(crate) expires: Option<SystemTime>,
}

impl KeyRecord {
    /// True if the key may use `name`.
    pub(crate) fn may_use(&self, name: &Subdomain) -> bool {
        self.subdomains.iter().any(|pattern| pattern.matches(name))
    }

    /// Suggests names for a client that asks for none: one for each pattern, with `filler` for its `*`.
    pub(crate) fn suggestions(&self, filler: &str) -> Vec<Subdomain> {
        self.subdomains.iter().filter_map(|pattern| pattern.fill(filler)).collect()
    }
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct KeyStore {
    records: ArcSwap<Vec<Arc<KeyRecord>>>,
}

impl KeyStore {
    /// The keys of a configuration.
    pub(crate) fn new(records: Vec<KeyRecord>) -> Self {
        let store = Self::default();
        store.replace(records);
        store
    }

    /// Replaces all keys. Open tunnels stay open.
    pub(crate) fn replace(&self, records: Vec<KeyRecord>) {
        self.records.store(Arc::new(records.into_iter().map(Arc::new).collect()));
    }

    /// Finds the record of a key that is valid at `now`. Compares all digests, each in constant time.
    pub(crate) fn authenticate(&self, presented: &str, now: SystemTime) -> Option<Arc<KeyRecord>> {
        let digest = KeyDigest::of(presented);
        let mut found = None;
        for record in self.records.load().iter() {
            if record.digest == digest {
                found = Some(record.clone());
            }
        }
        found.filter(|record| record.expires.is_none_or(|expires| now < expires))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_valid_keys_pass() {
        let now = SystemTime::now();
        let record = |name: &str, expires| KeyRecord {
            id: name.into(),
            name: name.into(),
            digest: KeyDigest::of(&format!("secret-{name}")),
            subdomains: vec![SubdomainPattern::parse("demo-*").unwrap()],
            limits: KeyLimits { tunnels: 1, ..KeyLimits::default() },
            expires,
        };
        let store = KeyStore::new(vec![record("old", Some(now)), record("new", Some(now + Duration::from_secs(1)))]);
        assert!(store.authenticate("secret-old", now).is_none());
        assert!(store.authenticate("", now).is_none());
        let key = store.authenticate("secret-new", now).unwrap();
        assert_eq!(&*key.name, "new");
        assert!(key.suggestions(&filler(&[7; 32])).iter().all(|name| key.may_use(name)));
    }
}
