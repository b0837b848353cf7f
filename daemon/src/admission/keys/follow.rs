//! Brings the keys of the store into the table, and keeps them up to date.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_store::{Entry, Event, Revision, Store, StoreError};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::record::StoredKey;
use super::row;
use super::table::KeyStore;

/// The wait after the store could not be read.
const RETRY: Duration = Duration::from_millis(500);

impl KeyStore {
    /// Follows the keys of a store. Keys that are known stay valid while it cannot be read. Runs until it is dropped.
    pub(crate) async fn follow(&self, store: &dyn Store) {
        let mut in_trouble = false;
        loop {
            let read = self.read_all(store).await;
            let revision = match read {
                Ok(revision) => revision,
                Err(error) => {
                    if !in_trouble {
                        error!(event = "keys_unread", %error, "cannot read the API keys: {error}; those that are known stay valid");
                    }
                    in_trouble = true;
                    sleep(RETRY).await;
                    continue;
                }
            };
            if in_trouble {
                info!(event = "keys_read", "the API keys can be read again");
            }
            in_trouble = false;
            // Whatever ends the watch, reading everything helps, or says what is wrong.
            let error = self.watch(store, Revision(revision.0 + 1)).await;
            if error != StoreError::Compacted {
                sleep(RETRY).await;
            }
        }
    }

    async fn read_all(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let listing = store.list(Bytes::from_static(row::PREFIX)).await?;
        let keys: HashMap<_, _> = listing.entries.iter().filter_map(read).collect();
        self.replace_stored(keys, listing.revision);
        Ok(listing.revision)
    }

    async fn watch(&self, store: &dyn Store, from: Revision) -> StoreError {
        let mut watch = match store.watch(Bytes::from_static(row::PREFIX), from).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            let batch = match watch.next().await {
                Ok(batch) => batch,
                Err(error) => return error,
            };
            let changes = batch.events.iter().filter_map(|event| match event {
                // A row that is damaged now is no key any more.
                Event::Put(entry) => {
                    let id = row::id_of(&entry.key)?;
                    Some(read(entry).map_or_else(|| (id.into(), None), |(id, key)| (id, Some(key))))
                }
                Event::Delete(key) => Some((row::id_of(key)?.into(), None)),
            });
            self.change_stored(changes.collect(), batch.revision);
        }
    }
}

fn read(entry: &Entry) -> Option<(Arc<str>, StoredKey)> {
    let Some(id) = row::id_of(&entry.key) else {
        let key = String::from_utf8_lossy(&entry.key);
        warn!(event = "key_ignored", ?key, "the store has a row {key:?}, which is no key of this version");
        return None;
    };
    match row::decode(id, &entry.value) {
        Ok(key) => Some((id.into(), key)),
        Err(error) => {
            warn!(event = "key_ignored", id, %error, "the key {id} is not valid: its row cannot be read: {error}");
            None
        }
    }
}
