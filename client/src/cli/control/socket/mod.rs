//! How clients on one machine find and reach each other: Unix sockets, or what the system has in their place.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use self::unix::{Answering, Asking, Listener, SocketPath, listen, running};
#[cfg(windows)]
pub(super) use self::windows::{Answering, Asking, Listener, SocketPath, listen, running};
