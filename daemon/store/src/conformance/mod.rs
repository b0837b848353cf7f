//! The suite that every engine of a [`Store`] passes: each function is one test. It takes a function that opens another
//! handle to one space, which is empty at first, and panics where the store breaks a rule.

#![allow(clippy::unwrap_used, reason = "a test ends with the first surprise")]
#![allow(clippy::missing_panics_doc, reason = "that is how a test fails")]

mod leases;
mod model;
mod transactions;
mod watches;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

pub use self::leases::{ended_leases_take_their_entries, renewed_leases_stay};
pub use self::model::behaves_like_a_map;
pub use self::transactions::{
    lists_prefixes_in_order, of_racing_transactions_one_wins, raises_the_revision_with_each_change, refuses_nonsense,
    transactions_are_all_or_nothing,
};
pub use self::watches::{
    old_revisions_are_compacted, watches_follow_from_a_revision, watches_miss_and_repeat_nothing,
    watches_survive_abandoned_waits,
};
use crate::{Batch, Change, Condition, Outcome, Revision, Store, Transaction, Watch};

/// Opens another handle to the space.
pub type Open<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// A time limit far above what any step takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(bytes(key), bytes(value), None)
}

fn delete(key: &str) -> Change {
    Change::Delete(bytes(key))
}

fn when(conditions: Vec<Condition>, changes: Vec<Change>) -> Transaction {
    Transaction { conditions, changes }
}

/// Commits changes without a condition, and returns the revision.
async fn change(store: &dyn Store, changes: Vec<Change>) -> Revision {
    match store.commit(when(Vec::new(), changes)).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a transaction without conditions has none that fails"),
    }
}

/// Keys and values under a prefix, as text.
async fn listed(store: &dyn Store, prefix: &str) -> Vec<(String, String)> {
    let entries = store.list(bytes(prefix)).await.unwrap().entries;
    entries.into_iter().map(|entry| (text(&entry.key), text(&entry.value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn next(watch: &mut dyn Watch) -> Batch {
    timeout(PATIENCE, watch.next()).await.expect("the watch sees nothing").unwrap()
}
