//! The program: tunnels as the command line says, what is heard of them meanwhile, and an exit code at the end.

mod args;
pub mod documents;
mod service;

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::args::Args;
pub(crate) use self::args::parse_interval;
use self::documents::{CompletionsArgs, ManArgs};
use self::service::ServiceCommand;
use crate::config::ConfigError;
use crate::logging::{self, LogFormat};
use crate::tunnel::{Event, Options, Refused, Tunnel};

/// Something failed at run time.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;
/// The daemon refused the key or the name.
const REFUSED: u8 = 3;

/// Puts a local service at a public HTTPS address.
#[derive(Debug, Parser)]
#[command(name = "cok-client", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
}

/// What it does besides; no target has such a name.
#[derive(Debug, Subcommand)]
enum Command {
    /// A unit of systemd that keeps the tunnels of the configuration file up
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Print a script that completes this command line
    Completions(CompletionsArgs),
    /// Print the man page
    Man(ManArgs),
}

/// Runs the client as its command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => return tunnels(&cli.args),
        Some(Command::Service(command)) => service::run(command),
        Some(Command::Completions(args)) => documents::completions(Cli::command(), args).map_err(Into::into),
        Some(Command::Man(args)) => documents::man(Cli::command(), args).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ConfigError>() => fail(USAGE, LogFormat::Text, &error),
        Err(error) => fail(FAILED, LogFormat::Text, &error),
    }
}

fn tunnels(args: &Args) -> ExitCode {
    let format = args.log_format;
    logging::start("cok-client", format, if args.verbose { "info,cok_client=debug" } else { "info" });
    let tunnels = match args.tunnels() {
        Ok(tunnels) => tunnels,
        Err(error) => return fail(USAGE, format, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, format, &anyhow!(error).context("cannot start")),
    };
    match runtime.block_on(run(tunnels)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Refused>() => fail(REFUSED, format, &error),
        Err(error) => fail(FAILED, format, &error),
    }
}

/// One line: what, why and what to do. A line for each mistake in the configuration.
fn fail(code: u8, format: LogFormat, error: &anyhow::Error) -> ExitCode {
    let lines = match error.downcast_ref::<ConfigError>() {
        Some(error) => error.mistakes().to_vec(),
        None => vec![format!("{error:#}").replace('\n', " ")],
    };
    for reason in lines {
        match format {
            LogFormat::Json if code == REFUSED => error!(event = "refused", reason),
            LogFormat::Json => error!(event = "failed", reason),
            _ => logging::complain(&format!("cok-client: {reason}")),
        }
    }
    ExitCode::from(code)
}

/// Keeps all tunnels up until a signal, or until one of them is refused. A second signal does not wait for running
/// exchanges.
async fn run(tunnels: Vec<Options>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    for options in tunnels {
        let (tunnel, stop) = (Tunnel::new(options)?, stop.clone());
        running.spawn(async move { tunnel.run(stop, reporter()).await });
    }
    let mut result = Ok(());
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => return result,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(refused))) => {
                    result = Err(refused.into());
                    stop.cancel();
                }
                Some(Err(error)) => {
                    result = Err(error).context("a tunnel's task failed");
                    stop.cancel();
                }
            },
            _ = terminate.recv() => if stop.is_cancelled() { return result } else { stop.cancel() },
            _ = interrupt.recv() => if stop.is_cancelled() { return result } else { stop.cancel() },
        }
    }
}

/// Reports what happens to one tunnel. Its address goes to standard output, alone on its line, when it is first online
/// and whenever the address has changed; the rest is for the log.
#[expect(clippy::print_stdout, reason = "the address is what the program is for")]
fn reporter() -> impl FnMut(Event) {
    let mut shown = String::new();
    move |event| match event {
        Event::Connected { transport, url, session, reason } => {
            if url != shown {
                println!("{url}");
                shown.clone_from(&url);
            }
            info!(event = "connected", transport, url, session, reason, "the tunnel is online: {url}");
        }
        Event::Fallback { from, to, reason } => {
            info!(event = "fallback", from, to, reason, "the tunnel takes {to}: {reason}");
        }
        Event::Disconnected { reason, retry_in } => {
            warn!(
                event = "disconnected",
                reason,
                retry_in_ms = retry_in.as_millis() as u64,
                "the tunnel is offline: {reason}"
            );
        }
    }
}
