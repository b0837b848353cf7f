//! Runs the store's work on threads that may block, so that a slow disk delays no visitor.

use std::panic;
use std::sync::Arc;

use super::folder::Store;

/// Runs `work` on a thread that may block. A panic of it is passed on.
pub(crate) async fn on_disk<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> T + Send + 'static,
) -> T {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
