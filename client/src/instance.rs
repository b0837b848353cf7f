//! The id of this installation, which tells it from others with the same key. A client with this id gets the names of the
//! installation back at once. So the id is kept in a file that only its owner can read.

use std::io::{self, ErrorKind};
use std::path::Path;

use cok_host::private_file;
use tracing::warn;

const FILE: &str = "instance";
/// The length of an id: 16 bytes in hexadecimal digits.
const ID_LEN: usize = 32;

/// The id in `state_dir`, created if there is none. If it can't be kept there, it is new in every run. Fails only if the
/// system gives no random numbers.
pub fn instance_id(state_dir: &Path) -> io::Result<String> {
    match load_or_create(state_dir) {
        Ok(id) => Ok(id),
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
    if let Some(id) = load(&path)? {
        return Ok(id);
    }
    let id = new_id()?;
    if private_file::create(&path, id.as_bytes())? {
        return Ok(id);
    }
    // Either another client has just created the file, or it is damaged.
    if let Some(id) = load(&path)? {
        return Ok(id);
    }
    private_file::write(&path, id.as_bytes())?;
    // Of several clients that replace a damaged file at once, all take the id that was written last.
    Ok(load(&path)?.unwrap_or(id))
}

/// The id in a file. `None` if there is no file, or anything but an id in it.
fn load(path: &Path) -> io::Result<Option<String>> {
    match private_file::read(path, ID_LEN as u64) {
        Ok(id) if id.len() == ID_LEN && id.iter().all(u8::is_ascii_hexdigit) => Ok(String::from_utf8(id).ok()),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FileTooLarge) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An id for one run. Who knows it and the key can take names over, so it must not be guessed.
pub(crate) fn new_id() -> io::Result<String> {
    let mut bytes = [0; ID_LEN / 2];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_id_is_kept_and_a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let id = instance_id(&state_dir).unwrap();
        assert_eq!(instance_id(&state_dir).unwrap(), id);
        for damaged in ["damaged", &format!("{id}{id}"), &"x".repeat(ID_LEN)] {
            fs::write(state_dir.join(FILE), damaged).unwrap();
            let fresh = instance_id(&state_dir).unwrap();
            assert_ne!(fresh, id);
            assert_eq!(instance_id(&state_dir).unwrap(), fresh);
        }
        assert_eq!(fs::read_dir(&state_dir).unwrap().count(), 1);
    }
}
