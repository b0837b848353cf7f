//! `cokd health`: asks the running daemon whether visitors can use it, for health checks of containers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use cok_client::logging;
use cok_host::say;
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::admin::{Daemon, Unanswered};
use super::exit::{DEFAULT_CONFIG, FAILED, block_on};
use crate::admin::READY;
use crate::config;

/// Time limit for the answer. The container's health check kills this command after 5 s, and its reason would be lost.
const LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The configuration file, of which only state_dir is read
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's state directory, without a look at the configuration file
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "admin"])]
    state_dir: Option<PathBuf>,
    /// The daemon's admin address, to ask there instead of at the socket in its state directory
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Asks, and prints the daemon's answer. Every failure ends with 1: no daemon, no answer in time, or one that is not ready.
pub(super) fn run(args: &HealthArgs) -> ExitCode {
    match block_on(ask(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::complain(&format!("cokd: {error:#}").replace('\n', " "));
            ExitCode::from(FAILED)
        }
    }
}

async fn ask(args: &HealthArgs) -> anyhow::Result<()> {
    // Without the token: health needs none, and this user may not be able to read it.
    let daemon = match (args.admin, &args.state_dir) {
        (Some(address), _) => Daemon::Address(address, None),
        (None, Some(state_dir)) => Daemon::Socket(state_dir.clone()),
        // A running daemon is well even if its file now has a mistake.
        (None, None) => Daemon::Socket(config::state_dir(&args.config)?),
    };
    let asked = async {
        daemon.ask(Method::GET, READY, Vec::new()).await.map_err(|error| match error {
            Unanswered::Unreachable(error) => error.into(),
            Unanswered::Lost(error) => error,
        })
    };
    let answered = timeout(LIMIT, asked).await.with_context(|| format!("no answer within {} s", LIMIT.as_secs()));
    let (status, text) = answered.flatten().with_context(|| format!("cannot ask the daemon at {daemon}"))?;
    let text = String::from_utf8_lossy(&text);
    ensure!(status == StatusCode::OK, "{}", text.trim());
    say!("{}", text.trim());
    Ok(())
}
