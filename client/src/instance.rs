//! The id that tells this installation from others with the same key. With it, a client may take the installation's names
//! back at once, so it is kept, and readable by its owner alone.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use tracing::warn;

const FILE: &str = "instance";

/// The id kept in `state_dir`, created if there is none. Where it can't be kept, one for this run alone.
pub fn instance_id(state_dir: &Path) -> String {
    match load_or_create(state_dir) {
        Ok(id) => id,
        Err(error) => {
            warn!(
                state_dir = %state_dir.display(), %error,
                "cannot keep the instance id in {}: {error}; after a restart this client may have to wait for its own names",
                state_dir.display()
            );
            new_id()
        }
    }
}

fn load_or_create(state_dir: &Path) -> io::Result<String> {
    let path = state_dir.join(FILE);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    if let Some(id) = load(&path)? {
        return Ok(id);
    }
    // Two clients may start at once: a link is made only if there is no file yet, and both read what is there.
    let id = new_id();
    let temporary = state_dir.join(format!("{FILE}.{id}"));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    let linked = if path.exists() { fs::rename(&temporary, &path) } else { fs::hard_link(&temporary, &path) };
    if temporary.exists() {
        fs::remove_file(&temporary)?;
    }
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(load(&path)?.unwrap_or(id)),
    }
}

/// The id in a file; `None` if there is no file, or nothing sensible in it.
fn load(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(id) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Some(id)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = fastrand::u128(..).to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_kept_and_a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let id = instance_id(&state_dir);
        assert_eq!(instance_id(&state_dir), id);
        fs::write(state_dir.join(FILE), "damaged").unwrap();
        let fresh = instance_id(&state_dir);
        assert_ne!(fresh, id);
        assert_eq!(instance_id(&state_dir), fresh);
        assert_eq!(fs::read_dir(&state_dir).unwrap().count(), 1);
    }
}
