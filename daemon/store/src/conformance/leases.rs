//! Leases.

use std::time::Duration;

use tokio::time::sleep;

use super::{Open, bytes, change, listed, next, put, when};
use crate::{Change, Condition, Event, LeaseId, Outcome, Revision, Store, StoreError};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(3600);

async fn hang(store: &dyn Store, key: &str, lease: LeaseId) -> Result<Outcome, StoreError> {
    store.commit(when(Vec::new(), vec![Change::Put(bytes(key), bytes("x"), Some(lease))])).await
}

/// An entry vanishes with its lease, in one commit that watches see. An entry that was set again stays.
pub async fn ended_leases_take_their_entries(open: Open<'_>) {
    let store = open();
    let lease = store.grant(LONG).await.unwrap();
    for key in ["a", "b", "c"] {
        hang(&*store, key, lease).await.unwrap();
    }
    let from = Revision(change(&*store, vec![put("c", "free")]).await.0 + 1);
    assert_eq!(store.list(bytes("a")).await.unwrap().entries.first().unwrap().lease, Some(lease));
    let mut watch = store.watch(bytes(""), from).await.unwrap();
    store.release(lease).await.unwrap();
    let batch = next(&mut *watch).await;
    assert_eq!((batch.revision, batch.events), (from, vec![Event::Delete(bytes("a")), Event::Delete(bytes("b"))]));
    assert_eq!(listed(&*store, "").await, [("c".to_owned(), "free".to_owned())]);

    let lease = store.grant(SHORT).await.unwrap();
    hang(&*store, "d", lease).await.unwrap();
    assert_eq!(next(&mut *watch).await.revision, Revision(from.0 + 1));
    let batch = next(&mut *watch).await;
    assert_eq!(batch.events, [Event::Delete(bytes("d"))]);
    // Whatever has ended is no lease any more.
    let another = store.grant(SHORT).await.unwrap();
    assert_ne!(another, lease);
    assert_eq!(hang(&*store, "e", lease).await, Err(StoreError::NoLease));
    assert_eq!(store.renew(lease).await, Err(StoreError::NoLease));
    assert_eq!(store.release(lease).await, Err(StoreError::NoLease));
    let never = LeaseId(u64::MAX);
    assert_eq!(hang(&*store, "e", never).await, Err(StoreError::NoLease));
    // An ended lease shows in no answer, even if nothing has watched it.
    hang(&*store, "f", another).await.unwrap();
    sleep(2 * SHORT).await;
    let absent = when(vec![Condition::Absent(bytes("f"))], Vec::new());
    assert!(matches!(store.commit(absent).await, Ok(Outcome::Committed(_))));
    assert_eq!(listed(&*open(), "").await.len(), 1);
}

/// A lease that is renewed in time lives on.
pub async fn renewed_leases_stay(open: Open<'_>) {
    let store = open();
    let lease = store.grant(5 * SHORT).await.unwrap();
    hang(&*store, "a", lease).await.unwrap();
    for _ in 0..10 {
        sleep(SHORT).await;
        open().renew(lease).await.unwrap();
    }
    assert_eq!(listed(&*store, "a").await.len(), 1);
}
