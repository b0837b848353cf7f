//! Secrets from files.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The longest secret in bytes. Keys and passwords are much shorter.
const LONGEST: u64 = 64 * 1024;

/// Resolves a path. A relative one names a credential of the service manager, if it has passed any (systemd.exec(5),
/// `LoadCredential=`).
pub(crate) fn resolve(path: &Path) -> PathBuf {
    resolve_in(path, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
}

fn resolve_in(path: &Path, credentials: Option<PathBuf>) -> PathBuf {
    // An absolute path stays the same.
    credentials.map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

/// Reads a file, and trims white space.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    read_at(&resolve(path))
}

fn read_at(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    read.with_context(|| format!("cannot read the secret {}", path.display()))?;
    ensure!(text.len() as u64 <= LONGEST, "the secret {} is too long", path.display());
    let text = text.trim();
    ensure!(!text.is_empty(), "the secret {} is empty", path.display());
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_name_credentials_and_mistakes_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("key"), " s3cret\n").unwrap();
        std::fs::write(path("empty"), "\n").unwrap();
        std::fs::write(path("long"), "x".repeat(100_000)).unwrap();
        assert_eq!(read_at(&resolve_in(Path::new("key"), Some(folder.path().to_owned()))).unwrap(), "s3cret");
        assert_eq!(read_at(&resolve_in(&path("key"), None)).unwrap(), "s3cret");
        assert_eq!(read_at(&resolve_in(&path("key"), Some("/none".into()))).unwrap(), "s3cret");
        for (name, said) in [("none", "none"), ("empty", "empty is empty"), ("long", "long is too long")] {
            let error = format!("{:#}", read_at(&path(name)).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
