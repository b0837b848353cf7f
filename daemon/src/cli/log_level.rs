//! `cokd log-level`: shows or changes what the running daemon logs, over its admin socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use cok_client::logging;
use cok_host::say;
use http::{Method, StatusCode};

use super::admin::Daemon;
use super::exit::{DEFAULT_CONFIG, USAGE, block_on, outcome, wrong};
use crate::admin::{LOG_LEVEL, LogLevel, LogLevelChange};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct LogLevelArgs {
    /// What to log from now on: off, error, warn, info, debug or trace, and TARGET=LEVEL for single parts, separated by commas
    #[arg(value_parser = parse_filter)]
    filter: Option<String>,
    /// For how long, such as 10m; then the daemon logs again what it began with [default: until it ends]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, requires = "filter")]
    time: Option<Duration>,
    /// Log again what the daemon began with
    #[arg(long, conflicts_with = "filter")]
    reset: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's admin address, to ask there instead of at the socket in state_dir; changes need token_file in [admin]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

fn parse_filter(text: &str) -> Result<String, String> {
    logging::parse_filter(text).map_err(|error| error.to_string())
}

/// Asks the daemon, and prints what it logs.
pub(super) fn run(args: &LogLevelArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let mut refused = false;
    let asked = block_on(async {
        let daemon = Daemon::of(&config, args.admin)?;
        let (method, body) = if args.filter.is_some() || args.reset {
            let change =
                LogLevelChange { filter: args.filter.clone(), for_seconds: args.time.map(|time| time.as_secs()) };
            (Method::POST, serde_json::to_vec(&change)?)
        } else {
            (Method::GET, Vec::new())
        };
        let answered = daemon.ask(method, LOG_LEVEL, body).await.map_err(anyhow::Error::from);
        let (status, text) = answered.with_context(|| format!("cannot ask the daemon at {daemon}"))?;
        let text = String::from_utf8_lossy(&text);
        refused = status == StatusCode::BAD_REQUEST;
        if refused {
            logging::complain(&format!("cokd: {}", text.trim()));
            return Ok(());
        }
        ensure!(status == StatusCode::OK, "the daemon at {daemon} answered {status}: {}", text.trim());
        if args.json {
            say!("{}", text.trim());
        } else {
            let level: LogLevel = serde_json::from_str(&text)?;
            say!("{}", sentence(&level));
        }
        Ok(())
    });
    if refused { ExitCode::from(USAGE) } else { outcome(asked) }
}

/// The filter, and what comes after it.
fn sentence(level: &LogLevel) -> String {
    let LogLevel { filter, default, until } = level;
    match until {
        Some(until) => format!("{filter} (until {until}, then {default})"),
        None if filter == default => filter.clone(),
        None => format!("{filter} (at the start: {default})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_shown_with_what_comes_after_it() {
        let shown = |filter: &str, until: Option<&str>| {
            sentence(&LogLevel { filter: filter.into(), default: "info".into(), until: until.map(Into::into) })
        };
        assert_eq!(shown("info", None), "info");
        assert_eq!(shown("debug", None), "debug (at the start: info)");
        assert_eq!(shown("debug", Some("2026-01-01T00:00:00Z")), "debug (until 2026-01-01T00:00:00Z, then info)");
    }
}
