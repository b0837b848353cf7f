//! What health has to look at from time to time: the state of renewal, which is in files, and the space on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::Health;
use super::components::Name;
use crate::certificates::{CertificateStatus, Served};

/// How often it is looked. A change of the certificate is looked at once.
const LOOK: Duration = Duration::from_secs(5);
/// How long a look may take. A disk that needs longer does not work.
const LIMIT: Duration = Duration::from_secs(10);

/// The least free space of the disk with the state directory, in bytes. The store, its log and a few certificates need some
/// MiB, and an operator needs time to act.
const LEAST_FREE: u64 = 64 * 1024 * 1024;

/// What a look has found.
#[derive(Debug)]
struct Found {
    free: std::io::Result<u64>,
    status: Result<CertificateStatus, String>,
}

impl Health {
    /// Looks from time to time. Runs until it is dropped.
    pub(crate) async fn watch(self: Arc<Self>, served: Served, state_dir: PathBuf) {
        let served = Arc::new(served);
        loop {
            let (served, folder) = (served.clone(), state_dir.clone());
            let look = spawn_blocking(move || Found {
                free: free_space(&folder),
                status: served.status().map_err(|error| error.to_string()),
            });
            match timeout(LIMIT, look).await {
                Ok(Ok(found)) => self.take(found),
                Ok(Err(_)) => {}
                Err(_) => {
                    let why = format!("{}: no answer within {} s", state_dir.display(), LIMIT.as_secs());
                    self.components.note(Name::Disk, Some(why));
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.certificate.changed() => {}
            }
        }
    }

    fn take(&self, found: Found) {
        let full = match found.free {
            Ok(free) => {
                self.disk_free.store(free, Ordering::Relaxed);
                let low = free < LEAST_FREE;
                low.then(|| format!("only {} MiB are free for the state directory", free / (1024 * 1024)))
            }
            Err(error) => Some(format!("the state directory cannot be reached: {error}")),
        };
        self.components.note(Name::Disk, full);
        let (renewal, dns) = match found.status {
            Ok(status) => {
                let in_dns = status.dns_failed.unwrap_or_default();
                let why = status.last_error.filter(|_| status.source == "acme");
                (why.clone(), why.filter(|_| in_dns))
            }
            Err(error) => (Some(error), None),
        };
        self.components.note(Name::Acme, renewal);
        *self.dns_failure.lock() = dns;
        self.refresh();
    }
}

/// The bytes that the daemon's user may still write.
fn free_space(folder: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
