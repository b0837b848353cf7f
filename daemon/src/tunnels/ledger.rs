//! The names in use, as rows of the store. After a restart, visitors wait for these tunnels and do not get 404.
//!
//! Changes are written behind, within a second. A daemon that is killed may lose the last second, and its clients repair
//! that when they reconnect. While the store does not work, traffic goes on, and what has changed meanwhile is written
//! once it works again.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::mem::discriminant;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_certs::unix_now;
use cok_store::{Change, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::Tunnels;
use super::directory::Directory;
use super::memory::{Entry, Unsaved};
use super::session::Owner;
use crate::names::Subdomain;

/// What the keys of the rows begin with. The label follows.
const PREFIX: &str = "names/";

/// The pause after a write. A single change is written at once, but returning clients change a thousand names together.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// The most rows of one transaction: some 100 KiB.
const BATCH: usize = 512;
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How long a start waits for the names. They come later if the store takes longer.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a stop waits for the last names to be written.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// When the clients of the last process have had their time to return. Names that are still away are saved so.
const RETURNED: Duration = Duration::from_secs(60);

/// A row. Its key is the name.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// The id of the key that owns it.
    key: String,
    /// The client installation.
    instance: String,
    /// When it was last online, in seconds since 1970; absent while it is online.
    #[serde(skip_serializing_if = "Option::is_none")]
    away_since: Option<i64>,
}

/// Writes the names in use to the store.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    /// Where the store is, for messages.
    file: PathBuf,
    /// Why the store does not work.
    troubles: watch::Receiver<Option<StoreError>>,
}

/// What is left to do after a start.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Names that were online when the last process ended.
    pub(crate) online: Vec<Subdomain>,
    /// False if the rows could not be read.
    complete: bool,
}

impl Ledger {
    /// A ledger in this store, which is in `file` and has these troubles.
    pub(crate) fn new(store: Arc<dyn Store>, file: PathBuf, troubles: watch::Receiver<Option<StoreError>>) -> Self {
        Self { store, file, troubles }
    }

    /// Restores the names of the last process. The absence of those that were online counts from now, not from the end of
    /// that process.
    pub(crate) async fn restore(&self, tunnels: &Tunnels) -> Restored {
        match timeout(START_LIMIT, self.read_into(&tunnels.directory)).await {
            Ok(Ok(online)) => Restored { online, complete: true },
            Ok(Err(_)) | Err(_) => Restored::default(),
        }
    }

    /// Adds the names of all rows that are not there. Returns those that were online.
    async fn read_into(&self, directory: &Directory) -> Result<Vec<Subdomain>, StoreError> {
        let (rows, now) = (self.store.list(Bytes::from_static(PREFIX.as_bytes())).await?.entries, unix_now());
        let mut online = Vec::new();
        for row in rows {
            let label = row.key.get(PREFIX.len()..).and_then(|label| std::str::from_utf8(label).ok());
            let name = label.and_then(|label| Subdomain::parse(label).ok());
            let (Some(name), Ok(Row { key, instance, away_since })) = (name, serde_json::from_slice(&row.value)) else {
                warn!(key = %row.key.escape_ascii(), "a name in the store cannot be read and is ignored");
                continue;
            };
            let away_for = away_since.map_or(0, |since| now.saturating_sub(since).max(0).unsigned_abs());
            let owner = Owner { key: key.into(), instance };
            let added = directory.remember(name.clone(), owner, Duration::from_secs(away_for), mark(&row.value));
            if added && away_since.is_none() {
                online.push(name);
            }
        }
        Ok(online)
    }

    /// Writes changes as they come. Runs until it is dropped.
    pub(crate) async fn follow(mut self, tunnels: Arc<Tunnels>, restored: Restored) {
        let directory = &tunnels.directory;
        let Restored { online: mut returning, mut complete } = restored;
        let mut returned = Instant::now() + RETURNED;
        let mut known = None;
        loop {
            let trouble = self.troubles.borrow_and_update().clone();
            let result = match trouble {
                Some(trouble) => Err(trouble),
                None if complete && !directory.lost_changes() => self.write_all(directory).await,
                None => self.compare(directory).await.map(|late| {
                    returning.extend(late);
                    (complete, returned) = (true, Instant::now() + RETURNED);
                }),
            };
            let again = result.is_err() || !complete;
            // After a trouble the store may be another one.
            complete &= result.is_ok();
            self.report(&mut known, result.err());
            sleep(WRITE_EVERY).await;
            tokio::select! {
                () = directory.changed(), if !again => {}
                () = sleep(RETRY), if again => {}
                Ok(()) = self.troubles.changed() => {}
                () = sleep_until(returned), if !returning.is_empty() => {
                    directory.save_away(&std::mem::take(&mut returning));
                }
            }
        }
    }

    /// Writes the last changes before the process ends.
    pub(crate) async fn save(&self, tunnels: &Tunnels) {
        let result = timeout(STOP_LIMIT, self.write_all(&tunnels.directory)).await;
        let error = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        let file = self.file.display();
        warn!(%file, error, "the last changes of names are not saved, so the next start may not know them: {file}: {error}");
    }

    /// Restores the rows that are not in memory, and has those written that differ.
    async fn compare(&self, directory: &Arc<Directory>) -> Result<Vec<Subdomain>, StoreError> {
        let late = self.read_into(directory).await?;
        directory.save_all();
        self.write_all(directory).await?;
        Ok(late)
    }

    async fn write_all(&self, directory: &Arc<Directory>) -> Result<(), StoreError> {
        while let Some(unsaved) = directory.unsaved(BATCH) {
            self.write(directory, unsaved).await?;
        }
        Ok(())
    }

    async fn write(&self, directory: &Directory, unsaved: Unsaved) -> Result<(), StoreError> {
        let now = unix_now();
        let (mut changes, mut marks) = (Vec::new(), Vec::new());
        for name in &unsaved.names {
            let key = Bytes::from(format!("{PREFIX}{name}"));
            let Some(entry) = directory.entry(name) else {
                changes.push(Change::Delete(key));
                continue;
            };
            let row = row(&entry, now);
            let mark = mark(&row);
            if entry.saved() != mark {
                // Until the answer is there, it is not known what is saved.
                entry.set_saved(0);
                changes.push(Change::Put(key, row, None));
                marks.push((entry, mark));
            }
        }
        if !changes.is_empty() {
            self.store.commit(Transaction { conditions: Vec::new(), changes }).await?;
        }
        for (entry, mark) in marks {
            entry.set_saved(mark);
        }
        unsaved.done();
        Ok(())
    }

    /// Logs a trouble once, with what to do, and its end.
    fn report(&self, known: &mut Option<StoreError>, now: Option<StoreError>) {
        let file = self.file.display();
        match (&known, &now) {
            (Some(before), Some(now)) if discriminant(before) == discriminant(now) => {}
            (_, Some(error)) => {
                let advice = match error {
                    StoreError::Full(_) => "free some space on its disk",
                    StoreError::Damaged(_) => {
                        "put a sound copy in its place, or move it away and restart cokd, which then begins a new one"
                    }
                    _ => "see to its disk, its owner and its permissions; cokd tries again by itself",
                };
                warn!(
                    event = "store_trouble", %file, %error,
                    "{file}: {error}; tunnels go on, but names and keys cannot be saved: {advice}"
                );
            }
            (Some(_), None) => {
                info!(event = "store_works", %file, "{file}: the store works again, and names are saved");
            }
            (None, None) => {}
        }
        *known = now;
    }
}

fn row(entry: &Entry, now: i64) -> Bytes {
    let Owner { key, instance } = &entry.owner;
    let away_since = entry.away_for.map(|away_for| now.saturating_sub_unsigned(away_for.as_secs()));
    let row = Row { key: key.to_string(), instance: instance.clone(), away_since };
    // Strings and numbers always have a JSON form.
    serde_json::to_vec(&row).unwrap_or_default().into()
}

/// Tells two rows apart, but for one case in 2^64. Never 0.
fn mark(row: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(row);
    hasher.finish().max(1)
}

#[cfg(test)]
#[path = "tests/ledger.rs"]
mod tests;
