//! What asks the program to stop or to reload: signals, or what the system has in their place.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use self::unix::Signals;
#[cfg(windows)]
pub(super) use self::windows::Signals;

/// What a signal asks for.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(windows, expect(dead_code, reason = "Windows asks only to stop"))]
pub(super) enum Asked {
    /// SIGTERM or SIGINT: stop.
    Stop,
    /// SIGHUP, and the terminal is closed: stop. The shell and the kernel may both send it.
    HangUp,
    /// Any other SIGHUP: read the file again.
    Reload,
}
