//! Watches.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Open, bytes, change, delete, next, put, text};
use crate::{Batch, Event, Revision, StoreError};

/// How many parties write at once, and how much each of them.
const WRITERS: usize = 6;
const WRITES: usize = 60;

/// A watch sees the changes of its prefix from its revision on, each revision as one batch.
pub async fn watches_follow_from_a_revision(open: Open<'_>) {
    let store = open();
    change(&*store, vec![put("k/a", "1"), put("k/b", "1"), put("other", "1")]).await;
    let from = change(&*store, vec![put("k/b", "2")]).await;
    let mut whole = store.watch(bytes(""), Revision(1)).await.unwrap();
    let mut late = open().watch(bytes("k/"), from).await.unwrap();
    change(&*store, vec![put("other", "2")]).await;
    let last = change(&*store, vec![delete("k/a"), put("k/c", "3")]).await;
    assert_eq!(seen(&next(&mut *late).await), (2, vec!["k/b=2".to_owned()]));
    assert_eq!(seen(&next(&mut *late).await), (last.0, vec!["-k/a".to_owned(), "k/c=3".to_owned()]));
    for expected in 1..=last.0 {
        assert_eq!(next(&mut *whole).await.revision.0, expected);
    }
    // Nothing else comes.
    assert!(timeout(Duration::from_millis(50), late.next()).await.is_err());
    let listing = store.list(bytes("k/")).await.unwrap();
    change(&*open(), vec![put("k/d", "4")]).await;
    let mut after = store.watch(bytes("k/"), Revision(listing.revision.0 + 1)).await.unwrap();
    assert_eq!(seen(&next(&mut *after).await).1, ["k/d=4"]);
}

fn seen(batch: &Batch) -> (u64, Vec<String>) {
    let event = |event: &Event| match event {
        Event::Put(entry) => format!("{}={}", text(&entry.key), text(&entry.value)),
        Event::Delete(key) => format!("-{}", text(key)),
    };
    (batch.revision.0, batch.events.iter().map(event).collect())
}

/// While many write through several handles, every watch sees every change once and in order.
pub async fn watches_miss_and_repeat_nothing(open: Open<'_>) {
    let mut watches = JoinSet::new();
    for late in [0, 0, WRITES / 2] {
        let store = open();
        watches.spawn(async move {
            while store.list(bytes("w/")).await.unwrap().entries.len() < late {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut watch = store.watch(bytes("w/"), Revision(1)).await.unwrap();
            drop(store);
            let mut revisions = Vec::new();
            let mut keys = Vec::new();
            while keys.len() < WRITERS * WRITES {
                let batch = next(&mut *watch).await;
                revisions.push(batch.revision);
                keys.extend(batch.events.iter().map(|event| match event {
                    Event::Put(entry) => {
                        assert_eq!(entry.modified, batch.revision);
                        text(&entry.key)
                    }
                    Event::Delete(key) => panic!("{key:?} was not deleted"),
                }));
            }
            assert!(revisions.is_sorted() && revisions.windows(2).all(|pair| pair.first() != pair.last()));
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), WRITERS * WRITES);
        });
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = open();
        writers.spawn(async move {
            for number in 0..WRITES {
                let key = format!("w/{writer}/{number:03}");
                change(&*store, vec![put(&key, "x"), put(&format!("other/{writer}"), "y")]).await;
            }
        });
    }
    writers.join_all().await;
    watches.join_all().await;
}

/// A wait that its caller gives up costs no change.
pub async fn watches_survive_abandoned_waits(open: Open<'_>) {
    let store = open();
    let mut watch = store.watch(bytes("k"), Revision(1)).await.unwrap();
    for round in 1..=20 {
        let _given_up = timeout(Duration::from_micros(200), watch.next()).await;
        let (store, value) = (open(), round.to_string());
        let writer = tokio::spawn(async move { change(&*store, vec![put("k", &value)]).await });
        let batch = loop {
            if let Ok(batch) = timeout(Duration::from_millis(1), watch.next()).await {
                break batch.unwrap();
            }
        };
        assert_eq!(batch.revision, writer.await.unwrap());
    }
}

/// Once more than `kept` revisions have come, the oldest are compacted: a watch hears so, old or new, and one from the
/// present state works.
pub async fn old_revisions_are_compacted(open: Open<'_>, kept: usize) {
    let store = open();
    let mut behind = store.watch(bytes(""), Revision(1)).await.unwrap();
    for _ in 0..=kept {
        change(&*store, vec![put("k", "x")]).await;
    }
    assert_eq!(behind.next().await.unwrap_err(), StoreError::Compacted);
    assert_eq!(store.watch(bytes(""), Revision(1)).await.unwrap_err(), StoreError::Compacted);
    let from = Revision(store.list(bytes("")).await.unwrap().revision.0 + 1);
    let mut watch = store.watch(bytes(""), from).await.unwrap();
    change(&*store, vec![put("k", "y")]).await;
    assert_eq!(next(&mut *watch).await.revision, from);
    // One that waits is not behind, however much of others changes.
    let mut waiting = store.watch(bytes("mine"), Revision(from.0 + 1)).await.unwrap();
    let wait = tokio::spawn(async move { next(&mut *waiting).await });
    for _ in 0..=kept {
        change(&*store, vec![put("k", "x")]).await;
        tokio::task::yield_now().await;
    }
    let last = change(&*store, vec![put("mine", "x")]).await;
    assert_eq!(wait.await.unwrap().revision, last);
}
