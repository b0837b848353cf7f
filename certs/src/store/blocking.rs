//! Keeps slow disks away from the threads that serve visitors.

use std::panic;
use std::sync::Arc;

use super::folder::Store;

/// Disks may be slow, and nobody else should wait for them.
pub(crate) async fn on_disk<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> T + Send + 'static,
) -> T {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}
