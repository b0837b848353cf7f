//! How much a program logs.

use clap::ArgAction;

/// How much is logged. `RUST_LOG` beats it.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Verbosity {
    /// Log more, in a client every request; -vv also what happens inside, for a report of a fault
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

impl Verbosity {
    /// Whether the user has chosen how much.
    pub fn is_set(self) -> bool {
        self.quiet || self.verbose > 0
    }

    /// The filter of the log: `usual` without these flags, `requests` with -v.
    pub fn filter(self, usual: &'static str, requests: &'static str) -> &'static str {
        match self.verbose {
            _ if self.quiet => "warn",
            0 => usual,
            1 => requests,
            _ => "debug",
        }
    }
}
