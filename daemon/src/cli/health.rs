//! `cokd health`: asks the running daemon whether visitors can use it, for health checks of containers. It also names what
//! fails meanwhile.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use cok_certs::one_line;
use cok_client::logging;
use cok_host::say;
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::admin::Daemon;
use super::exit::{DEFAULT_CONFIG, FAILED, block_on};
use crate::admin::HEALTH;
use crate::config;
use crate::observe::{Component, Condition, Report};

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
    /// Print the daemon's health in JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and prints the daemon's answer. Every failure ends with 1: no daemon, no answer in time, or one that is not ready. A
/// component that fails does not, while visitors can use the daemon.
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
    let answered = timeout(LIMIT, report(&daemon)).await;
    let answered = answered.with_context(|| format!("no answer within {} s", LIMIT.as_secs())).flatten();
    let report = answered.with_context(|| format!("cannot ask the daemon at {daemon}"))?;
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    }
    if let Some(why) = &report.why {
        bail!("not ready: {why}");
    }
    if !args.json {
        say!("ready");
        for component in report.components.iter().filter(|component| component.state == Condition::Failing) {
            say!("{}", line(component));
        }
    }
    Ok(())
}

async fn report(daemon: &Daemon) -> anyhow::Result<Report> {
    let (status, text) = daemon.ask(Method::GET, HEALTH, Vec::new()).await?;
    ensure!(status == StatusCode::OK, "{}", String::from_utf8_lossy(&text).trim());
    serde_json::from_slice(&text).context("the daemon's answer")
}

/// A component that fails, in one line.
fn line(component: &Component) -> String {
    let Component { name, since, why, .. } = component;
    let since = UNIX_EPOCH + Duration::from_secs(since.unsigned_abs());
    let why = one_line(why.as_deref().unwrap_or_default());
    format!("{name} fails since {}: {why}", humantime::format_rfc3339_seconds(since))
}
