//! Unix sockets of local services, where the system has them.

use std::io;
use std::path::Path;

#[cfg(unix)]
pub(crate) use tokio::net::UnixStream;

/// Stands in for what the system does not have. There is never one.
#[cfg(not(unix))]
pub(crate) type UnixStream = tokio::io::DuplexStream;

/// Connects to a socket.
#[cfg(unix)]
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// Fails.
#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "other systems wait here")]
pub(crate) async fn connect(_path: &Path) -> io::Result<UnixStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}
