use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::generations::read_generation;
use super::*;

const URL: &str = "https://acme.test/dir";
const NAMES: [&str; 2] = ["tunnel.test", "*.tunnel.test"];

fn make() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn locked(folder: &Path) -> Store {
    let store = Store::open(folder, URL).unwrap();
    assert!(store.try_lock().unwrap());
    store
}

fn serial(store: &Store) -> Option<String> {
    store.load(&NAMES).unwrap().map(|stored| stored.facts.serial)
}

#[test]
fn two_generations_stay_and_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let store = locked(folder.path());
    assert!(serial(&store).is_none());
    for _ in 0..4 {
        let (chain, key) = make();
        store.probe().unwrap();
        store.save(&chain, &key).unwrap();
    }
    let generations = store.generations().unwrap();
    assert_eq!(generations.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&generations[1].1), mode(&generations[1].1.join("key.pem"))), (0o700, 0o600));
    assert_eq!(mode(&store.folder), 0o700);
    assert_eq!(fs::read_dir(store.folder.join("generations")).unwrap().count(), 2, "no temporary file is left");
    assert!(store.load(&["other.test"]).unwrap().is_none());
}

#[test]
fn a_damaged_generation_is_set_aside_and_the_previous_one_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_, foreign_key) = make();
    let damages = [
        ("chain.pem", Some("")),
        ("chain.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n")),
        ("key.pem", Some("nonsense")),
        ("key.pem", Some(&*foreign_key)),
        ("key.pem", None),
        ("chain.pem", Some(&*"x".repeat(2 << 20))),
    ];
    for (index, (name, text)) in damages.into_iter().enumerate() {
        let folder = folder.path().join(index.to_string());
        let store = locked(&folder);
        for _ in 0..2 {
            let (chain, key) = make();
            store.save(&chain, &key).unwrap();
        }
        let good = read_generation(&store.folder.join("generations/0001")).unwrap().facts.serial;
        let file = store.folder.join("generations/0002").join(name);
        match text {
            Some(text) => fs::write(file, text).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
        assert_eq!(serial(&store), Some(good), "{name}");
        assert!(store.folder.join("damaged/0002.1").is_dir(), "{name}");
        let (chain, key) = make();
        store.save(&chain, &key).unwrap();
        assert!(serial(&store).is_some());
    }
}

#[test]
fn a_generation_that_cannot_be_read_now_stays_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = locked(folder.path());
    for _ in 0..2 {
        let (chain, key) = make();
        store.save(&chain, &key).unwrap();
    }
    let newest = store.folder.join("generations/0002");
    let (good, new) = (read_generation(&store.folder.join("generations/0001")).unwrap(), serial(&store));
    // A folder in a file's place cannot be read, not even by root, and the file itself is fine.
    let (chain, away) = (newest.join("chain.pem"), newest.join("away"));
    fs::rename(&chain, &away).unwrap();
    fs::create_dir(&chain).unwrap();
    assert_eq!(serial(&store), Some(good.facts.serial), "the previous one is served");
    fs::remove_dir(&chain).unwrap();
    fs::rename(&away, &chain).unwrap();
    assert_eq!(serial(&store), new);
}

#[test]
fn the_remains_of_a_killed_process_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = Store::open(folder.path(), URL).unwrap().folder;
    // The remains of a generation, a probe and another file.
    let unfinished = ["generations/.tmpabc", "generations/.tmpdef", ".tmpghi"].map(|name| place.join(name));
    fs::create_dir(&unfinished[0]).unwrap();
    fs::write(unfinished[0].join("key.pem"), "").unwrap();
    fs::write(&unfinished[1], "").unwrap();
    fs::write(&unfinished[2], "").unwrap();
    let store = locked(folder.path());
    assert!(serial(&store).is_none());
    assert!(unfinished.iter().all(|path| !path.exists()));
}

#[test]
fn damaged_json_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = locked(folder.path());
    assert_eq!(store.read_json::<u32>("state.json").unwrap(), None);
    store.write_json("state.json", &7).unwrap();
    assert_eq!(store.read_json("state.json").unwrap(), Some(7));
    fs::write(store.folder.join("state.json"), "{").unwrap();
    assert_eq!(store.read_json::<u32>("state.json").unwrap(), None);
    assert!(store.folder.join("damaged/state.json.1").exists());
}

#[test]
fn one_process_holds_the_lock_and_another_only_reads() {
    let folder = tempfile::tempdir().unwrap();
    let first = locked(folder.path());
    let (chain, key) = make();
    first.save(&chain, &key).unwrap();
    let second = Store::open(folder.path(), URL).unwrap();
    assert!(!second.try_lock().unwrap());
    assert!(second.is_held().unwrap() && Store::existing(folder.path(), URL).unwrap().unwrap().is_held().unwrap());
    assert_eq!(serial(&second), serial(&first));
    drop(first);
    assert!(!second.is_held().unwrap());
    assert!(second.try_lock().unwrap());
}

/// Uses errors that root gets as well, unlike a missing permission.
#[test]
fn an_unreadable_file_is_not_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), URL).unwrap();
    assert!(!store.is_held().unwrap(), "there is no lock yet");
    std::os::unix::fs::symlink("lock", store.folder.join("lock")).unwrap();
    assert!(store.is_held().unwrap_err().to_string().contains("/lock: "));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Store::existing(&file, URL).unwrap_err().to_string().contains("file/acme/acme.test-"));
}

#[test]
fn directories_do_not_mix_and_requests_stay_until_they_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let (real, staging) = (Store::folder(folder.path(), URL), Store::folder(folder.path(), "https://acme.test/stg"));
    assert_ne!(real, staging);
    assert!(real.file_name().unwrap().to_str().unwrap().starts_with("acme.test-"));
    let store = locked(folder.path());
    assert!(Store::existing(folder.path(), "https://acme.test/stg").unwrap().is_none());
    for request in [Request::Renewal, Request::Rollover] {
        assert!(store.requested_at(request).is_none());
        Store::existing(folder.path(), URL).unwrap().unwrap().request(request).unwrap();
        let at = store.requested_at(request).unwrap();
        store.done(request, at - 1);
        assert_eq!(store.requested_at(request), Some(at), "a newer request stays");
        store.done(request, at);
        store.done(request, at);
        assert!(store.requested_at(request).is_none());
    }
}
