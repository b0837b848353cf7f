//! The words by which the user calls the client: `cok-client`, or a subcommand of another program. Messages and systemd
//! units use them.

use std::sync::OnceLock;

pub(super) const OWN_NAME: &str = "cok-client";

static CALLED: OnceLock<&'static str> = OnceLock::new();

/// Sets the words that call the client as a subcommand of another program, before its command line is read.
pub fn call_it(words: &'static str) {
    // A process has one command line.
    let _set = CALLED.set(words);
}

/// The words that call it.
pub(super) fn called() -> &'static str {
    CALLED.get().copied().unwrap_or(OWN_NAME)
}

/// What comes between the program's file and the client's arguments.
pub(super) fn subcommand() -> Option<&'static str> {
    called().split_once(' ').map(|(_, subcommand)| subcommand)
}
