//! The certificates of the store, each with its key in a numbered folder: a generation.

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

/// The generations that are kept: the current one, and the one before in case the current one gets damaged.
const GENERATIONS: usize = 2;
/// The free space that an order needs, in bytes: more than a generation and its state take.
const ROOM: usize = 64 * 1024;

/// A certificate of the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The chain with its key.
    pub certified: Arc<CertifiedKey>,
    /// Facts of the first certificate of the chain.
    pub facts: Facts,
}

impl Store {
    /// Loads the newest readable certificate for all of `names`, even if it is not valid now.
    ///
    /// A damaged generation is logged and, under the lock, set aside. One that cannot be read at the moment stays where
    /// it is.
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

    /// Saves a new generation, and removes those that are too old.
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
        // The rename has moved it, so there is nothing left to remove.
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

    /// Checks that a new certificate can be written, so that no order is placed in vain.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let folder = self.folder.join("generations");
        private_file::probe(&folder, &vec![0; ROOM]).map_err(Error::io(&folder))
    }

    /// The numbers and paths of all generations, the oldest first.
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
