//! The seam: what every store can do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// An answer of a store that is still to come.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A state of the whole space. Each commit that changes something has the next one. Zero is the empty space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A lease: entries that hang on it vanish with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub u64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision at which the key came into being. A key that was deleted and set again has a new one.
    pub created: Revision,
    /// The revision of its last change.
    pub modified: Revision,
    /// The lease that it hangs on.
    pub lease: Option<LeaseId>,
}

/// Entries of one revision, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision that the entries belong to. A watch from the next one misses nothing.
    pub revision: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// What must hold for a transaction to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key exists.
    Exists(Bytes),
    /// The key does not exist.
    Absent(Bytes),
    /// The key exists, and this revision changed it last.
    Unchanged(Bytes, Revision),
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key. The entry hangs on the lease, if there is one, and no longer on an earlier one.
    Put(Bytes, Bytes, Option<LeaseId>),
    /// Deletes a key. Does nothing if it does not exist.
    Delete(Bytes),
}

/// Changes that are carried out together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// What changes then. Each key at most once.
    pub changes: Vec<Change>,
}

/// The answer to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is carried out and durable. The space has this revision now; an empty or idle transaction leaves it as it was.
    Committed(Revision),
    /// A condition does not hold. Nothing has changed.
    Conflict,
}

/// A change that a watch has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was set.
    Put(Entry),
    /// A key was deleted, or its lease ended.
    Delete(Bytes),
}

/// All changes of one revision, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// Its changes under the watched prefix; never empty.
    pub events: Vec<Event>,
}

/// Why a store gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Whether the transaction was carried out is not known: its answer was lost. Read, and try again.
    #[error("it is not known whether the store took the change: {0}")]
    Unknown(String),
    /// The store can't be used now, and nothing has changed.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// The store has no room, and nothing has changed.
    #[error("the store is full: {0}")]
    Full(String),
    /// What is stored is damaged. Nothing has changed.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// No store carries out such a transaction: it changes a key twice, or is too large. Nothing has changed.
    #[error("the transaction cannot be carried out: {0}")]
    Invalid(String),
    /// The watch asks for revisions that are no longer kept, or has fallen too far behind. Read everything, and watch
    /// from there.
    #[error("the changes since this revision are no longer kept")]
    Compacted,
    /// There is no such lease, or it has ended.
    #[error("the lease has ended")]
    NoLease,
}

/// An ordered key-value space.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// All entries whose keys begin with `prefix`.
    fn list(&self, prefix: Bytes) -> Answer<'_, Listing>;

    /// Carries out a transaction. Its changes are durable once the answer is there.
    fn commit(&self, transaction: Transaction) -> Answer<'_, Outcome>;

    /// Follows the changes of all keys that begin with `prefix`, from revision `from` on (included).
    fn watch(&self, prefix: Bytes, from: Revision) -> Answer<'_, Box<dyn Watch>>;

    /// Makes a lease that ends `time_to_live` after its last renewal.
    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId>;

    /// Renews a lease.
    fn renew(&self, lease: LeaseId) -> Answer<'_, ()>;

    /// Ends a lease now, and deletes its entries in one commit.
    fn release(&self, lease: LeaseId) -> Answer<'_, ()>;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn list(&self, prefix: Bytes) -> Answer<'_, Listing> {
        (**self).list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Outcome> {
        (**self).commit(transaction)
    }

    fn watch(&self, prefix: Bytes, from: Revision) -> Answer<'_, Box<dyn Watch>> {
        (**self).watch(prefix, from)
    }

    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId> {
        (**self).grant(time_to_live)
    }

    fn renew(&self, lease: LeaseId) -> Answer<'_, ()> {
        (**self).renew(lease)
    }

    fn release(&self, lease: LeaseId) -> Answer<'_, ()> {
        (**self).release(lease)
    }
}

/// The changes under one prefix, in the order of their revisions, each once.
pub trait Watch: Send + std::fmt::Debug {
    /// The next changes. Waits for them.
    fn next(&mut self) -> Answer<'_, Batch>;
}
