//! Requests of an operator to the process that renews. Each is an empty file, and its time of change is the time of the
//! request.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use tracing::warn;

use super::folder::Store;
use crate::error::Error;

/// A request to the process that renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new certificate at once.
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
    /// Makes a request to the process that holds the lock.
    pub fn request(&self, request: Request) -> Result<(), Error> {
        let path = self.folder.join(request.file());
        // Not named like a temporary file: a process that starts now removes those.
        let file =
            tempfile::Builder::new().prefix(".asked").tempfile_in(&self.folder).map_err(Error::io(&self.folder))?;
        file.persist(&path).map_err(|error| Error::io(path)(error.error))?;
        Ok(())
    }

    /// The time of the open request, in nanoseconds since 1970.
    pub fn requested_at(&self, request: Request) -> Option<i128> {
        let data = fs::metadata(self.folder.join(request.file())).ok()?;
        Some(i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()))
    }

    /// Removes the request of this moment, whether it succeeded or not. A newer one stays.
    pub(crate) fn done(&self, request: Request, at: i128) {
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
}
