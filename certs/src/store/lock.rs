//! The lock that lets one process at a time change the store.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cok_host::private_file;
use tracing::warn;

use super::folder::Store;
use crate::error::Error;

impl Store {
    /// True if any process holds the lock.
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

    /// Takes the lock; false if another process holds it. The kernel releases it when this process ends in any way.
    pub(crate) fn try_lock(&self) -> Result<bool, Error> {
        let mut lock = self.lock.lock();
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
        // A killed process leaves unfinished files: a generation, a probe, or another file.
        for folder in [&self.folder.join("generations"), &self.folder] {
            let warn = |path: &Path, error: std::io::Error| {
                let path = path.display();
                warn!(%path, %error, "an unfinished file cannot be removed: {path}: {error}");
            };
            private_file::sweep(folder, warn).map_err(Error::io(folder))?;
        }
        Ok(true)
    }
}
