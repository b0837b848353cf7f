//! Unix sockets, `run/PID.sock` in the state directory: where they are, and which of them a client still serves.
//!
//! A socket gets its name only once it listens. So a socket that refuses connections has no client any more. A lock on the
//! folder keeps two clients from removing and naming sockets at once.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cok_host::private_file;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// The folder in the state directory.
const FOLDER: &str = "run";
const EXTENSION: &str = "sock";
/// How often a client tries to lock the folder, and the wait between two tries.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// The most time for a connection. A client accepts at once, unless it is suspended.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The two ends of a connection: the one that asks, and the one that answers.
pub(in super::super) type Asking = UnixStream;
pub(in super::super) type Answering = UnixStream;

/// A socket that listens.
#[derive(Debug)]
pub(in super::super) struct Listener(UnixListener);

impl Listener {
    /// Waits for the next connection.
    pub(in super::super) async fn accept(&mut self) -> io::Result<Answering> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// The path of a client's socket. Dropping it removes the socket.
#[derive(Debug)]
pub(in super::super) struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // If it stays, the next client removes it.
        let _stays = std::fs::remove_file(&self.0);
    }
}

/// Listens on the socket of this process, and removes those of clients that have ended.
pub(in super::super) async fn listen(state_dir: &Path, pid: u32) -> io::Result<(Listener, SocketPath)> {
    let folder = state_dir.join(FOLDER);
    private_file::create_private_folder(&folder)?;
    let _lock = lock(&folder).await?;
    // Only the owner of the lock makes temporary files here. One that stays does no harm.
    private_file::sweep(&folder, |_, _| {})?;
    for (_, path) in sockets(&folder)? {
        remove_stale(&path).await;
    }
    let path = socket_path(&folder, pid);
    if path.symlink_metadata().is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another client serves {}", path.display())));
    }
    let temporary = private_file::temporary_folder(&folder)?;
    let unnamed = temporary.path().join(EXTENSION);
    let listener = UnixListener::bind(&unnamed)?;
    std::fs::set_permissions(&unnamed, Permissions::from_mode(0o600))?;
    std::fs::rename(&unnamed, &path)?;
    Ok((Listener(listener), SocketPath(path)))
}

/// The clients that run, by their PIDs. Removes the sockets of those that have ended.
pub(in super::super) async fn running(state_dir: &Path) -> io::Result<Vec<(u32, io::Result<Asking>)>> {
    let folder = state_dir.join(FOLDER);
    let mut found = match sockets(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    found.sort_unstable();
    let mut running = Vec::new();
    for (pid, path) in found {
        match connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Ok(_lock) = lock(&folder).await {
                    remove_stale(&path).await;
                }
            }
            connected => running.push((pid, connected)),
        }
    }
    Ok(running)
}

fn socket_path(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("{pid}.{EXTENSION}"))
}

/// The sockets in the folder, with the PIDs in their names.
fn sockets(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok());
        if let (Some(pid), true) = (pid, entry.file_type().is_ok_and(|kind| kind.is_socket())) {
            found.push((pid, entry.path()));
        }
    }
    Ok(found)
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await?
}

/// Removes a socket if its client has ended. The caller holds the lock.
async fn remove_stale(path: &Path) {
    if connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // If it stays, it only costs the next client a try.
        let _stays = std::fs::remove_file(path);
    }
}

/// Locks the folder until the result is dropped.
async fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(LOCK_WAIT).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another client holds the lock on the folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_client() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        let (listener, path) = listen(state.path(), 7).await.unwrap();
        assert_eq!((mode(&folder), mode(&folder.join("7.sock"))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        let found = running(state.path()).await.unwrap();
        assert!(found.len() == 1 && found[0].0 == 7 && found[0].1.is_ok());
        drop((path, listener));
        assert!(running(state.path()).await.unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_stale_sockets_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        let (_listener, _path) = listen(state.path(), 1).await.unwrap();
        // A killed client leaves its socket. Its name may be the one of a later process.
        for pid in [2, 3] {
            drop(std::os::unix::net::UnixListener::bind(socket_path(&folder, pid)).unwrap());
        }
        std::fs::write(folder.join("4.sock"), "no socket").unwrap();
        let (_second, _path) = listen(state.path(), 2).await.unwrap();
        let pids = |found: Vec<(u32, _)>| found.into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
        assert_eq!(pids(running(state.path()).await.unwrap()), [1, 2]);
        assert!(!folder.join("3.sock").exists() && folder.join("4.sock").exists());
        // Two containers with one state directory may have the same PID.
        assert_eq!(listen(state.path(), 1).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(pids(running(state.path()).await.unwrap()), [1, 2]);
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_used_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        assert!(running(&state.path().join("none")).await.unwrap().is_empty());
        std::fs::write(state.path().join(FOLDER), "").unwrap();
        assert!(listen(state.path(), 1).await.is_err());
        assert!(listen(&state.path().join("long".repeat(40)), 1).await.is_err());
    }
}
