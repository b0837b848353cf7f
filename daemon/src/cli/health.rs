//! `cokd health`: asks the running daemon whether visitors can use it, for health checks of containers.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use cok_host::say;
use http::{Method, StatusCode};

use super::admin::{Daemon, Unanswered};
use super::exit::DEFAULT_CONFIG;
use crate::admin::READY;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
    /// The daemon's admin address, to ask there instead of at the socket in state_dir
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Prints the daemon's answer. Fails if it is not ready.
pub(super) async fn ask(args: &HealthArgs, config: &Config) -> anyhow::Result<()> {
    // Without the token: health needs none, and this user may not be able to read it.
    let daemon = match args.admin {
        Some(address) => Daemon::Address(address, None),
        None => Daemon::of(config, None)?,
    };
    let answered = daemon.ask(Method::GET, READY, Vec::new()).await.map_err(|error| match error {
        Unanswered::Unreachable(error) => error.into(),
        Unanswered::Lost(error) => error,
    });
    let (status, text) = answered.with_context(|| format!("cannot ask the daemon at {daemon}"))?;
    let text = String::from_utf8_lossy(&text);
    ensure!(status == StatusCode::OK, "{}", text.trim());
    say!("{}", text.trim());
    Ok(())
}
