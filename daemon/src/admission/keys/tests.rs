use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::record::{Previous, StoredKey};
use super::*;
use crate::admission::KeyLimits;
use crate::names::{KeyDigest, Subdomain, SubdomainPattern};

const SECOND: Duration = Duration::from_secs(1);

fn record(name: &str, secret: &str, expires: Option<SystemTime>) -> KeyRecord {
    KeyRecord {
        id: name.into(),
        name: name.into(),
        digest: KeyDigest::of(secret),
        subdomains: vec![SubdomainPattern::parse("demo-*").unwrap()],
        limits: KeyLimits { tunnels: 1, ..KeyLimits::default() },
        expires,
    }
}

fn stored(record: KeyRecord) -> StoredKey {
    StoredKey { record, created: SystemTime::now(), revoked: None, previous: None }
}

#[test]
fn only_valid_keys_pass() {
    let now = SystemTime::now();
    let expired = record("old", "secret-old", Some(now));
    let store = KeyStore::new(vec![expired, record("new", "secret-new", Some(now + SECOND))]);
    assert!(store.authenticate("secret-old", now).is_none());
    assert!(store.authenticate("", now).is_none());
    assert!(store.authenticate("secret-new", now + SECOND).is_none());
    let key = store.authenticate("secret-new", now).unwrap().record().unwrap();
    assert_eq!(&*key.name, "new");
    assert!(key.suggestions(&filler(&[7; 32])).iter().all(|name| key.may_use(name)));
}

#[test]
fn a_stored_key_is_found_by_its_id_and_only_with_its_secret() {
    let (id, now) = ("abcdefghij01", SystemTime::now());
    let store = KeyStore::default();
    let key = format!("cok_{id}_se_cret");
    store.change_stored(vec![(id.into(), Some(stored(record(id, &key, None))))]);
    assert!(store.authenticate(&key, now).is_some());
    for wrong in ["cok_abcdefghij01_se", "cok_abcdefghij02_se_cret", "cok_abcdefghij01_", "abcdefghij01", "", "cok_"] {
        assert!(store.authenticate(wrong, now).is_none(), "{wrong}");
    }
}

#[test]
fn a_key_of_the_configuration_may_look_like_a_stored_one() {
    let key = "cok_abcdefghij01_secret";
    let store = KeyStore::new(vec![record("laptop", key, None)]);
    assert_eq!(&*store.authenticate(key, SystemTime::now()).unwrap().record().unwrap().id, "laptop");
    // Its id stays its own, even if the store has the same one.
    let other = "cok_abcdefghij02_secret";
    let store = KeyStore::new(vec![record("abcdefghij02", key, None)]);
    store.change_stored(vec![("abcdefghij02".into(), Some(stored(record("abcdefghij02", other, None))))]);
    assert!(store.authenticate(key, SystemTime::now()).is_some());
    assert!(store.authenticate(other, SystemTime::now()).is_none());
}

/// Whether a grant notices a change by now.
fn notices(grant: &mut Grant) -> bool {
    use std::task::{Context, Poll, Waker};
    let changed = std::pin::pin!(grant.changed());
    changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[test]
fn a_session_notices_what_becomes_of_its_key_alone() {
    let now = SystemTime::now();
    let store = KeyStore::new(vec![record("a", "a", None), record("b", "b", None)]);
    let (mut a, mut b) = (store.authenticate("a", now).unwrap(), store.authenticate("b", now).unwrap());
    let narrowed = KeyRecord { subdomains: vec![SubdomainPattern::parse("demo-1").unwrap()], ..record("a", "a", None) };
    store.replace(vec![narrowed, record("b", "b", None)]);
    assert!(notices(&mut a) && !notices(&mut b) && !notices(&mut a));
    assert!(!a.record().unwrap().may_use(&Subdomain::parse("demo-2").unwrap()));
    store.replace(vec![record("b", "b", None)]);
    assert!(notices(&mut a) && a.record().is_none() && !notices(&mut b));
    // The same name with another secret is another key.
    store.replace(vec![record("b", "another", None)]);
    assert!(notices(&mut b) && b.record().is_none());
    // A key that comes back is none of the ended session's.
    store.replace(vec![record("a", "a", None)]);
    assert!(!notices(&mut a) && a.record().is_none());
}

#[test]
fn stored_keys_end_when_they_are_revoked_or_deleted() {
    let now = SystemTime::now();
    let store = KeyStore::default();
    let (id, text) = (|name: &str| Arc::<str>::from(name), |id: &str| format!("cok_{id}_s"));
    let key = |id: &str| stored(record(id, &text(id), None));
    let ids = ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"];
    store.expect_stored();
    assert!(!store.is_complete());
    store.replace_stored(ids.iter().map(|one| (id(one), key(one))).collect());
    assert!(store.is_complete());
    let mut grants = ids.map(|id| store.authenticate(&text(id), now).unwrap());
    store.change_stored(vec![(id(ids[0]), Some(StoredKey { revoked: Some(now), ..key(ids[0]) })), (id(ids[1]), None)]);
    assert!(notices(&mut grants[0]) && notices(&mut grants[1]) && !notices(&mut grants[2]));
    assert_eq!(grants.each_ref().map(|grant| grant.record().is_some()), [false, false, true]);
    assert!(store.authenticate(&text(ids[0]), now).is_none() && store.authenticate(&text(ids[1]), now).is_none());
    store.replace_stored(HashMap::new());
    assert!(notices(&mut grants[2]) && grants[2].record().is_none());
}

#[test]
fn the_earlier_secret_works_until_its_end() {
    let now = SystemTime::now();
    let store = KeyStore::default();
    let (id, old, new) = ("abcdefghij01", "cok_abcdefghij01_old", "cok_abcdefghij01_new");
    store.change_stored(vec![(id.into(), Some(stored(record(id, old, None))))]);
    let mut session = store.authenticate(old, now).unwrap();
    let previous = Previous { digest: KeyDigest::of(old), until: now + 60 * SECOND };
    let rotated = StoredKey { previous: Some(previous), ..stored(record(id, new, None)) };
    store.change_stored(vec![(id.into(), Some(rotated))]);
    assert!(store.authenticate(new, now).is_some() && store.authenticate(old, now).is_some());
    assert!(notices(&mut session) && session.record().is_some());
    store.check_clock(now + 60 * SECOND);
    assert!(notices(&mut session) && session.record().is_none());
    assert!(store.authenticate(new, now).is_some() && store.authenticate(old, now).is_none());
}

#[test]
fn the_clock_ends_keys_however_it_is_set() {
    let now = SystemTime::now();
    let store = KeyStore::new(vec![record("a", "a", Some(now + 3600 * SECOND)), record("b", "b", None)]);
    let (mut a, mut b) = (store.authenticate("a", now).unwrap(), store.authenticate("b", now).unwrap());
    store.check_clock(now + 3599 * SECOND);
    assert!(!notices(&mut a));
    store.check_clock(now + 3600 * SECOND);
    assert!(notices(&mut a) && a.record().is_none() && !notices(&mut b));
    // A clock that is set back makes the key valid again, for new sessions.
    store.check_clock(now);
    assert!(store.authenticate("a", now).is_some() && a.record().is_none());
}
