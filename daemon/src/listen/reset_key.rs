//! The secret from which all keys for QUIC tokens and connection ids derive. It is kept on disk, so that it survives
//! the process.
//!
//! A killed daemon has lost its connections. With the same secret, its successor answers their packets with stateless
//! resets that the peers recognise (RFC 9000, section 10.3). They reconnect at once and do not wait for a timeout. The
//! secret allows anyone to break connections, so only its owner may read it.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use cok_host::{private_file, secret_file};
use quinn::crypto::{HandshakeTokenKey, HmacKey};
use tracing::warn;

const FILE: &str = "quic-secret";
const LENGTH: usize = 32;

/// The secret.
pub(crate) struct ResetKey([u8; LENGTH]);

impl ResetKey {
    /// Loads the secret from `state_dir`, or creates it there. If it can't be saved, it lasts for this run only.
    pub(crate) fn load_or_create(state_dir: &Path) -> Result<Self, getrandom::Error> {
        let path = state_dir.join(FILE);
        let file = path.display();
        match secret_file::read(&path) {
            Ok(Some(secret)) => return Ok(Self(secret)),
            Ok(None) => {}
            Err(error) => warn!(%file, %error, "cannot read the QUIC secret, so a new one is made: {file}: {error}"),
        }
        let mut secret = [0; LENGTH];
        getrandom::fill(&mut secret)?;
        if let Err(error) = private_file::write(&path, &secret) {
            warn!(
                %file, %error,
                "cannot keep the QUIC secret; should this process be killed, QUIC peers notice only by time-out: {file}: {error}"
            );
        }
        Ok(Self(secret))
    }

    /// The key for stateless reset tokens.
    pub(crate) fn reset_key(&self) -> Arc<dyn HmacKey> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.derive::<32>(b"stateless reset")))
    }

    /// The key for connection ids. A later process must recognise its own ids to answer them with a reset.
    pub(crate) fn connection_id_key(&self) -> u64 {
        u64::from_be_bytes(self.derive(b"connection id"))
    }

    /// The key for the tokens of Retry packets (RFC 9000, section 8.1.2).
    pub(crate) fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"cokd address token").extract(&self.0))
    }

    /// For the names that the daemon picks.
    pub(crate) fn names_secret(&self) -> [u8; 32] {
        self.derive(b"tunnel names")
    }

    fn derive<const N: usize>(&self, purpose: &[u8]) -> [u8; N] {
        let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), purpose);
        let mut key = [0; N];
        for (to, from) in key.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_secret_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = ResetKey::load_or_create(folder.path()).unwrap();
        let again = ResetKey::load_or_create(folder.path()).unwrap();
        assert_eq!(first.connection_id_key(), again.connection_id_key());
        let mut tags = [[0; 32]; 2];
        first.reset_key().sign(b"id", &mut tags[0]);
        again.reset_key().sign(b"id", &mut tags[1]);
        assert_eq!(tags[0], tags[1]);
        let file = folder.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "damaged").unwrap();
        let fresh = ResetKey::load_or_create(folder.path()).unwrap();
        assert_ne!(fresh.connection_id_key(), first.connection_id_key());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
