//! `cokd reload`: asks the running daemon over its admin socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cok_client::logging;
use http::{Method, StatusCode};

use super::admin::Daemon;
use super::exit::{DEFAULT_CONFIG, USAGE, block_on, outcome, wrong};
use crate::admin::RELOAD;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's admin address, to ask there instead of at the socket in state_dir; needs token_file in [admin]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Checks the file first, since a wrong file may name a wrong place. Then asks the daemon.
pub(super) fn ask(args: &ReloadArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let mut refused = false;
    let asked = block_on(async {
        let daemon = Daemon::of(&config, args.admin)?;
        let (status, text) = daemon.ask(Method::POST, RELOAD, Vec::new()).await.map_err(|error| {
            let advice = match &daemon {
                Daemon::Socket(_) => "; if it was started with another `state_dir`, name its admin address by --admin",
                Daemon::Address(..) => "",
            };
            anyhow::Error::from(error).context(format!("cannot ask the daemon at {daemon}{advice}"))
        })?;
        let text = String::from_utf8_lossy(&text);
        refused = status == StatusCode::CONFLICT;
        anyhow::ensure!(refused || status == StatusCode::OK, "the daemon at {daemon} answered {status}: {text}");
        if refused {
            logging::complain(&text);
        }
        Ok(())
    });
    if refused { ExitCode::from(USAGE) } else { outcome(asked) }
}
