//! What a key allows a session, as it stands now.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use super::record::{KeyRecord, ValidKey};
use crate::names::KeyDigest;

/// A key that was valid when its session connected. It changes while the session lives, and may end.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(super) key: watch::Receiver<Option<Arc<ValidKey>>>,
    /// The digest of the secret that the client has shown.
    pub(super) digest: KeyDigest,
}

impl Grant {
    /// The key as it is now. `None` once it, or the secret that the client has shown, has ended.
    pub(crate) fn record(&self) -> Option<Arc<KeyRecord>> {
        let key = self.key.borrow();
        key.as_ref().filter(|key| key.accepts(&self.digest)).map(|key| key.record.clone())
    }

    /// Waits until the key changes or ends.
    pub(crate) async fn changed(&mut self) {
        // A key that has ended does not come back for this session.
        if self.key.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
impl From<KeyRecord> for Grant {
    /// A grant that does not change.
    fn from(record: KeyRecord) -> Self {
        let digest = record.digest.clone();
        let (_, key) = watch::channel(Some(Arc::new(ValidKey { record: Arc::new(record), previous: None })));
        Self { key, digest }
    }
}
