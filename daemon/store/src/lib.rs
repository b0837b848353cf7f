//! What outlives the process: an ordered key-value space with revisions, compare-and-set transactions, leases and
//! watches. [`Store`] is the seam: SQLite stands behind it on one machine, and a cluster's engine may stand behind it as
//! well.
//!
//! Keys are bytes in lexical order. Each commit that changes something raises the revision by one, and an entry knows
//! the revisions at which it was created and last changed.
//!
//! No request waits for a store. The daemon reads tables in memory, and a [`Watch`] keeps them up to date.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod sqlite;
mod store;

pub use self::sqlite::Sqlite;
pub use self::store::{
    Answer, Batch, Change, Condition, Entry, Event, LeaseId, Listing, Outcome, Revision, Store, StoreError,
    Transaction, Watch,
};
