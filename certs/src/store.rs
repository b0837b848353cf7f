//! What an ACME client keeps on disk: its account, its certificates by generation, and when it may try again.
//!
//! One folder for each directory URL, so that a staging server and the real one never mix:
//!
//! ```text
//! acme/<host>-<hash>/lock              held by the process that orders
//!                    account.json      account key and account URL
//!                    account.next.json the same with a new key, until the server is known to take it
//!                    published.json    TXT values that are to be taken away again
//!                    state.json        what renewal remembers
//!                    renew             somebody wants a new certificate now
//!                    rollover          somebody wants a new account key
//!                    generations/0007  chain.pem and key.pem; the one before is kept
//!                    damaged/          what could not be read
//! ```
//!
//! A generation is written to a temporary folder, synced, renamed and synced again, so that it is there whole or not at
//! all. Everything is for the owner alone.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tracing::{error, warn};

use crate::authority::{restrict, write};
use crate::error::Error;
use crate::files::{self, Facts};

/// How many generations stay: the current one, and the one before in case that the current one gets damaged.
const GENERATIONS: usize = 2;
/// How many damaged things stay for whoever wants to look at them.
const MOST_DAMAGED: usize = 8;
/// More than a new generation and its state take: what must be free on the disk before an order is placed.
const ROOM: usize = 64 * 1024;
/// Files longer than this were not written by us.
const LONGEST_FILE: u64 = 1024 * 1024;

/// The folder of one directory URL.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    lock: Mutex<Option<File>>,
}

/// A certificate that was kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The chain with its key.
    pub certified: Arc<CertifiedKey>,
    /// What the first certificate says.
    pub facts: Facts,
}

/// What an operator can ask of the process that renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new certificate, now.
    Renewal,
    /// A new key for the account (RFC 8555, section 7.3.5), before the next order.
    Rollover,
}

impl Request {
    fn file(self) -> &'static str {
        match self {
            Self::Renewal => "renew",
            Self::Rollover => "rollover",
        }
    }
}

impl Store {
    /// Where `directory` (a URL) keeps its things.
    pub fn folder(state_dir: &Path, directory: &str) -> PathBuf {
        let host = directory.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        let host: String = host.chars().take(64).map(safe).collect();
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(directory.as_bytes()).into();
        state_dir.join("acme").join(format!("{host}-{:08x}", u32::from_be_bytes([a, b, c, d])))
    }

    /// Opens or makes the folder. Nothing is changed in it without [`Store::try_lock`].
    pub fn open(state_dir: &Path, directory: &str) -> Result<Self, Error> {
        let folder = Self::folder(state_dir, directory);
        for folder in [&state_dir.join("acme"), &folder, &folder.join("generations")] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io(folder))?;
            restrict(folder, 0o700)?;
        }
        Ok(Self { folder, lock: Mutex::default() })
    }

    /// For somebody who only looks: nothing is made. `None` if there is no folder, which is another matter than one that
    /// one may not look at.
    pub fn existing(state_dir: &Path, directory: &str) -> Result<Option<Self>, Error> {
        let folder = Self::folder(state_dir, directory);
        match fs::read_dir(&folder) {
            Ok(_) => Ok(Some(Self { folder, lock: Mutex::default() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(folder)(error)),
        }
    }

    /// Whether some process holds the lock.
    pub fn is_held(&self) -> Result<bool, Error> {
        let path = self.folder.join("lock");
        match File::open(&path) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// Whether this process alone may change the folder from now on. The kernel lets go of the lock when it ends, however
    /// it ends.
    pub fn try_lock(&self) -> Result<bool, Error> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(true);
        }
        let path = self.folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => *lock = Some(file),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
        }
        // What a process was writing when it was killed: a generation or a probe, or one of the other files.
        for (_, path) in [self.entries("generations")?, self.entries("")?].into_iter().flatten().filter(is_temporary) {
            if let Err(error) = remove(&path) {
                let path = path.display();
                warn!(%path, %error, "an unfinished file cannot be removed: {path}: {error}");
            }
        }
        Ok(true)
    }

    /// The newest certificate for all of `names` that can be read, be it valid now or not. Damaged ones are logged and,
    /// under the lock, set aside; those that only can't be read now stay where they are.
    pub fn load(&self, names: &[&str]) -> Result<Option<Stored>, Error> {
        for (_, folder) in self.generations()?.into_iter().rev() {
            match read_generation(&folder) {
                Ok(stored) if stored.facts.missing(names).is_empty() => return Ok(Some(stored)),
                Ok(_) => {}
                Err(Error::Io { path, error }) if error.kind() != ErrorKind::NotFound => {
                    let file = path.display();
                    warn!(event = "unreadable", %file, %error, "the certificate before it is used: {file}: {error}");
                }
                Err(damage) => self.set_aside(&folder, &damage),
            }
        }
        Ok(None)
    }

    /// Keeps a new generation, and of the older ones the last.
    pub fn save(&self, chain_pem: &str, key_pem: &str) -> Result<(), Error> {
        let parent = self.folder.join("generations");
        let last = self.generations()?.last().map_or(0, |(number, _)| *number);
        let temporary = tempfile::Builder::new()
            .prefix(".tmp")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(Error::io(&parent))?;
        for (name, text) in [("key.pem", key_pem), ("chain.pem", chain_pem)] {
            let path = temporary.path().join(name);
            write(temporary.path(), &path, text, 0o600)?;
        }
        sync(temporary.path())?;
        let path = parent.join(format!("{:04}", last + 1));
        fs::rename(temporary.path(), &path).map_err(Error::io(&path))?;
        // It is not there any more under this name.
        let _renamed = temporary.keep();
        sync(&parent)?;
        let generations = self.generations()?;
        let old = generations.len().saturating_sub(GENERATIONS);
        for (_, path) in generations.into_iter().take(old) {
            if let Err(error) = fs::remove_dir_all(&path) {
                let path = path.display();
                warn!(%path, %error, "an old certificate cannot be removed: {path}: {error}");
            }
        }
        Ok(())
    }

    /// A JSON file of the folder: nothing if there is none, or none that can be read; that one is set aside.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.folder.join(name);
        let bytes = match read_short(&path) {
            Ok(bytes) => bytes,
            Err(Error::Io { error, .. }) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(damage @ Error::Invalid { .. }) => {
                self.set_aside(&path, &damage);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.set_aside(&path, &Error::invalid(&path, error.to_string()));
                Ok(None)
            }
        }
    }

    /// Replaces a JSON file of the folder, whole or not at all.
    pub fn write_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.folder.join(name);
        let text = serde_json::to_string(value).map_err(|error| Error::invalid(&path, error.to_string()))?;
        write(&self.folder, &path, &text, 0o600)?;
        sync(&self.folder)
    }

    /// Removes a file of the folder; that there is none is no error.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
            _ => sync(&self.folder),
        }
    }

    /// Takes a file out of use that proved to be worthless.
    pub fn discard(&self, name: &str, why: &str) {
        let path = self.folder.join(name);
        self.set_aside(&path, &Error::invalid(&path, why));
    }

    /// Whether there is room for a new certificate and the right to write it: better known before an order is placed.
    pub fn probe(&self) -> Result<(), Error> {
        let folder = self.folder.join("generations");
        let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(Error::io(&folder))?;
        file.write_all(&vec![0; ROOM]).map_err(Error::io(&folder))?;
        file.as_file().sync_all().map_err(Error::io(&folder))
    }

    /// Asks the process that holds the lock.
    pub fn request(&self, request: Request) -> Result<(), Error> {
        let path = self.folder.join(request.file());
        // By another name than those that the process removes when it starts, which may be now.
        let file =
            tempfile::Builder::new().prefix(".asked").tempfile_in(&self.folder).map_err(Error::io(&self.folder))?;
        file.persist(&path).map_err(|error| Error::io(path)(error.error))?;
        Ok(())
    }

    /// When somebody has asked, in nanoseconds since 1970.
    pub fn requested_at(&self, request: Request) -> Option<i128> {
        let data = fs::metadata(self.folder.join(request.file())).ok()?;
        Some(i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()))
    }

    /// The request that was made at this moment has been seen to, whatever came of it. One that was made since stays.
    pub fn done(&self, request: Request, at: i128) {
        if self.requested_at(request) != Some(at) {
            return;
        }
        let path = self.folder.join(request.file());
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            let path = path.display();
            warn!(%path, %error, "a request that is done cannot be removed: {path}: {error}");
        }
    }

    /// In the order of their numbers.
    fn generations(&self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let entries = self.entries("generations")?;
        let numbered = |(name, path): (String, PathBuf)| Some((name.parse().ok()?, path));
        let mut generations: Vec<_> = entries.into_iter().filter_map(numbered).collect();
        generations.sort();
        Ok(generations)
    }

    fn entries(&self, name: &str) -> Result<Vec<(String, PathBuf)>, Error> {
        let folder = self.folder.join(name);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        Ok(entries)
    }

    /// Moves what cannot be read out of the way. This must not fail for its caller, who goes on with the last good one.
    fn set_aside(&self, path: &Path, damage: &Error) {
        error!(event = "damaged", %damage, "set aside, and the last good one is used: {damage}");
        if self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return;
        }
        let folder = self.folder.join("damaged");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let moved = DirBuilder::new().recursive(true).mode(0o700).create(&folder).and_then(|()| {
            let taken: Vec<_> = fs::read_dir(&folder)?.filter_map(Result::ok).collect();
            if taken.len() >= MOST_DAMAGED {
                return remove(path);
            }
            let free =
                (1..=MOST_DAMAGED).map(|number| folder.join(format!("{name}.{number}"))).find(|path| !path.exists());
            fs::rename(path, free.unwrap_or_else(|| folder.join(&*name)))
        });
        if let Err(error) = moved {
            let path = path.display();
            warn!(%path, %error, "{path} cannot be set aside: {error}");
        }
    }
}

fn is_temporary((name, _): &(String, PathBuf)) -> bool {
    name.starts_with(".tmp")
}

/// A file, or a folder with all that is in it.
fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn read_generation(folder: &Path) -> Result<Stored, Error> {
    let (cert, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let (certified, facts) = files::read(&cert, &read_short(&cert)?, &key, &read_short(&key)?)?;
    Ok(Stored { certified, facts })
}

fn read_short(path: &Path) -> Result<Vec<u8>, Error> {
    if fs::metadata(path).map_err(Error::io(path))?.len() > LONGEST_FILE {
        return Err(Error::invalid(path, "it is far too long"));
    }
    fs::read(path).map_err(Error::io(path))
}

fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

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
        assert_eq!(fs::read_dir(store.folder.join("generations")).unwrap().count(), 2, "nothing temporary is left");
        assert!(store.load(&["other.test"]).unwrap().is_none());
    }

    #[test]
    fn of_damaged_generations_the_last_good_one_is_served() {
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
    fn what_cannot_be_read_now_stays_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = locked(folder.path());
        for _ in 0..2 {
            let (chain, key) = make();
            store.save(&chain, &key).unwrap();
        }
        let newest = store.folder.join("generations/0002");
        let (good, new) = (read_generation(&store.folder.join("generations/0001")).unwrap(), serial(&store));
        // A folder in a file's place: an error of the system that is none of the file's, also for root.
        let (chain, away) = (newest.join("chain.pem"), newest.join("away"));
        fs::rename(&chain, &away).unwrap();
        fs::create_dir(&chain).unwrap();
        assert_eq!(serial(&store), Some(good.facts.serial), "the one before is served");
        fs::remove_dir(&chain).unwrap();
        fs::rename(&away, &chain).unwrap();
        assert_eq!(serial(&store), new);
    }

    #[test]
    fn what_was_being_written_at_a_kill_is_no_generation() {
        let folder = tempfile::tempdir().unwrap();
        let place = Store::open(folder.path(), URL).unwrap().folder;
        // A generation, a probe, and another file.
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

    /// Other errors than that of a missing right, which root would not meet.
    #[test]
    fn what_cannot_be_looked_at_is_not_missing() {
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
        let (real, staging) =
            (Store::folder(folder.path(), URL), Store::folder(folder.path(), "https://acme.test/stg"));
        assert_ne!(real, staging);
        assert!(real.file_name().unwrap().to_str().unwrap().starts_with("acme.test-"));
        let store = locked(folder.path());
        assert!(Store::existing(folder.path(), "https://acme.test/stg").unwrap().is_none());
        for request in [Request::Renewal, Request::Rollover] {
            assert!(store.requested_at(request).is_none());
            Store::existing(folder.path(), URL).unwrap().unwrap().request(request).unwrap();
            let at = store.requested_at(request).unwrap();
            store.done(request, at - 1);
            assert_eq!(store.requested_at(request), Some(at), "another one was made meanwhile");
            store.done(request, at);
            store.done(request, at);
            assert!(store.requested_at(request).is_none());
        }
    }
}
