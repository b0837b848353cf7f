//! Signals of Unix. SIGHUP means either to stop or to reload.

use std::fs::File;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::Asked;

/// The controlling terminal of the process that opens it (tty(4)).
const TERMINAL: &str = "/dev/tty";
/// SIGHUP's bit in the mask of ignored signals.
const HANGUP_BIT: u64 = 1;

/// The signals of the process.
#[derive(Debug)]
pub(in crate::cli) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if the parent had the process ignore SIGHUP, as nohup(1) does.
    hangup: Option<Signal>,
    /// The process had a controlling terminal when it started.
    had_terminal: bool,
}

impl Signals {
    /// Starts to listen to the signals.
    pub(in crate::cli) fn new() -> io::Result<Self> {
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
            had_terminal: has_terminal(),
        })
    }

    /// Waits for a signal.
    pub(in crate::cli) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            () = received(self.hangup.as_mut()) => {
                if self.had_terminal && !has_terminal() {
                    info!(event = "terminal_closed", "the terminal is closed, so the client stops");
                    return Asked::HangUp;
                }
                Asked::Reload
            }
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn has_terminal() -> bool {
    File::open(TERMINAL).is_ok()
}

/// Whether the parent had the process ignore SIGHUP (proc_pid_status(5)). False if that is unknown.
fn ignores_hangup() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_hangup_ignored(&status))
}

fn is_hangup_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANGUP_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert!(is_hangup_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!is_hangup_ignored("SigIgn:\t0000000000001000\n"));
        assert!(!is_hangup_ignored("SigIgn:\tx\n") && !is_hangup_ignored(""));
    }
}
