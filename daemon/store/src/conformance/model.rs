//! Random transactions against a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{next, when};
use crate::{Batch, Change, Condition, Entry, Event, Outcome, Revision, Store};

/// How many histories are tried, and how long each is at most.
const HISTORIES: u32 = 48;
const STEPS: usize = 24;

fn key() -> impl Strategy<Value = Bytes> {
    // Few and close to each other, so that they meet.
    proptest::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(255)], 0..3).prop_map(Bytes::from)
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        key().prop_map(Condition::Exists),
        key().prop_map(Condition::Absent),
        (key(), 0..10u64).prop_map(|(key, revision)| Condition::Unchanged(key, Revision(revision))),
    ]
}

/// A transaction. Keys without a value are deleted.
#[derive(Clone, Debug)]
struct Step {
    conditions: Vec<Condition>,
    changes: BTreeMap<Bytes, Option<u8>>,
}

fn step() -> impl Strategy<Value = Step> {
    let changes = proptest::collection::btree_map(key(), any::<Option<u8>>(), 0..4);
    (proptest::collection::vec(condition(), 0..2), changes)
        .prop_map(|(conditions, changes)| Step { conditions, changes })
}

/// Behaves as a map does, whatever comes: answers, listings of every prefix, and what a watch sees. `fresh` makes an empty
/// space. It runs on `runtime`.
pub fn behaves_like_a_map(runtime: &tokio::runtime::Runtime, fresh: &dyn Fn() -> Box<dyn Store>) {
    let mut runner = TestRunner::new(Config { cases: HISTORIES, failure_persistence: None, ..Config::default() });
    let histories = (proptest::collection::vec(step(), 1..STEPS), key());
    let result = runner.run(&histories, |(steps, prefix)| {
        runtime.block_on(check(&*fresh(), steps, prefix));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn check(store: &dyn Store, steps: Vec<Step>, prefix: Bytes) {
    let mut map = BTreeMap::<Bytes, Entry>::new();
    let (mut revision, mut history) = (Revision(0), Vec::new());
    for Step { conditions, changes } in steps {
        let holds = conditions.iter().all(|condition| match condition {
            Condition::Exists(key) => map.contains_key(key),
            Condition::Absent(key) => !map.contains_key(key),
            Condition::Unchanged(key, since) => map.get(key).is_some_and(|entry| entry.modified == *since),
        });
        let mut events = Vec::new();
        let to = Revision(revision.0 + 1);
        for (key, value) in changes.iter().filter(|_| holds) {
            let before = map.remove(key);
            if let Some(value) = value {
                let created = before.map_or(to, |entry| entry.created);
                let value = Bytes::copy_from_slice(&[*value]);
                let entry = Entry { key: key.clone(), value, created, modified: to, lease: None };
                map.insert(key.clone(), entry.clone());
                events.push(Event::Put(entry));
            } else if before.is_some() {
                events.push(Event::Delete(key.clone()));
            }
        }
        if !events.is_empty() {
            revision = to;
            history.push(Batch { revision, events });
        }
        let wanted = changes.into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, Bytes::copy_from_slice(&[value]), None),
            None => Change::Delete(key),
        });
        let expected = if holds { Outcome::Committed(revision) } else { Outcome::Conflict };
        assert_eq!(store.commit(when(conditions, wanted.collect())).await.unwrap(), expected);
        let listing = store.list(prefix.clone()).await.unwrap();
        let entries: Vec<_> = map.values().filter(|entry| entry.key.starts_with(&prefix)).cloned().collect();
        assert_eq!((listing.revision, listing.entries), (revision, entries));
    }
    let mut watch = store.watch(prefix.clone(), Revision(1)).await.unwrap();
    for Batch { revision, events } in history {
        let mine = |event: &Event| match event {
            Event::Put(entry) => entry.key.starts_with(&prefix),
            Event::Delete(key) => key.starts_with(&prefix),
        };
        let events: Vec<_> = events.into_iter().filter(mine).collect();
        if !events.is_empty() {
            assert_eq!(next(&mut *watch).await, Batch { revision, events });
        }
    }
}
