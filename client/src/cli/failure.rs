//! How the program fails: its exit codes, and the lines that say why.

use std::process::ExitCode;

use tracing::error;

use super::program;
use crate::config::ConfigError;
use crate::logging::{self, LogFormat};

/// Something failed at run time.
pub(super) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(super) const USAGE: u8 = 2;
/// The daemon refused the key or the name.
pub(super) const REFUSED: u8 = 3;

/// Prints one line that says what, why and what to do. Prints a line for each mistake in the configuration.
pub(super) fn fail(code: u8, format: LogFormat, error: &anyhow::Error) -> ExitCode {
    for reason in said(error) {
        match format {
            LogFormat::Json if code == REFUSED => error!(event = "refused", reason),
            LogFormat::Json => error!(event = "failed", reason),
            _ => logging::complain(&format!("{}: {reason}", program::called())),
        }
    }
    ExitCode::from(code)
}

/// What is wrong, in one line, or in a line for each mistake in the configuration.
pub(super) fn said(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<ConfigError>() {
        Some(error) => error.mistakes().to_vec(),
        None => vec![format!("{error:#}").replace('\n', " ")],
    }
}
