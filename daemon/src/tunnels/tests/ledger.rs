use cok_store::sqlite::Settings;
use cok_store::{Answer, LeaseId, Listing, Outcome, Revision, Sqlite, Watch};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::tunnels::directory::Retention;

const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

fn directory() -> Arc<Directory> {
    Directory::new(Retention { time: 60 * MINUTE, per_key: 1000 })
}

fn ledger(store: &Arc<Sqlite>) -> Ledger {
    Ledger::new(store.clone(), store.path().to_owned(), store.troubles())
}

fn name(name: &str) -> Subdomain {
    Subdomain::parse(name).unwrap()
}

fn owner() -> Owner {
    Owner { key: "laptop".into(), instance: "1".to_owned() }
}

async fn rows(store: &dyn Store) -> Vec<String> {
    let entries = store.list(PREFIX.into()).await.unwrap().entries;
    entries.iter().map(|entry| String::from_utf8(entry.key[PREFIX.len()..].to_vec()).unwrap()).collect()
}

/// Waits until the store has these names.
async fn until(store: &dyn Store, wanted: &[&str]) {
    let wait = async {
        while store.list(PREFIX.into()).await.is_err() || rows(store).await != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it takes too long");
}

#[tokio::test]
async fn names_outlive_the_process_and_damaged_rows_cost_only_themselves() {
    let folder = TempDir::new().unwrap();
    let store = Sqlite::open(folder.path().join("state/store.db"));
    let ledger = ledger(&store);
    let (before, after) = (directory(), directory());
    assert!(ledger.read_into(&before).await.unwrap().is_empty());
    for (label, age) in [("new", Duration::ZERO), ("old", 30 * MINUTE), ("older", 59 * MINUTE)] {
        assert!(before.remember(name(label), owner(), age, 0));
    }
    before.save_all();
    ledger.write_all(&before).await.unwrap();
    let put = |key: &str, row: &str| Change::Put(format!("{PREFIX}{key}").into(), row.to_owned().into(), None);
    let odd = vec![put("a.b", "{\"key\": \"k\", \"instance\": \"i\"}"), put("text", "no JSON"), put("less", "{}")];
    store.commit(Transaction { conditions: Vec::new(), changes: odd }).await.unwrap();
    let on = put("on", "{\"key\": \"k\", \"instance\": \"i\", \"more\": \"of a later version\"}");
    let gone = put("gone", "{\"key\": \"k\", \"instance\": \"i\", \"away_since\": 1}");
    store.commit(Transaction { conditions: Vec::new(), changes: vec![on, gone] }).await.unwrap();

    assert_eq!(ledger.read_into(&after).await.unwrap(), [name("on")]);
    let away_for = |label| after.entry(&name(label)).map(|entry| entry.away_for.unwrap());
    assert!(away_for("old").is_some_and(|time| time >= 30 * MINUTE && time < 31 * MINUTE));
    assert!(away_for("on").is_some_and(|time| time < MINUTE) && away_for("gone").is_none());
    assert_eq!(after.entry(&name("new")).unwrap().owner, owner());
    // What is too old goes there, too.
    ledger.write_all(&after).await.unwrap();
    assert_eq!(rows(&*store).await, ["a.b", "less", "new", "old", "older", "on", "text"]);
}

#[tokio::test]
async fn only_names_that_changed_are_written() {
    let folder = TempDir::new().unwrap();
    let store = Sqlite::open(folder.path().join("store.db"));
    let ledger = ledger(&store);
    let directory = directory();
    for number in 0..2 * BATCH {
        directory.remember(name(&format!("n{number}")), owner(), Duration::ZERO, 0);
    }
    directory.save_all();
    ledger.write_all(&directory).await.unwrap();
    let listing = store.list(PREFIX.into()).await.unwrap();
    assert_eq!((listing.entries.len(), listing.revision), (2 * BATCH, Revision(2)));
    directory.remember(name("another"), owner(), Duration::ZERO, 0);
    directory.save_away(&[name("another"), name("n1"), name("unknown")]);
    ledger.write_all(&directory).await.unwrap();
    let changed = store.list(PREFIX.into()).await.unwrap().entries.into_iter().filter(|entry| entry.modified.0 > 2);
    assert!(changed.map(|entry| entry.key).all(|key| [&b"names/another"[..], b"names/n1"].contains(&&key[..])));
    ledger.write_all(&directory).await.unwrap();
    assert!(directory.unsaved(1).is_none());
}

/// A store whose answers are lost after it was asked to commit.
#[derive(Debug)]
struct Lossy {
    store: Arc<Sqlite>,
    lose: Mutex<bool>,
}

impl Store for Lossy {
    fn list(&self, prefix: Bytes) -> Answer<'_, Listing> {
        self.store.list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Outcome> {
        let lost = std::mem::take(&mut *self.lose.lock());
        Box::pin(async move {
            let outcome = self.store.commit(transaction).await;
            if lost { Err(StoreError::Unknown("lost".to_owned())) } else { outcome }
        })
    }

    fn watch(&self, prefix: Bytes, from: Revision) -> Answer<'_, Box<dyn Watch>> {
        self.store.watch(prefix, from)
    }

    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId> {
        self.store.grant(time_to_live)
    }

    fn renew(&self, lease: LeaseId) -> Answer<'_, ()> {
        self.store.renew(lease)
    }

    fn release(&self, lease: LeaseId) -> Answer<'_, ()> {
        self.store.release(lease)
    }
}

#[tokio::test]
async fn what_may_not_be_saved_is_written_again() {
    let folder = TempDir::new().unwrap();
    let store = Sqlite::open(folder.path().join("store.db"));
    let lossy = Lossy { store: store.clone(), lose: Mutex::new(true) };
    let ledger = Ledger::new(Arc::new(lossy), store.path().to_owned(), store.troubles());
    let directory = directory();
    directory.remember(name("a"), owner(), Duration::ZERO, 0);
    directory.save_all();
    assert!(matches!(ledger.write_all(&directory).await, Err(StoreError::Unknown(_))));
    ledger.write_all(&directory).await.unwrap();
    assert_eq!(store.list(PREFIX.into()).await.unwrap().entries[0].modified, Revision(2));
    // A writer that is dropped has lost nothing either.
    directory.save_all();
    drop(directory.unsaved(BATCH));
    assert!(directory.unsaved(BATCH).is_some());
}

#[tokio::test]
async fn names_are_written_once_a_store_that_failed_works() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let tunnels = crate::tunnels::tests::tunnels();
    // Damaged at the start: nothing is restored, and nothing overwritten.
    let sound = Sqlite::open(&path);
    let row = Change::Put("names/before".into(), "{\"key\": \"k\", \"instance\": \"i\"}".into(), None);
    sound.commit(Transaction { conditions: Vec::new(), changes: vec![row] }).await.unwrap();
    drop(sound);
    while folder.path().join("store.db-wal").exists() {
        sleep(Duration::from_millis(1)).await;
    }
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, "damaged").unwrap();
    let store = Sqlite::open_with(&path, Settings::default());
    let ledger = ledger(&store);
    let restored = ledger.restore(&tunnels).await;
    assert!(restored.online.is_empty() && !restored.complete);
    let following = tokio::spawn(ledger.clone().follow(tunnels.clone(), restored));
    tunnels.directory.remember(name("meanwhile"), owner(), Duration::ZERO, 0);
    std::fs::write(&path, &bytes).unwrap();
    until(&*store, &["before", "meanwhile"]).await;
    assert!(tunnels.find(&name("before")).is_some(), "restored late");

    // Away while it runs.
    let away = folder.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    tunnels.directory.remember(name("third"), owner(), Duration::ZERO, 0);
    tunnels.directory.save_away(&[name("third")]);
    let mut troubles = store.troubles();
    timeout(PATIENCE, troubles.wait_for(Option::is_some)).await.unwrap().unwrap();
    std::fs::rename(&away, &path).unwrap();
    until(&*store, &["before", "meanwhile", "third"]).await;
    following.abort();
}
