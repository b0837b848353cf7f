//! The folder of one directory URL, and the JSON files in it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cok_host::private_file;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The longest file that is read. None of ours is longer.
const LONGEST_FILE: u64 = 1024 * 1024;

/// The store: the folder of one directory URL.
#[derive(Debug)]
pub struct Store {
    pub(super) folder: PathBuf,
    pub(super) lock: Mutex<Option<File>>,
}

impl Store {
    /// The path of the folder for `directory` (a URL).
    pub(crate) fn folder(state_dir: &Path, directory: &str) -> PathBuf {
        let host = directory.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        let host: String = host.chars().take(64).map(safe).collect();
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(directory.as_bytes()).into();
        state_dir.join("acme").join(format!("{host}-{:08x}", u32::from_be_bytes([a, b, c, d])))
    }

    /// Opens the folder, or creates it. Its content changes only under `Store::try_lock`.
    pub fn open(state_dir: &Path, directory: &str) -> Result<Self, Error> {
        let folder = Self::folder(state_dir, directory);
        for folder in [&state_dir.join("acme"), &folder, &folder.join("generations")] {
            private_file::create_private_folder(folder).map_err(Error::io(folder))?;
        }
        Ok(Self { folder, lock: Mutex::default() })
    }

    /// Opens the folder for reading, and creates nothing. `None` if there is no folder. One that cannot be read is an
    /// error.
    pub fn existing(state_dir: &Path, directory: &str) -> Result<Option<Self>, Error> {
        let folder = Self::folder(state_dir, directory);
        match fs::read_dir(&folder) {
            Ok(_) => Ok(Some(Self { folder, lock: Mutex::default() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(folder)(error)),
        }
    }

    /// Reads a JSON file. `None` if it is missing or damaged; a damaged one is set aside.
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

    /// Replaces a JSON file, whole or not at all.
    pub fn write_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.folder.join(name);
        let text = serde_json::to_string(value).map_err(|error| Error::invalid(&path, error.to_string()))?;
        private_file::write(&path, text.as_bytes()).map_err(Error::io(path))
    }

    /// Removes a file. A missing file is no error.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
            _ => private_file::sync_folder(&self.folder).map_err(Error::io(&self.folder)),
        }
    }
}

pub(super) fn read_short(path: &Path) -> Result<Vec<u8>, Error> {
    private_file::read(path, LONGEST_FILE).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => Error::invalid(path, "it is far too long"),
        _ => Error::io(path)(error),
    })
}
