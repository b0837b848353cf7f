//! Listing and transactions.

use std::collections::HashSet;

use super::{Open, bytes, change, delete, listed, put, when};
use crate::{Condition, Outcome, Revision, StoreError};

/// How many parties race, and how often each of them wins.
const RACERS: usize = 8;
const WINS: u64 = 25;

/// Entries come in the order of their keys, those of a prefix alone, with their revisions.
pub async fn lists_prefixes_in_order(open: Open<'_>) {
    let store = open();
    assert_eq!(store.list(bytes("")).await.unwrap().revision, Revision(0));
    let names = ["b/2", "a", "b/", "b/10", "c", "b0", "b/\u{ff}", "b"];
    change(&*store, names.iter().map(|name| put(name, "x")).collect()).await;
    let keys = |entries: Vec<(String, String)>| entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(listed(&*store, "b/").await), ["b/", "b/10", "b/2", "b/\u{ff}"]);
    assert_eq!(keys(listed(&*store, "").await), ["a", "b", "b/", "b/10", "b/2", "b/\u{ff}", "b0", "c"]);
    assert!(listed(&*store, "d").await.is_empty());
    let last = change(&*store, vec![put("b", "y")]).await;
    let listing = open().list(bytes("b")).await.unwrap();
    assert_eq!(listing.revision, last);
    let entry = listing.entries.first().unwrap();
    assert_eq!((&entry.value[..], entry.created, entry.modified), (&b"y"[..], Revision(1), last));
    // Keys and values are bytes, not text, and may be empty.
    let odd = bytes::Bytes::from_static(b"\xff\x00\xff");
    let change_of_odd = crate::Change::Put(odd.clone(), bytes(""), None);
    change(&*store, vec![change_of_odd, put("", "empty")]).await;
    assert_eq!(store.list(odd.clone()).await.unwrap().entries.first().unwrap().key, odd);
    assert_eq!(listed(&*store, "a").await.len() + 9, store.list(bytes("")).await.unwrap().entries.len());
}

/// Each commit that changes something has the next revision, and others none.
pub async fn raises_the_revision_with_each_change(open: Open<'_>) {
    let store = open();
    for expected in 1..=3 {
        assert_eq!(change(&*store, vec![put("a", "1"), put("b", "2")]).await, Revision(expected));
    }
    assert_eq!(change(&*store, Vec::new()).await, Revision(3));
    assert_eq!(change(&*store, vec![delete("nothing")]).await, Revision(3));
    assert_eq!(change(&*store, vec![delete("a")]).await, Revision(4));
    assert_eq!(change(&*store, vec![put("a", "3")]).await, Revision(5));
    let entries = open().list(bytes("a")).await.unwrap().entries;
    let entry = entries.first().unwrap();
    assert_eq!(
        (entry.created, entry.modified),
        (Revision(5), Revision(5)),
        "a key that was deleted has a new beginning"
    );
}

/// A transaction whose conditions do not all hold changes nothing.
pub async fn transactions_are_all_or_nothing(open: Open<'_>) {
    let store = open();
    let first = change(&*store, vec![put("a", "1")]).await;
    let second = change(&*store, vec![put("a", "2")]).await;
    let (exists, absent) = (|key| Condition::Exists(bytes(key)), |key| Condition::Absent(bytes(key)));
    let unchanged = |key, since| Condition::Unchanged(bytes(key), since);
    for (conditions, holds) in [
        (vec![], true),
        (vec![exists("a")], true),
        (vec![exists("b")], false),
        (vec![absent("b")], true),
        (vec![absent("a")], false),
        (vec![unchanged("a", second)], true),
        (vec![unchanged("a", first)], false),
        (vec![unchanged("b", Revision(0))], false),
        (vec![exists("a"), absent("b"), unchanged("a", second)], true),
        (vec![exists("a"), absent("b"), unchanged("a", first)], false),
    ] {
        let before = store.list(bytes("")).await.unwrap();
        let outcome = store.commit(when(conditions.clone(), vec![put("x", "1"), put("y", "1")])).await.unwrap();
        assert_eq!(outcome != Outcome::Conflict, holds, "{conditions:?}");
        if holds {
            change(&*store, vec![delete("x"), delete("y")]).await;
        } else {
            assert_eq!(store.list(bytes("")).await.unwrap(), before, "{conditions:?}");
        }
    }
}

/// Of transactions that race for one revision, exactly one is carried out.
pub async fn of_racing_transactions_one_wins(open: Open<'_>) {
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..RACERS {
        let store = open();
        racers.spawn(async move {
            let mut won = Vec::new();
            while won.len() < WINS as usize {
                let entries = store.list(bytes("counter")).await.unwrap().entries;
                let (count, condition) = match entries.first() {
                    Some(entry) => (
                        super::text(&entry.value).parse::<u64>().unwrap(),
                        Condition::Unchanged(bytes("counter"), entry.modified),
                    ),
                    None => (0, Condition::Absent(bytes("counter"))),
                };
                let wanted = when(vec![condition], vec![put("counter", &(count + 1).to_string())]);
                if let Outcome::Committed(revision) = store.commit(wanted).await.unwrap() {
                    won.push(revision);
                }
            }
            won
        });
    }
    let revisions: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    let wins = RACERS as u64 * WINS;
    assert_eq!(revisions.iter().collect::<HashSet<_>>().len() as u64, wins, "no revision has two winners");
    let listing = open().list(bytes("counter")).await.unwrap();
    assert_eq!(
        (listing.revision, &listing.entries.first().unwrap().value[..]),
        (Revision(wins), wins.to_string().as_bytes())
    );
}

/// A transaction that changes a key twice changes nothing.
pub async fn refuses_nonsense(open: Open<'_>) {
    let store = open();
    for changes in [vec![put("a", "1"), put("a", "2")], vec![put("a", "1"), delete("a")]] {
        let refused = store.commit(when(Vec::new(), changes)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(store.list(bytes("")).await.unwrap().revision, Revision(0));
}
