//! The socket of the admin API in the state directory. Only its owner can open it.
//!
//! A daemon gives the socket its name once it listens, and so takes the name over from a daemon that still stops, or that
//! was killed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cok_host::private_file;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Admin, Door, Places};

const FILE: &str = "admin.sock";
/// The longest path of a socket (`sockaddr_un` in unix(7)).
const LONGEST_PATH: usize = 107;
/// The wait after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A socket that listens. Dropping it removes its file, unless another daemon has taken the name over.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and inode of its file.
    file: (u64, u64),
}

/// The socket's path in a state directory.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Connects to the daemon with this state directory.
pub(crate) fn connect(state_dir: &Path) -> io::Result<UnixStream> {
    let stream = reach(&path(state_dir), |path| StdStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Passes a path on that is short enough for a socket: through a descriptor of its folder if need be.
fn reach<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if path.as_os_str().len() > LONGEST_PATH => {
            let folder = File::open(folder)?;
            act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
        }
        _ => act(path),
    }
}

impl AdminSocket {
    /// Listens in this state directory.
    pub(crate) fn bind(state_dir: &Path) -> io::Result<Self> {
        // Only this user can open the folder, so the socket has its mode before others can reach it.
        let temporary = private_file::temporary_folder(state_dir)?;
        let unnamed = temporary.path().join(FILE);
        let listener = reach(&unnamed, |path| StdListener::bind(path))?;
        fs::set_permissions(&unnamed, Permissions::from_mode(0o600))?;
        let metadata = fs::symlink_metadata(&unnamed)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let path = path(state_dir);
        fs::rename(&unnamed, &path)?;
        Ok(Self { listener, path, file: (metadata.dev(), metadata.ino()) })
    }

    /// Serves the admin API. Runs until it is dropped.
    pub(crate) async fn serve(self, admin: Arc<Admin>) {
        let places = Places::default();
        loop {
            let Some(place) = places.take().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let admin = admin.clone();
                    tokio::spawn(admin.serve(stream, Door::Socket, place));
                }
                Err(error) => {
                    debug!(%error, "cannot accept a connection at the admin socket: {error}");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let is_own = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if is_own && let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, "cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        // A killed daemon leaves its socket.
        drop(StdListener::bind(path(folder.path())).unwrap());
        let first = AdminSocket::bind(folder.path()).unwrap();
        assert_eq!(fs::metadata(path(folder.path())).unwrap().mode() & 0o777, 0o600);
        let second = AdminSocket::bind(folder.path()).unwrap();
        drop(first);
        let _connected = connect(folder.path()).unwrap();
        second.listener.accept().await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        drop(second);
        assert_eq!(connect(folder.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_long_path_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        let socket = AdminSocket::bind(&long).unwrap();
        let _connected = connect(&long).unwrap();
        socket.listener.accept().await.unwrap();
    }
}
