//! The certificates of the store, each with its key in a folder of its own.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cok_host::private_file;
use rustls::sign::CertifiedKey;
use tracing::warn;

use super::folder::{Store, read_short};
use crate::error::Error;
use crate::files::{self, Facts};

/// How many generations stay: the current one, and the one before in case that the current one gets damaged.
const GENERATIONS: usize = 2;
/// More than a new generation and its state take: what must be free on the disk before an order is placed.
const ROOM: usize = 64 * 1024;
/// A certificate that was kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The chain with its key.
    pub certified: Arc<CertifiedKey>,
    /// What the first certificate says.
    pub facts: Facts,
}

impl Store {
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
    pub(crate) fn save(&self, chain_pem: &str, key_pem: &str) -> Result<(), Error> {
        let parent = self.folder.join("generations");
        let last = self.generations()?.last().map_or(0, |(number, _)| *number);
        let temporary = private_file::temporary_folder(&parent).map_err(Error::io(&parent))?;
        for (name, text) in [("key.pem", key_pem), ("chain.pem", chain_pem)] {
            let path = temporary.path().join(name);
            private_file::write(&path, text.as_bytes()).map_err(Error::io(path))?;
        }
        let path = parent.join(format!("{:04}", last + 1));
        fs::rename(temporary.path(), &path).map_err(Error::io(&path))?;
        // It is not there any more under this name.
        let _renamed = temporary.keep();
        private_file::sync_folder(&parent).map_err(Error::io(&parent))?;
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

    /// Whether there is room for a new certificate and the right to write it: better known before an order is placed.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let folder = self.folder.join("generations");
        private_file::probe(&folder, &vec![0; ROOM]).map_err(Error::io(&folder))
    }

    /// In the order of their numbers.
    pub(super) fn generations(&self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let folder = self.folder.join("generations");
        let mut generations = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            if let Ok(number) = entry.file_name().to_string_lossy().parse() {
                generations.push((number, entry.path()));
            }
        }
        generations.sort();
        Ok(generations)
    }
}

pub(super) fn read_generation(folder: &Path) -> Result<Stored, Error> {
    let (cert, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let (certified, facts) = files::read(&cert, &read_short(&cert)?, &key, &read_short(&key)?)?;
    Ok(Stored { certified, facts })
}
