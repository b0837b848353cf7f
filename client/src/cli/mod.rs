//! The program: it runs the tunnels of the command line, reports on them, and ends with an exit code.

mod args;
pub mod man_pages;
mod program;
mod report;
mod service;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use self::args::Args;
use self::man_pages::{CompletionsArgs, ManArgs};
pub use self::report::reporter;
use self::service::ServiceCommand;
use self::signals::{Signals, StopRequest};
use crate::client::Client;
use crate::config::ConfigError;
use crate::event::Refused;
use crate::logging::{self, LogFormat};
use crate::options::{ClientOptions, TunnelOptions};

/// Something failed at run time.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;
/// The daemon refused the key or the name.
const REFUSED: u8 = 3;
/// How long the last frames have to leave when the program ends at once. Without them, the daemon would keep a tunnel over
/// QUIC until its idle timeout.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Puts a local service at a public HTTPS address.
#[derive(Debug, Parser)]
#[command(name = "cok-client", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
}

/// Other things that the program does. No target may look like their names.
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
    start(&Cli::parse())
}

/// Runs the client as a subcommand of another program; `words` call it, such as `cokd client`.
pub fn main_of(cli: &Cli, words: &'static str) -> ExitCode {
    program::call_it(words);
    start(cli)
}

fn start(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        None => return tunnels(&cli.args),
        Some(Command::Service(command)) => service::run(command),
        Some(Command::Completions(args)) => man_pages::completions(Cli::command(), args).map_err(Into::into),
        Some(Command::Man(args)) => man_pages::man(Cli::command(), args).map_err(Into::into),
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
    let (client, tunnels) = match args.options() {
        Ok(options) => options,
        Err(error) => return fail(USAGE, format, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, format, &anyhow!(error).context("cannot start")),
    };
    let result = runtime.block_on(run(client, tunnels));
    // A lookup of a name may still block a thread. Its result is not needed any more.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Refused>() => fail(REFUSED, format, &error),
        Err(error) => fail(FAILED, format, &error),
    }
}

/// Prints one line that says what, why and what to do. Prints a line for each mistake in the configuration.
fn fail(code: u8, format: LogFormat, error: &anyhow::Error) -> ExitCode {
    let lines = match error.downcast_ref::<ConfigError>() {
        Some(error) => error.mistakes().to_vec(),
        None => vec![format!("{error:#}").replace('\n', " ")],
    };
    for reason in lines {
        match format {
            LogFormat::Json if code == REFUSED => error!(event = "refused", reason),
            LogFormat::Json => error!(event = "failed", reason),
            _ => logging::complain(&format!("{}: {reason}", program::called())),
        }
    }
    ExitCode::from(code)
}

/// Keeps all tunnels up until a signal asks to stop, or until the daemon has refused all of them. After a second signal, it
/// does not wait for requests under way.
async fn run(options: ClientOptions, tunnels: Vec<TunnelOptions>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let (client, driver) = Client::new(options);
    let mut opened = Vec::new();
    for tunnel in tunnels {
        opened.push(client.open(tunnel)?);
    }
    let mut running = JoinSet::new();
    let stopped = stop.clone();
    running.spawn(async move { driver.run(stopped, reporter()).await });
    loop {
        tokio::select! {
            ended = running.join_next() => return match ended {
                None | Some(Ok(Ok(()))) => Ok(()),
                Some(Ok(Err(refused))) => Err(refused.into()),
                Some(Err(error)) => Err(error).context("the client's task failed"),
            },
            request = signals.next() => match request {
                StopRequest::Signal if stop.is_cancelled() => break,
                StopRequest::Signal | StopRequest::HangUp => stop.cancel(),
            },
        }
    }
    // The session says goodbye as it is dropped.
    running.shutdown().await;
    sleep(LAST_WORDS).await;
    Ok(())
}
