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
    store.change_stored(vec![(id.into(), Some(stored(record(id, &key, None))))], Revision(1));
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
    store.change_stored(vec![("abcdefghij02".into(), Some(stored(record("abcdefghij02", other, None))))], Revision(1));
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
    store.replace_stored(ids.iter().map(|one| (id(one), key(one))).collect(), Revision(1));
    assert!(store.is_complete());
    let mut grants = ids.map(|id| store.authenticate(&text(id), now).unwrap());
    store.change_stored(
        vec![(id(ids[0]), Some(StoredKey { revoked: Some(now), ..key(ids[0]) })), (id(ids[1]), None)],
        Revision(1),
    );
    assert!(notices(&mut grants[0]) && notices(&mut grants[1]) && !notices(&mut grants[2]));
    assert_eq!(grants.each_ref().map(|grant| grant.record().is_some()), [false, false, true]);
    assert!(store.authenticate(&text(ids[0]), now).is_none() && store.authenticate(&text(ids[1]), now).is_none());
    store.replace_stored(HashMap::new(), Revision(1));
    assert!(notices(&mut grants[2]) && grants[2].record().is_none());
}

#[test]
fn the_earlier_secret_works_until_its_end() {
    let now = SystemTime::now();
    let store = KeyStore::default();
    let (id, old, new) = ("abcdefghij01", "cok_abcdefghij01_old", "cok_abcdefghij01_new");
    store.change_stored(vec![(id.into(), Some(stored(record(id, old, None))))], Revision(1));
    let mut session = store.authenticate(old, now).unwrap();
    let previous = Previous { digest: KeyDigest::of(old), until: now + 60 * SECOND };
    let rotated = StoredKey { previous: Some(previous), ..stored(record(id, new, None)) };
    store.change_stored(vec![(id.into(), Some(rotated))], Revision(1));
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

// ---- the store ----

use cok_store::{Change, Revision, Sqlite, Store, Transaction};

use super::wire::{Changes, Rotation, Setting, Source, State};

/// A table that follows a store, and a folder for that.
struct Following {
    table: Arc<KeyStore>,
    store: Arc<Sqlite>,
    _folder: tempfile::TempDir,
}

impl Following {
    async fn new(configured: Vec<KeyRecord>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(folder.path().join("store.db"));
        let table = Arc::new(KeyStore::new(configured));
        table.expect_stored();
        let (following, followed) = (table.clone(), store.clone());
        tokio::spawn(async move { following.follow(&*followed).await });
        tokio::time::timeout(20 * SECOND, table.completed()).await.unwrap();
        Self { table, store, _folder: folder }
    }

    fn book(&self) -> KeyBook<'_> {
        KeyBook { store: &*self.store, configured: self.table.configured(), table: Some(&self.table) }
    }

    /// Waits until a key works, or no longer does.
    async fn until(&self, key: &str, works: bool) {
        let wait = async {
            while self.table.authenticate(key, SystemTime::now()).is_some() != works {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(20 * SECOND, wait).await.unwrap_or_else(|_| panic!("a key that should work: {works}"));
    }
}

fn named(name: &str) -> Changes {
    Changes { name: Some(name.to_owned()), ..Changes::default() }
}

#[tokio::test]
async fn a_key_lives_in_the_store_from_its_making_to_its_revocation() {
    let keys = Following::new(Vec::new()).await;
    let made = keys.book().create(&named("laptop")).await.unwrap();
    assert!(made.secret.starts_with(&format!("cok_{}_", made.key.id)) && made.secret.len() == 4 + 12 + 1 + 43);
    // What is answered is in effect.
    let mut grant = keys.table.authenticate(&made.secret, SystemTime::now()).unwrap();
    // Nothing of the secret is in the file.
    let rows = keys.store.list("keys/".into()).await.unwrap().entries;
    let secret = &made.secret["cok_abcdefghij01_".len()..];
    assert!(rows.len() == 1 && !String::from_utf8_lossy(&rows[0].value).contains(secret));

    let narrowed = Changes { subdomains: Some(vec!["web".to_owned()]), max_tunnels: Some(2), ..Changes::default() };
    keys.book().edit("laptop", &narrowed).await.unwrap();
    assert!(notices(&mut grant));
    let record = grant.record().unwrap();
    assert!(record.limits.tunnels == 2 && !record.may_use(&Subdomain::parse("demo").unwrap()));

    let rotated = keys.book().rotate(&made.key.id, Rotation::default()).await.unwrap();
    keys.until(&rotated.secret, true).await;
    keys.until(&made.secret, false).await;
    let graceful = keys.book().rotate(&made.key.id, Rotation { grace_seconds: 3600 }).await.unwrap();
    keys.until(&graceful.secret, true).await;
    keys.until(&rotated.secret, true).await;
    assert!(graceful.key.earlier_secret_until.is_some());

    let revoked = keys.book().revoke("laptop").await.unwrap();
    assert_eq!((revoked.state, keys.book().revoke("laptop").await.unwrap()), (State::Revoked, revoked.clone()));
    keys.until(&graceful.secret, false).await;
    keys.until(&rotated.secret, false).await;
    let error = keys.book().edit("laptop", &narrowed).await.unwrap_err();
    assert!(matches!(error, KeyError::Revoked { .. }) && error.is_mistake());
    assert!(matches!(keys.book().rotate(&revoked.id, Rotation::default()).await, Err(KeyError::Revoked { .. })));
    // Its name is free again.
    let second = keys.book().create(&named("laptop")).await.unwrap();
    assert_eq!(keys.book().show("laptop").await.unwrap().id, second.key.id);
    assert_eq!(keys.book().list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn keys_of_the_configuration_are_shown_but_not_changed() {
    let keys = Following::new(vec![record("laptop", "secret", None)]).await;
    let view = keys.book().show("laptop").await.unwrap();
    assert_eq!((view.source, view.state, view.id.as_str()), (Source::Configuration, State::Valid, "laptop"));
    let book = keys.book();
    let refused = [
        book.edit("laptop", &Changes::default()).await.unwrap_err(),
        book.revoke("laptop").await.unwrap_err(),
        book.rotate("laptop", Rotation::default()).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|error| matches!(error, KeyError::Configured { .. })));
    assert!(matches!(book.create(&named("laptop")).await, Err(KeyError::NameTaken { .. })));
    assert!(matches!(book.show("other").await, Err(KeyError::NotFound { .. })));
}

#[tokio::test]
async fn only_a_key_that_has_ended_is_deleted() {
    let keys = Following::new(vec![record("fixed", "secret", None)]).await;
    let book = keys.book();
    let (live, dead) = (book.create(&named("one")).await.unwrap().key, book.create(&named("two")).await.unwrap().key);
    assert_eq!(book.delete("one").await, Err(KeyError::Live { id: live.id.clone() }));
    assert!(matches!(book.delete("fixed").await, Err(KeyError::Configured { .. })));
    assert!(matches!(book.delete("three").await, Err(KeyError::NotFound { .. })));
    let soon = wire::Moment(SystemTime::now() + SECOND);
    book.edit("one", &Changes { expires: Setting::Is(soon), ..Changes::default() }).await.unwrap();
    book.revoke("two").await.unwrap();
    book.delete("two").await.unwrap();
    assert!(matches!(book.show(&dead.id).await, Err(KeyError::NotFound { .. })));
    while matches!(book.delete("one").await, Err(KeyError::Live { .. })) {
        tokio::time::sleep(SECOND / 20).await;
    }
    assert_eq!(book.list().await.unwrap().len(), 1, "the key of the configuration stays");
    book.create(&named("two")).await.unwrap();
}

#[tokio::test]
async fn wrong_values_change_nothing() {
    let keys = Following::new(Vec::new()).await;
    let book = keys.book();
    let made = book.create(&named("laptop")).await.unwrap();
    let past = Setting::Is(wire::Moment(SystemTime::now() - SECOND));
    for wrong in [
        Changes { max_tunnels: Some(0), ..Changes::default() },
        Changes { max_sessions: Some(10_001), ..Changes::default() },
        Changes { max_exchanges: Setting::Is(std::num::NonZeroU32::MAX), ..Changes::default() },
        Changes { subdomains: Some(vec!["a.b".to_owned()]), ..Changes::default() },
        Changes { subdomains: Some(Vec::new()), ..Changes::default() },
        Changes { expires: past, ..Changes::default() },
        named(""),
        named("a\nb"),
        named(&"x".repeat(65)),
    ] {
        assert!(matches!(book.edit("laptop", &wrong).await, Err(KeyError::Invalid { .. })), "{wrong:?}");
        let new = Changes { name: wrong.name.clone().or(Some("new".to_owned())), ..wrong.clone() };
        assert!(matches!(book.create(&new).await, Err(KeyError::Invalid { .. })), "{new:?}");
    }
    assert!(matches!(book.create(&Changes::default()).await, Err(KeyError::Invalid { .. })));
    assert_eq!(book.list().await.unwrap(), [made.key]);
}

#[tokio::test]
async fn changes_of_one_key_at_once_are_all_made() {
    let keys = Following::new(Vec::new()).await;
    let id = keys.book().create(&named("laptop")).await.unwrap().key.id;
    let tunnels = Changes { max_tunnels: Some(3), ..Changes::default() };
    let sessions = Changes { max_sessions: Some(4), ..Changes::default() };
    let names = Changes { subdomains: Some(vec!["web".to_owned()]), ..Changes::default() };
    let book = keys.book();
    let (a, b, c) = tokio::join!(book.edit(&id, &tunnels), book.edit(&id, &sessions), book.edit(&id, &names));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let view = book.show(&id).await.unwrap();
    assert_eq!((view.limits.max_tunnels, view.limits.max_sessions, &*view.subdomains[0]), (3, 4, "web"));
}

#[tokio::test]
async fn a_row_that_is_damaged_or_deleted_is_no_key() {
    let keys = Following::new(Vec::new()).await;
    let mut secrets = Vec::new();
    for name in ["damaged", "deleted", "kept"] {
        let made = keys.book().create(&named(name)).await.unwrap();
        keys.until(&made.secret, true).await;
        secrets.push((made.secret, row::key_of(&made.key.id)));
    }
    let damage = Change::Put(secrets[0].1.clone(), "{}".into(), None);
    let odd = Change::Put("keys/odd".into(), "{}".into(), None);
    let changes = vec![damage, Change::Delete(secrets[1].1.clone()), odd];
    keys.store.commit(Transaction { conditions: Vec::new(), changes }).await.unwrap();
    keys.until(&secrets[0].0, false).await;
    keys.until(&secrets[1].0, false).await;
    assert!(keys.table.authenticate(&secrets[2].0, SystemTime::now()).is_some());
}
