//! The suite over SQLite, and what is SQLite's own: kills, full disks, damage, and files that come and go.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{Change, Event, conformance};

const PATIENCE: Duration = Duration::from_secs(60);
/// Names the file of the child that is killed.
const CHILD: &str = "COK_STORE_TEST_CHILD";

fn key(number: u64) -> Bytes {
    format!("k/{number:06}").into()
}

fn put(key: Bytes, value: impl Into<Bytes>) -> Transaction {
    Transaction { conditions: Vec::new(), changes: vec![Change::Put(key, value.into(), None)] }
}

async fn size(store: &Sqlite) -> usize {
    store.list(Bytes::new()).await.unwrap().entries.len()
}

/// Waits until the store has this trouble, or none.
async fn until(store: &Sqlite, wanted: impl Fn(&Option<StoreError>) -> bool) {
    let mut troubles = store.troubles();
    timeout(PATIENCE, troubles.wait_for(|trouble| wanted(trouble))).await.expect("it takes too long").unwrap();
}

mod suite {
    use super::*;

    /// Runs a part of the suite on a file of its own.
    macro_rules! suite {
        ($($part:ident),* $(,)?) => { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $part() {
                let folder = TempDir::new().unwrap();
                let path = folder.path().join("store.db");
                conformance::$part(&|| Box::new(Sqlite::open(&path))).await;
            }
        )* };
    }

    suite![
        ended_leases_take_their_entries,
        lists_prefixes_in_order,
        of_racing_transactions_one_wins,
        raises_the_revision_with_each_change,
        refuses_nonsense,
        renewed_leases_stay,
        transactions_are_all_or_nothing,
        watches_follow_from_a_revision,
        watches_miss_and_repeat_nothing,
        watches_survive_abandoned_waits,
    ];

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn old_revisions_are_compacted() {
        let folder = TempDir::new().unwrap();
        let (path, settings) = (folder.path().join("store.db"), Settings { kept_changes: 20, ..Settings::default() });
        conformance::old_revisions_are_compacted(&|| Box::new(Sqlite::open_with(&path, settings)), 40).await;
    }

    #[test]
    fn behaves_like_a_map() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let folder = TempDir::new().unwrap();
        let files = AtomicU64::new(0);
        conformance::behaves_like_a_map(&runtime, &|| {
            let file = folder.path().join(files.fetch_add(1, Ordering::Relaxed).to_string());
            Box::new(Sqlite::open(file))
        });
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_keeps_its_history() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state/store.db");
    let store = Sqlite::open(&path);
    for number in 0..5 {
        store.commit(put(key(number), "x")).await.unwrap();
    }
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(path.with_file_name(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(store);
    let store = Sqlite::open(&path);
    let mut watch = store.watch(Bytes::new(), Revision(3)).await.unwrap();
    for revision in 3..=5 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
    }
    assert_eq!(store.commit(put(key(9), "x")).await.unwrap(), Outcome::Committed(Revision(6)));
}

/// `cokd key` may run while the daemon begins.
#[tokio::test]
async fn those_that_begin_at_once_share_one_file() {
    for _ in 0..40 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store.db");
        let stores: Vec<_> = (0..8).map(|_| Sqlite::open(&path)).collect();
        for (number, store) in stores.iter().enumerate() {
            store.commit(put(key(number as u64), "x")).await.unwrap();
        }
        assert_eq!(size(&stores[0]).await, stores.len());
    }
}

#[tokio::test]
async fn transactions_that_wait_together_share_a_commit() {
    let folder = TempDir::new().unwrap();
    let store = Sqlite::open(folder.path().join("store.db"));
    assert_eq!(size(&store).await, 0);
    let commits: Vec<_> = (0..500).map(|number| store.commit(put(key(number), "x"))).collect();
    let mut revisions = Vec::new();
    for outcome in futures_of(commits).await {
        match outcome.unwrap() {
            Outcome::Committed(revision) => revisions.push(revision.0),
            Outcome::Conflict => panic!("there is no condition"),
        }
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=500).collect::<Vec<_>>());
}

/// Drives futures together.
async fn futures_of<T>(mut pending: Vec<Answer<'_, T>>) -> Vec<Result<T, StoreError>> {
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|answer| match answer.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                done.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

/// The child of the next test: it commits until it is killed, and says what is durable.
#[tokio::test]
#[ignore = "it is the child of another test"]
async fn commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = Sqlite::open(PathBuf::from(path));
    let begin = size(&store).await as u64 / 2;
    for number in begin.. {
        let changes =
            ["a", "b"].map(|half| Change::Put(format!("{half}/{number:06}").into(), vec![b'x'; 500].into(), None));
        store.commit(Transaction { conditions: Vec::new(), changes: changes.to_vec() }).await.unwrap();
        println!("\ndurable {number}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let kills = std::env::var("COK_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let mut acknowledged = None;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "sqlite::tests::commits_until_it_is_killed"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut numbers = lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        for _ in 0..=(kill * 7) % 23 {
            acknowledged = Some(numbers.next().expect("the child commits nothing"));
        }
        child.kill().unwrap();
        acknowledged = numbers.last().or(acknowledged);
        child.wait().unwrap();

        let store = Sqlite::open(&path);
        let entries = store.list(Bytes::new()).await.unwrap().entries;
        let pairs = entries.len() as u64 / 2;
        assert!(acknowledged.is_none_or(|last| pairs > last), "{acknowledged:?} was lost: there are {pairs}");
        for half in ["a/", "b/"] {
            assert_eq!(entries.iter().filter(|entry| entry.key.starts_with(half.as_bytes())).count() as u64, pairs);
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_room() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let settings = Settings { max_pages: Some(120), ..Settings::default() };
    let store = Sqlite::open_with(&path, settings);
    let mut fitted = 0;
    let error = loop {
        match store.commit(put(key(fitted), vec![0; 16 * 1024])).await {
            Ok(_) => fitted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(matches!(store.trouble(), Some(StoreError::Full(_))));
    assert_eq!(size(&store).await as u64, fitted, "what was refused has changed nothing");
    // What fits is taken, though it comes together with what does not.
    let commits = vec![store.commit(put(key(900), vec![0; 64 * 1024])), store.commit(put(key(901), "small"))];
    let fit = futures_of(commits).await.iter().filter(|result| result.is_ok()).count();
    assert_eq!(fit, 1);
    let roomy = Sqlite::open_with(&path, Settings { max_pages: None, ..settings });
    roomy.commit(put(key(902), vec![0; 64 * 1024])).await.unwrap();
    drop(store);
    // Room comes back, and the trouble goes by itself.
    let deletes = (0..fitted).map(|number| Change::Delete(key(number))).collect();
    let tight = Sqlite::open_with(&path, settings);
    assert!(matches!(tight.commit(put(key(903), vec![0; 200 * 1024])).await, Err(StoreError::Full(_))));
    let trimmed = Sqlite::open_with(&path, Settings { kept_changes: 1, max_pages: None });
    trimmed.commit(Transaction { conditions: Vec::new(), changes: deletes }).await.unwrap();
    trimmed.commit(put(key(904), "x")).await.unwrap();
    until(&tight, Option::is_none).await;
    tight.commit(put(key(903), vec![0; 200 * 1024])).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_left_as_it_is_and_used_again_once_it_is_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Sqlite::open(&path);
    for number in 0..200 {
        store.commit(put(key(number), vec![b'x'; 1000])).await.unwrap();
    }
    close(store, &path).await;
    let whole = std::fs::read(&path).unwrap();
    let mut scribbled = whole.clone();
    scribbled[8192..12_288].fill(0xa5);
    let foreign = folder.path().join("foreign");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let foreign = std::fs::read(foreign).unwrap();
    let truncated = whole[..whole.len() / 2].to_vec();
    let kinds =
        [("text", b"no database at all".to_vec()), ("half", truncated), ("scribble", scribbled), ("foreign", foreign)];
    for (kind, damaged) in kinds {
        std::fs::write(&path, &damaged).unwrap();
        let store = Sqlite::open(&path);
        let error = store.list(Bytes::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{kind}: {error:?}");
        assert_eq!(store.commit(put(key(0), "x")).await.unwrap_err(), store.trouble().unwrap());
        assert!(std::fs::read(&path).unwrap() == damaged, "{kind}: the file was changed");
        std::fs::write(&path, &whole).unwrap();
        until(&store, Option::is_none).await;
        assert_eq!(size(&store).await, 200);
        close(store, &path).await;
    }
}

/// Closes the only handle of a file, and waits until the file is as it will stay.
async fn close(store: Arc<Sqlite>, path: &Path) {
    drop(store);
    while path.with_file_name("store.db-wal").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_missing_folder_heals_and_its_watches_go_on() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    std::fs::write(&state, "no folder").unwrap();
    let store = Sqlite::open(state.join("store.db"));
    let error = store.commit(put(key(1), "x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    std::fs::remove_file(&state).unwrap();
    until(&store, Option::is_none).await;
    store.commit(put(key(1), "x")).await.unwrap();

    let mut watch = store.watch(Bytes::new(), Revision(2)).await.unwrap();
    let away = folder.path().join("away");
    std::fs::rename(&state, &away).unwrap();
    assert!(store.commit(put(key(2), "lost")).await.is_err());
    assert!(!state.exists(), "a new file would hide the old one");
    std::fs::rename(&away, &state).unwrap();
    until(&store, Option::is_none).await;
    store.commit(put(key(2), "kept")).await.unwrap();
    let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert!(matches!(&batch.events[..], [Event::Put(entry)] if &entry.value[..] == b"kept"));
}

#[tokio::test]
async fn a_watch_of_another_history_begins_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Sqlite::open(&path);
    store.commit(put(key(1), "x")).await.unwrap();
    let mut watch = store.watch(Bytes::new(), Revision(2)).await.unwrap();
    let other = folder.path().join("other.db");
    let another = Sqlite::open(&other);
    another.commit(put(key(1), "x")).await.unwrap();
    another.commit(put(key(1), "y")).await.unwrap();
    drop(another);
    while other.with_file_name("other.db-wal").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::rename(&other, &path).unwrap();
    let _gone = std::fs::remove_file(path.with_file_name("store.db-wal"));
    let next = timeout(PATIENCE, watch.next()).await.unwrap();
    assert_eq!(next.unwrap_err(), StoreError::Compacted);
}

#[tokio::test]
async fn a_lost_answer_is_unknown() {
    let (jobs, queue) = mpsc::channel();
    let thread = Thread { jobs, places: Arc::new(Semaphore::new(1)) };
    let (_, trouble) = watch::channel(None);
    let store = Sqlite { path: PathBuf::new(), thread, trouble };
    // The thread dies with the call in its hands.
    let died = std::thread::spawn(move || drop(queue.recv()));
    assert!(matches!(store.commit(put(key(1), "x")).await, Err(StoreError::Unknown(_))));
    died.join().unwrap();
    // Nothing reaches it any more.
    assert!(matches!(store.commit(put(key(1), "x")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.list(Bytes::new()).await, Err(StoreError::Unavailable(_))));
}
