//! Changes of keys. Each is durable in the store before it is answered. The daemon's admin API makes them, and `cokd key`
//! does where no daemon runs.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cok_store::{Change, Condition, Entry, Outcome, Revision, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::record::{KeyRecord, Previous, StoredKey, is_key_name};
use super::table::KeyStore;
use super::wire::{Changes, KeyView, NewKey, Rotation, Setting, State};
use super::{id, row};
use crate::admission::limits::KeyLimits;
use crate::names::{ApiKey, SubdomainPattern};

/// How long an answer waits for the effect of a change. It takes milliseconds while the store can be read.
const EFFECT_LIMIT: Duration = Duration::from_secs(1);
/// How often a change is tried while others change the same key.
const TRIES: usize = 16;

/// Why a key is not changed or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum KeyError {
    /// There is no such key.
    #[error("there is no key {key:?}; `cokd key list` shows all")]
    NotFound {
        /// What was asked for.
        key: String,
    },
    /// Several keys have this name.
    #[error("several keys have the name {name:?}; name one by its id: {}", ids.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// The key stands in the configuration file.
    #[error("the key {name:?} stands in the configuration file; change or remove it there, and run `cokd reload`")]
    Configured {
        /// Its name.
        name: String,
    },
    /// The key was revoked, which is final.
    #[error("the key {id} was revoked; make a new one with `cokd key create`")]
    Revoked {
        /// Its id.
        id: String,
    },
    /// The key still works, so its record is not deleted.
    #[error("the key {id} still works; revoke it first with `cokd key revoke {id}`")]
    Live {
        /// Its id.
        id: String,
    },
    /// Another key has this name.
    #[error("another key has the name {name:?}; choose another one")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A value is out of its range.
    #[error("{message}")]
    Invalid {
        /// Which, and what it may be.
        message: String,
    },
    /// Nothing has changed, and the reason may pass.
    #[error("{message}; nothing has changed")]
    Failed {
        /// Why.
        message: String,
    },
    /// The answer of the store was lost.
    #[error("it is not known whether the key {id} was changed: {message}; look at it with `cokd key show {id}`")]
    Unknown {
        /// Its id.
        id: String,
        /// Why.
        message: String,
    },
}

impl KeyError {
    /// Whether the request itself cannot be carried out, however often it is made.
    pub(crate) fn is_mistake(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Unknown { .. })
    }
}

/// All keys: those of the configuration, which it only shows, and those of the store.
#[derive(Debug)]
pub(crate) struct KeyBook<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) configured: Vec<KeyRecord>,
    /// The table of this process, which follows the store.
    pub(crate) table: Option<&'a KeyStore>,
}

/// A key with the revision that changed it last.
type Found = (StoredKey, Revision);

impl KeyBook<'_> {
    /// All keys: those of the configuration by name, then those of the store by age.
    pub(crate) async fn list(&self) -> Result<Vec<KeyView>, KeyError> {
        let now = SystemTime::now();
        let mut stored = self.stored(b"").await?;
        stored.sort_by_key(|(key, _)| key.created);
        let mut configured: Vec<_> = self.configured.iter().map(|key| KeyView::of_record(key, now)).collect();
        configured.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configured.into_iter().chain(stored.iter().map(|(key, _)| KeyView::of(key, now))).collect())
    }

    /// One key, by its id or name.
    pub(crate) async fn show(&self, key: &str) -> Result<KeyView, KeyError> {
        let now = SystemTime::now();
        match self.configured.iter().find(|record| *record.id == *key) {
            Some(record) => Ok(KeyView::of_record(record, now)),
            None => self.find(key).await.map(|(key, _)| KeyView::of(&key, now)),
        }
    }

    /// Makes a key.
    pub(crate) async fn create(&self, new: &Changes) -> Result<NewKey, KeyError> {
        let now = SystemTime::now();
        let id = self.new_id()?;
        let Some(name) = &new.name else {
            return Err(KeyError::Invalid { message: "a key needs a name".to_owned() });
        };
        let secret = ApiKey::generate_for(&id).map_err(no_randomness)?;
        let mut key = StoredKey {
            record: KeyRecord {
                id: id.as_str().into(),
                name: name.as_str().into(),
                digest: secret.digest(),
                subdomains: SubdomainPattern::parse("*").into_iter().collect(),
                limits: KeyLimits::default(),
                expires: None,
            },
            created: now,
            revoked: None,
            previous: None,
        };
        self.apply(new, &mut key, now).await?;
        let key_of_row = row::key_of(&id);
        match self.put(Condition::Absent(key_of_row), &key).await? {
            Outcome::Committed(_) => Ok(NewKey { secret: secret.reveal().to_owned(), key: KeyView::of(&key, now) }),
            Outcome::Conflict => Err(KeyError::Failed { message: "another key has just got the same id".to_owned() }),
        }
    }

    /// Changes what a key allows.
    pub(crate) async fn edit(&self, key: &str, changes: &Changes) -> Result<KeyView, KeyError> {
        let now = SystemTime::now();
        for _ in 0..TRIES {
            let (mut found, revision) = self.find_usable(key).await?;
            self.apply(changes, &mut found, now).await?;
            if self.replace(&found, revision).await? {
                return Ok(KeyView::of(&found, now));
            }
        }
        Err(busy())
    }

    /// Revokes a key for good. A key that was revoked stays as it is.
    pub(crate) async fn revoke(&self, key: &str) -> Result<KeyView, KeyError> {
        let now = SystemTime::now();
        for _ in 0..TRIES {
            let (found, revision) = self.find(key).await?;
            if found.revoked.is_some() {
                return Ok(KeyView::of(&found, now));
            }
            let revoked = StoredKey { revoked: Some(now), previous: None, ..found };
            if self.replace(&revoked, revision).await? {
                return Ok(KeyView::of(&revoked, now));
            }
        }
        Err(busy())
    }

    /// Deletes the record of a key that was revoked or has expired. The key is not listed any more.
    pub(crate) async fn delete(&self, key: &str) -> Result<KeyView, KeyError> {
        let now = SystemTime::now();
        for _ in 0..TRIES {
            let (found, revision) = self.find(key).await?;
            let id = &found.record.id;
            let view = KeyView::of(&found, now);
            if view.state == State::Valid {
                return Err(KeyError::Live { id: id.to_string() });
            }
            let unchanged = Condition::Unchanged(row::key_of(id), revision);
            if let Outcome::Committed(_) = self.commit(id, unchanged, Change::Delete(row::key_of(id))).await? {
                return Ok(view);
            }
        }
        Err(busy())
    }

    /// Gives a key a new secret. The earlier one stops working, at once or after a time.
    pub(crate) async fn rotate(&self, key: &str, rotation: Rotation) -> Result<NewKey, KeyError> {
        let now = SystemTime::now();
        let Some(until) = now.checked_add(rotation.grace()) else {
            return Err(KeyError::Invalid { message: "the grace is too long".to_owned() });
        };
        for _ in 0..TRIES {
            let (mut found, revision) = self.find_usable(key).await?;
            let secret = ApiKey::generate_for(&found.record.id).map_err(no_randomness)?;
            let earlier = std::mem::replace(&mut found.record.digest, secret.digest());
            found.previous = (until > now).then_some(Previous { digest: earlier, until });
            if self.replace(&found, revision).await? {
                return Ok(NewKey { secret: secret.reveal().to_owned(), key: KeyView::of(&found, now) });
            }
        }
        Err(busy())
    }

    // ---- the store ----

    /// The keys of the store whose ids begin like this. A row that cannot be read is no key.
    async fn stored(&self, id: &[u8]) -> Result<Vec<Found>, KeyError> {
        let prefix = Bytes::from([row::PREFIX, id].concat());
        let listing = self.store.list(prefix).await.map_err(|error| failed(&error))?;
        let found = |entry: &Entry| {
            let key = row::decode(row::id_of(&entry.key)?, &entry.value).ok()?;
            Some((key, entry.modified))
        };
        Ok(listing.entries.iter().filter_map(found).collect())
    }

    /// A key of the store by its id, or by a name that only one key has. Revoked keys do not count where there is another.
    async fn find(&self, key: &str) -> Result<Found, KeyError> {
        if self.configured.iter().any(|record| *record.id == *key) {
            return Err(KeyError::Configured { name: key.to_owned() });
        }
        if id::is_valid(key)
            && let Some(found) = self.stored(key.as_bytes()).await?.pop()
        {
            return Ok(found);
        }
        let mut named = self.stored(b"").await?;
        named.retain(|(found, _)| *found.record.name == *key);
        if named.iter().any(|(found, _)| found.revoked.is_none()) {
            named.retain(|(found, _)| found.revoked.is_none());
        }
        if named.len() > 1 {
            let ids = named.iter().map(|(found, _)| found.record.id.to_string()).collect();
            return Err(KeyError::Ambiguous { name: key.to_owned(), ids });
        }
        named.pop().ok_or_else(|| KeyError::NotFound { key: key.to_owned() })
    }

    async fn find_usable(&self, key: &str) -> Result<Found, KeyError> {
        let found = self.find(key).await?;
        if found.0.revoked.is_some() {
            return Err(KeyError::Revoked { id: found.0.record.id.to_string() });
        }
        Ok(found)
    }

    /// Whether the key was still as it was at this revision, and is replaced now.
    async fn replace(&self, key: &StoredKey, read_at: Revision) -> Result<bool, KeyError> {
        let unchanged = Condition::Unchanged(row::key_of(&key.record.id), read_at);
        Ok(matches!(self.put(unchanged, key).await?, Outcome::Committed(_)))
    }

    async fn put(&self, condition: Condition, key: &StoredKey) -> Result<Outcome, KeyError> {
        let id = &key.record.id;
        let value = row::encode(key).map_err(|error| KeyError::Failed { message: error.to_string() })?;
        self.commit(id, condition, Change::Put(row::key_of(id), value, None)).await
    }

    async fn commit(&self, id: &str, condition: Condition, change: Change) -> Result<Outcome, KeyError> {
        let transaction = Transaction { conditions: vec![condition], changes: vec![change] };
        let answer = self.store.commit(transaction).await;
        let outcome = answer.map_err(|error| match error {
            StoreError::Unknown(message) => KeyError::Unknown { id: id.to_string(), message },
            error => failed(&error),
        })?;
        if let (Outcome::Committed(revision), Some(table)) = (outcome, self.table) {
            // The change is made, even if its effect takes longer.
            let _in_effect = timeout(EFFECT_LIMIT, table.saw(revision)).await;
        }
        Ok(outcome)
    }

    // ---- values ----

    fn new_id(&self) -> Result<String, KeyError> {
        loop {
            let id = id::generate().map_err(no_randomness)?;
            if self.configured.iter().all(|record| *record.id != *id) {
                return Ok(id);
            }
        }
    }

    /// Makes changes to a key, if all are allowed.
    async fn apply(&self, changes: &Changes, key: &mut StoredKey, now: SystemTime) -> Result<(), KeyError> {
        let invalid = |message: String| KeyError::Invalid { message };
        if let Some(name) = &changes.name {
            if !is_key_name(name) {
                return Err(invalid("a name has 1 to 64 printable characters".to_owned()));
            }
            let is_other = |(other, _): &Found| {
                *other.record.name == **name && other.revoked.is_none() && other.record.id != key.record.id
            };
            if self.configured.iter().any(|record| *record.name == **name)
                || self.stored(b"").await?.iter().any(is_other)
            {
                return Err(KeyError::NameTaken { name: name.clone() });
            }
            key.record.name = name.as_str().into();
        }
        if let Some(patterns) = &changes.subdomains {
            if patterns.is_empty() {
                return Err(invalid("a key needs a name or pattern that it may use".to_owned()));
            }
            let pattern = |text: &String| {
                SubdomainPattern::parse(text).map_err(|error| invalid(format!("the pattern {text:?}: {error}")))
            };
            key.record.subdomains = patterns.iter().map(pattern).collect::<Result<_, _>>()?;
        }
        key.record.limits = changes.limits(&key.record.limits).map_err(invalid)?;
        key.record.expires = changes.expiry(key.record.expires);
        if let Setting::Is(moment) = changes.expires
            && moment.0 <= now
        {
            return Err(invalid("the key would have expired already; `cokd key revoke` ends one".to_owned()));
        }
        Ok(())
    }
}

fn no_randomness(error: getrandom::Error) -> KeyError {
    KeyError::Failed { message: format!("the system gives no random numbers: {error}") }
}

fn failed(error: &StoreError) -> KeyError {
    KeyError::Failed { message: error.to_string() }
}

fn busy() -> KeyError {
    KeyError::Failed { message: "others change the key at the same time; try again".to_owned() }
}
