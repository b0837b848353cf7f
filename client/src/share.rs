//! Share links: addresses that let their holders into a tunnel until a time. They are signed here, without the daemon.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};
use cok_host::{private_file, secret_file};
use cok_proto::rules::ShareKey;
use cok_proto::share::{Grant, KEY_CONTEXT, SIGNATURE_LEN, Token};

const FILE: &str = "share-key";

/// The secret of this installation behind all its share links. Without its file, the links that it has signed are void.
#[derive(Clone)]
pub struct ShareSecret([u8; ShareKey::LEN]);

impl ShareSecret {
    /// The secret in a client's state directory, created if there is none.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        if let Some(secret) = read(&path)? {
            return Ok(secret);
        }
        let mut secret = [0; ShareKey::LEN];
        getrandom::fill(&mut secret)?;
        if private_file::create(&path, &secret)? {
            return Ok(Self(secret));
        }
        // Another client has just created it.
        read(&path)?.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the file was removed meanwhile"))
    }

    /// The key that the daemon gets for the tunnel with this name. It tells nothing about the keys of other names.
    pub fn key_of(&self, name: &str) -> ShareKey {
        ShareKey::new(bytes(sign(&Key::new(HMAC_SHA256, &self.0), format!("{KEY_CONTEXT}{name}").as_bytes())))
    }

    /// Signs a grant for the tunnel with this name.
    pub fn sign(&self, name: &str, grant: Grant) -> Token {
        let key = Key::new(HMAC_SHA256, self.key_of(name).as_bytes());
        let signature = bytes(sign(&key, grant.signed_text(name).as_bytes()));
        Token { grant, signature }
    }
}

impl fmt::Debug for ShareSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareSecret(..)")
    }
}

fn bytes(tag: Tag) -> [u8; SIGNATURE_LEN] {
    let mut bytes = [0; SIGNATURE_LEN];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// The secret in a file. A damaged one is an error: a new secret would void all links without a word.
fn read(path: &Path) -> io::Result<Option<ShareSecret>> {
    let void = |error: io::Error| match error.kind() {
        ErrorKind::InvalidData => {
            io::Error::new(ErrorKind::InvalidData, format!("{error}; remove it to void all share links"))
        }
        _ => error,
    };
    secret_file::read(path).map(|secret| secret.map(ShareSecret)).map_err(void)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_secret_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (state_dir, other) = (folder.path().join("state"), folder.path().join("other"));
        let secret = ShareSecret::load(&state_dir).unwrap();
        assert_eq!(ShareSecret::load(&state_dir).unwrap().0, secret.0);
        assert_ne!(ShareSecret::load(&other).unwrap().0, secret.0);
        let file = state_dir.join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(secret.key_of("a"), secret.key_of("b"));
        std::fs::write(&file, "damaged").unwrap();
        let error = ShareSecret::load(&state_dir).unwrap_err();
        assert!(error.to_string().ends_with("remove it to void all share links"), "{error}");
    }
}
