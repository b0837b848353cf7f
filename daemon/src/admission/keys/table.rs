//! The table of keys in memory. Handshakes read it without a lock, and sessions watch their keys in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use cok_store::Revision;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::grant::Grant;
use super::id;
use super::record::{KeyRecord, StoredKey, ValidKey};
use crate::names::KeyDigest;

/// The interval at which expiries are compared with the clock. A timer would miss that somebody sets the clock.
const CLOCK_POLL: Duration = Duration::from_millis(400);

/// A key as its sessions watch it. `None` once it has ended.
type Cell = watch::Sender<Option<Arc<ValidKey>>>;

/// All keys.
#[derive(Debug)]
pub(crate) struct KeyStore {
    /// Valid keys by their ids.
    valid: papaya::HashMap<Arc<str>, Cell>,
    /// The digests of the configuration's keys, which are not found by an id.
    configured: ArcSwap<Vec<(KeyDigest, Arc<str>)>>,
    sources: Mutex<Sources>,
    /// True once the stored keys are known.
    complete: watch::Sender<bool>,
    /// The latest revision of the store that the table knows.
    seen: watch::Sender<Revision>,
    /// Wakes the task that compares expiries with the clock.
    scheduled: Notify,
    /// Takes the place of an unknown key's digest, so that unknown keys take as long as known ones.
    nobody: KeyDigest,
}

/// Where keys come from.
#[derive(Debug, Default)]
struct Sources {
    configured: HashMap<Arc<str>, KeyRecord>,
    stored: HashMap<Arc<str>, StoredKey>,
    /// The moments at which a key or a secret ends, in their order.
    ends: Vec<SystemTime>,
    /// How many of these have passed.
    passed: usize,
}

impl Sources {
    /// A key at `now`. A key of the configuration hides a stored one with its id.
    fn valid(&self, id: &str, now: SystemTime) -> Option<ValidKey> {
        match self.configured.get(id) {
            Some(record) => ValidKey::of_record(record, now),
            None => ValidKey::of(self.stored.get(id)?, now),
        }
    }

    fn ids(&self) -> HashSet<Arc<str>> {
        self.configured.keys().chain(self.stored.keys()).cloned().collect()
    }

    fn passed(&self, now: SystemTime) -> usize {
        self.ends.partition_point(|end| *end <= now)
    }
}

impl Default for KeyStore {
    fn default() -> Self {
        Self {
            valid: papaya::HashMap::new(),
            configured: ArcSwap::default(),
            sources: Mutex::default(),
            complete: watch::Sender::new(true),
            seen: watch::Sender::new(Revision::default()),
            scheduled: Notify::new(),
            nobody: KeyDigest::of(""),
        }
    }
}

impl KeyStore {
    /// The keys of a configuration.
    pub(crate) fn new(records: Vec<KeyRecord>) -> Self {
        let store = Self::default();
        store.replace(records);
        store
    }

    /// Replaces the keys of the configuration. Sessions of keys that changed or are gone notice it.
    pub(crate) fn replace(&self, records: Vec<KeyRecord>) {
        let mut sources = self.sources.lock();
        let mut touched: HashSet<_> = sources.configured.keys().cloned().collect();
        touched.extend(records.iter().map(|record| record.id.clone()));
        let digests = records.iter().map(|record| (record.digest.clone(), record.id.clone())).collect();
        sources.configured = records.into_iter().map(|record| (record.id.clone(), record)).collect();
        // A new key's digest is of use only once the key is valid, and an ended one's no more.
        self.settle(&mut sources, touched, SystemTime::now());
        self.configured.store(Arc::new(digests));
    }

    /// Replaces all stored keys, which are known from now on, by those of a revision.
    pub(super) fn replace_stored(&self, keys: HashMap<Arc<str>, StoredKey>, revision: Revision) {
        let mut sources = self.sources.lock();
        let mut touched: HashSet<_> = sources.stored.keys().cloned().collect();
        touched.extend(keys.keys().cloned());
        sources.stored = keys;
        self.settle(&mut sources, touched, SystemTime::now());
        self.seen.send_replace(revision);
        self.complete.send_replace(true);
    }

    /// Changes some stored keys as a revision does; `None` deletes one.
    pub(super) fn change_stored(&self, changes: Vec<(Arc<str>, Option<StoredKey>)>, revision: Revision) {
        let mut sources = self.sources.lock();
        let touched = changes.iter().map(|(id, _)| id.clone()).collect();
        for (id, key) in changes {
            match key {
                Some(key) => sources.stored.insert(id, key),
                None => sources.stored.remove(&id),
            };
        }
        self.settle(&mut sources, touched, SystemTime::now());
        self.seen.send_replace(revision);
    }

    /// Waits until the table knows a revision of the store.
    pub(super) async fn saw(&self, revision: Revision) {
        let mut seen = self.seen.subscribe();
        // The sender lives as long as the table.
        let _seen = seen.wait_for(|seen| *seen >= revision).await;
    }

    /// Says that there are stored keys, which are not known yet.
    pub(crate) fn expect_stored(&self) {
        self.complete.send_replace(false);
    }

    /// False while the stored keys are not known: then a key that is not found may still be a right one.
    pub(crate) fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Waits until the stored keys are known.
    pub(crate) async fn completed(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as the store.
        let _known = complete.wait_for(|complete| *complete).await;
    }

    /// The name of a valid key.
    pub(crate) fn name_of(&self, id: &str) -> Option<Arc<str>> {
        let valid = self.valid.pin();
        let key = valid.get(id)?.borrow();
        key.as_ref().map(|key| key.record.name.clone())
    }

    /// The keys of the configuration.
    pub(crate) fn configured(&self) -> Vec<KeyRecord> {
        self.sources.lock().configured.values().cloned().collect()
    }

    /// Finds the key that this text belongs to, if it is valid at `now`. Compares in constant time, with the digests of
    /// all configured keys and of one stored key. An unknown key costs the same.
    pub(crate) fn authenticate(&self, presented: &str, now: SystemTime) -> Option<Grant> {
        let digest = KeyDigest::of(presented);
        let mut configured = None;
        for (known, id) in self.configured.load().iter() {
            if *known == digest {
                configured = Some(id.clone());
            }
        }
        let id = configured.or_else(|| id::of_key(presented).map(Arc::from)).unwrap_or_default();
        let watched = self.valid.pin().get(&id).map(Cell::subscribe);
        let key = watched.as_ref().and_then(|key| key.borrow().clone());
        let accepted = match &key {
            Some(key) => key.accepts(&digest),
            None => digest == self.nobody,
        };
        let in_time = key.is_some_and(|key| key.record.expires.is_none_or(|expires| now < expires));
        watched.filter(|_| accepted && in_time).map(|key| Grant { key, digest })
    }

    /// Ends keys when they expire. Runs until it is dropped.
    pub(crate) async fn watch_clock(&self) {
        loop {
            if self.sources.lock().ends.is_empty() {
                self.scheduled.notified().await;
            }
            self.check_clock(SystemTime::now());
            sleep(CLOCK_POLL).await;
        }
    }

    pub(super) fn check_clock(&self, now: SystemTime) {
        let mut sources = self.sources.lock();
        if sources.passed(now) != sources.passed {
            let ids = sources.ids();
            self.settle(&mut sources, ids, now);
        }
    }

    /// Brings the table in line with the sources, for these keys.
    fn settle(&self, sources: &mut Sources, ids: HashSet<Arc<str>>, now: SystemTime) {
        let valid = self.valid.pin();
        for id in ids {
            match (sources.valid(&id, now), valid.get(&id)) {
                (Some(key), Some(cell)) => {
                    cell.send_if_modified(|held| {
                        let changes = held.as_deref() != Some(&key);
                        if changes {
                            *held = Some(Arc::new(key));
                        }
                        changes
                    });
                }
                (Some(key), None) => {
                    valid.insert(id, Cell::new(Some(Arc::new(key))));
                }
                (None, Some(cell)) => {
                    cell.send_replace(None);
                    valid.remove(&id);
                }
                (None, None) => {}
            }
        }
        let configured = sources.configured.values().filter_map(|record| record.expires);
        let stored = sources.stored.values().filter(|key| key.revoked.is_none());
        let stored = stored
            .flat_map(|key| key.record.expires.into_iter().chain(key.previous.as_ref().map(|previous| previous.until)));
        sources.ends = configured.chain(stored).collect();
        sources.ends.sort_unstable();
        sources.passed = sources.passed(now);
        self.scheduled.notify_one();
    }
}
