//! What an operator asks of the process that renews: an empty file whose time of change counts.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use tracing::warn;

use super::folder::Store;
use crate::error::Error;

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
