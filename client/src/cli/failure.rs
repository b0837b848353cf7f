//! How the program fails: its exit codes, and the lines that say why.

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;

use super::program;
use crate::config::ConfigError;
use crate::event::Refused;
use crate::logging::{self, LogFormat};
use crate::settings::SettingError;

/// Something failed at run time.
pub(super) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(super) const USAGE: u8 = 2;
/// The daemon refused the key or the name.
pub(super) const REFUSED: u8 = 3;

/// Wrong usage, or a setting that is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Usage {
    /// Makes an error one of usage. A wrong configuration stays as it is, with a line for each mistake.
    pub(super) fn of(error: anyhow::Error) -> anyhow::Error {
        if error.is::<ConfigError>() { error } else { Self(format!("{error:#}")).into() }
    }
}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return if error.may_pass() { FAILED } else { USAGE };
    }
    if error.is::<Usage>() || error.is::<SettingError>() {
        return USAGE;
    }
    if error.is::<Refused>() { REFUSED } else { FAILED }
}

/// Prints one line that says what, why and what to do. Prints a line for each mistake in the configuration.
pub(super) fn fail(format: LogFormat, error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    for reason in said(error) {
        match format {
            // Not by the log, whose filter may leave it out.
            LogFormat::Json => {
                let event = if code == REFUSED { "refused" } else { "failed" };
                let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
                let line = json!({"timestamp": now, "level": "ERROR", "event": event, "reason": reason});
                logging::complain(&line.to_string());
            }
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
