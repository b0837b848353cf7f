//! The share links that this installation has revoked: an empty file for each, named by its id, in `share-revoked`.
//!
//! A file is as old as its revocation, and goes once no link from before that can be valid any more.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cok_host::private_file;
use cok_proto::rules::MAX_REVOKED_LINKS;
use cok_proto::share::{CLOCK_SKEW, LinkId, MAX_LIFETIME};

const FOLDER: &str = "share-revoked";

/// How long a revocation is kept: as long as a link can be valid.
fn lifetime() -> Duration {
    MAX_LIFETIME + CLOCK_SKEW
}

/// The revoked links whose time may not be over, in the order of their ids. Forgets the others.
pub(crate) fn load(state_dir: &Path, now: SystemTime) -> io::Result<Vec<LinkId>> {
    let entries = match fs::read_dir(state_dir.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut revoked = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Other names are temporary files.
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let since = entry.metadata()?.modified()?;
        if now.duration_since(since).is_ok_and(|age| age > lifetime()) {
            fs::remove_file(entry.path())?;
        } else {
            revoked.push(id);
        }
    }
    revoked.sort_unstable();
    Ok(revoked)
}

/// Revokes a link.
pub(crate) fn add(state_dir: &Path, id: LinkId, now: SystemTime) -> io::Result<()> {
    let revoked = load(state_dir, now)?;
    if !revoked.contains(&id) && revoked.len() >= MAX_REVOKED_LINKS {
        let why = format!(
            "{MAX_REVOKED_LINKS} links are revoked already; remove `share-key` there and restart the client to void all links"
        );
        return Err(io::Error::new(ErrorKind::StorageFull, why));
    }
    private_file::create(&state_dir.join(FOLDER).join(id.to_string()), b"").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_are_kept_as_long_as_links_last() {
        let folder = tempfile::tempdir().unwrap();
        let (state_dir, now) = (folder.path(), SystemTime::now());
        assert_eq!(load(state_dir, now).unwrap(), []);
        let ids = [LinkId::new([1; 8]), LinkId::new([2; 8])];
        for id in [ids[1], ids[0], ids[1]] {
            add(state_dir, id, now).unwrap();
        }
        fs::write(state_dir.join(FOLDER).join(".tmp1"), "").unwrap();
        assert_eq!(load(state_dir, now).unwrap(), ids);
        assert_eq!(load(state_dir, now + lifetime() / 2).unwrap(), ids);
        assert_eq!(load(state_dir, now + lifetime() + Duration::from_secs(60)).unwrap(), []);
        assert_eq!(load(state_dir, now).unwrap(), [], "they are gone");
    }

    #[test]
    fn there_are_no_more_revocations_than_a_daemon_takes() {
        let folder = tempfile::tempdir().unwrap();
        let revoke = |number: usize| add(folder.path(), LinkId::new((number as u64).to_be_bytes()), SystemTime::now());
        for number in 0..MAX_REVOKED_LINKS {
            revoke(number).unwrap();
        }
        assert!(revoke(MAX_REVOKED_LINKS).unwrap_err().to_string().contains("void all links"));
        revoke(0).unwrap();
    }
}
