//! Secrets of a fixed length, each in a file that only its owner may read.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::private_file;

/// Reads a secret; `None` if there is no file. A file of another length is an error of the kind `InvalidData`.
pub fn read<const LENGTH: usize>(path: &Path) -> io::Result<Option<[u8; LENGTH]>> {
    let damaged = || io::Error::new(ErrorKind::InvalidData, format!("it is damaged: it does not have {LENGTH} bytes"));
    match private_file::read(path, LENGTH as u64) {
        Ok(secret) => secret.try_into().map(Some).map_err(|_| damaged()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(damaged()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(read::<4>(&path).unwrap(), None);
        for (content, whole) in [("", false), ("abc", false), ("abcd", true), ("abcde", false)] {
            private_file::write(&path, content.as_bytes()).unwrap();
            match read::<4>(&path) {
                Ok(secret) => assert!(whole && secret == Some(*b"abcd"), "{content}"),
                Err(error) => assert!(!whole && error.kind() == ErrorKind::InvalidData, "{content}"),
            }
        }
    }
}
