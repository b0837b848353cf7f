//! The error of this crate. It names the file that it is about.

use std::path::{Path, PathBuf};

use cok_host::trust::CaFileError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What to correct.
        why: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

impl Error {
    /// The file or folder that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Invalid { path, .. } => Some(path),
            Self::Generate(_) => None,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn invalid(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), why: why.into() }
    }
}

impl From<CaFileError> for Error {
    fn from(error: CaFileError) -> Self {
        match error {
            CaFileError::Unreadable { path, error } => Self::Io { path, error },
            CaFileError::Damaged { path, why } => {
                Self::invalid(path, format!("a certificate in it cannot be read: {why}"))
            }
            CaFileError::Empty { path } => Self::invalid(path, "there is no certificate in it"),
        }
    }
}
