//! A key and what it allows.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admission::limits::KeyLimits;
use crate::names::{KeyDigest, Subdomain, SubdomainPattern};

/// The characters of generated names. Without vowels and look-alikes, they form no words and are easy to copy.
const FILLER: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";

/// Eight characters for a generated name, one from each byte.
pub(crate) fn filler(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| char::from(FILLER[usize::from(*byte) % FILLER.len()])).collect()
}

/// Whether a key may have this name: 1 to 64 printable characters.
pub(crate) fn is_key_name(text: &str) -> bool {
    (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// A key and its grant.
#[derive(Clone, Debug, PartialEq)]
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

/// A key as the store has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredKey {
    pub(crate) record: KeyRecord,
    /// When it was made.
    pub(crate) created: SystemTime,
    /// When it was revoked.
    pub(crate) revoked: Option<SystemTime>,
    /// The secret before the last rotation, while it still works.
    pub(crate) previous: Option<Previous>,
}

/// A secret that was replaced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Previous {
    pub(crate) digest: KeyDigest,
    /// When it stops working.
    pub(crate) until: SystemTime,
}

/// A key that is valid now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ValidKey {
    pub(super) record: Arc<KeyRecord>,
    /// The digest of an earlier secret that still works.
    pub(super) previous: Option<KeyDigest>,
}

impl ValidKey {
    /// The key at `now`, unless it has ended.
    pub(super) fn of(key: &StoredKey, now: SystemTime) -> Option<Self> {
        if key.revoked.is_some() {
            return None;
        }
        let previous = key.previous.as_ref().filter(|previous| now < previous.until);
        Self::of_record(&key.record, now)
            .map(|valid| Self { previous: previous.map(|one| one.digest.clone()), ..valid })
    }

    /// A key without an earlier secret at `now`, unless it has ended.
    pub(super) fn of_record(record: &KeyRecord, now: SystemTime) -> Option<Self> {
        let valid = record.expires.is_none_or(|expires| now < expires);
        valid.then(|| Self { record: Arc::new(record.clone()), previous: None })
    }

    /// Whether a secret with this digest belongs to the key.
    pub(super) fn accepts(&self, digest: &KeyDigest) -> bool {
        self.record.digest == *digest || self.previous.as_ref() == Some(digest)
    }
}
