//! The command line.

mod admin;
mod cert;
mod check;
mod exit;
mod health;
mod key;
mod live;
mod log_level;
mod manual;
mod reload;
mod top;
mod tunnels;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use cok_client::cli as client;
use cok_client::cli::Verbosity;
use cok_client::cli::man_pages::{self, CompletionsArgs, ManArgs};
use cok_client::logging::{self, LogFormat};
use cok_host::output;
use cok_trace::Tracer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::cert::CertCommand;
use self::check::CheckArgs;
use self::exit::{DEFAULT_CONFIG, block_on, outcome, wrong};
use self::health::HealthArgs;
use self::key::KeyCommand;
use self::log_level::LogLevelArgs;
#[cfg(test)]
pub(crate) use self::manual::documented_keys;
use self::manual::{MANUAL, PAGE};
use self::reload::ReloadArgs;
use self::top::TopArgs;
use self::tunnels::TunnelsArgs;
use crate::app::dev::{self, DevArgs};
use crate::app::{App, StopSignals};
use crate::config::Config;
use crate::drain::Drain;
use crate::host::activation::Inherited;
use crate::host::notify;

/// The exit codes of `cokd check`.
const CHECK_CODES: &str = "Exit codes: 0 all is well, 1 something around the configuration is missing or in the way, such as a \
                           DNS record, a key or a free port, 2 the configuration has a mistake.";
/// The least time that a start with a wrong configuration takes under socket activation. systemd does not restart the
/// service after that, but a visitor who waits in the socket starts it again at once.
const WRONG_START: Duration = Duration::from_secs(2);

/// Puts services that run at home at public HTTPS addresses.
///
/// cokd is the server. It answers visitors on the internet for all names under one domain. It carries their requests
/// through tunnels to the clients that have dialled in (cok-client). Its certificates come by ACME.
#[derive(Debug, Parser)]
#[command(name = "cokd", version, about, args_conflicts_with_subcommands = true, after_help = MANUAL.help("cokd"))]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (the default)
    Run(RunArgs),
    /// Try everything on this machine: a daemon, a client and a site at https://demo.cok.localhost:8443
    #[command(after_help = MANUAL.help("cokd dev"))]
    Dev(DevArgs),
    /// Put a local service at a public address: the same as cok-client
    Client(Box<client::Cli>),
    /// Check a configuration and what is around it: files, ports, keys and DNS
    #[command(after_help = CHECK_CODES)]
    Check(CheckArgs),
    /// Ask the running daemon whether visitors can use it; exit code 1 if not
    Health(HealthArgs),
    /// Have the running daemon reload its configuration; exit code 2 if it can't be applied and nothing changed
    Reload(ReloadArgs),
    /// Show or change what the running daemon logs
    LogLevel(LogLevelArgs),
    /// Show or renew the certificate
    #[command(subcommand)]
    Cert(CertCommand),
    /// Make, show, change and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// List the tunnels of the running daemon, or follow their changes
    Tunnels(TunnelsArgs),
    /// Show the tunnels of the running daemon in this terminal, live
    #[command(after_help = top::KEYS)]
    Top(TopArgs),
    /// Print a script that completes this command line
    Completions(CompletionsArgs),
    /// Print the man page
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where log lines go, and how they look
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    #[command(flatten)]
    verbosity: Verbosity,
}

/// Runs the daemon as its command line says.
pub fn main() -> ExitCode {
    let code = run_command();
    logging::flush();
    code
}

fn run_command() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "client") {
        client::call_it("cokd client");
    }
    output::checked(start(Cli::parse()))
}

fn start(cli: Cli) -> ExitCode {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => {
            // Must run before the runtime starts its threads.
            let inherited = Inherited::take();
            logging::start("cokd", args.log_format, args.verbosity.filter("info", "info,cokd=debug"));
            run(&args, inherited)
        }
        Command::Dev(args) => {
            logging::start(
                "cokd",
                args.log_format,
                args.verbosity.filter(dev::LOG_FILTER, "info,cokd=debug,cok_client=debug"),
            );
            let tracer = Tracer::from_env("cokd", env!("CARGO_PKG_VERSION"));
            let served = block_on(dev::run(args, tracer.clone()));
            cok_trace::finish(tracer);
            outcome(served)
        }
        Command::Client(cli) => client::main_of(&cli),
        Command::Check(args) => check::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Cert(command) => match Config::load(command.file()) {
            Ok(config) => outcome(cert::run(&command, &config)),
            Err(error) => wrong(&error),
        },
        Command::Reload(args) => reload::ask(&args),
        Command::LogLevel(args) => log_level::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Tunnels(args) => tunnels::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Completions(args) => outcome(man_pages::completions(Cli::command(), &args).map_err(Into::into)),
        Command::Man(args) => outcome(man_pages::man(Cli::command(), &MANUAL, &PAGE, &args).map_err(Into::into)),
    }
}

fn run(args: &RunArgs, inherited: anyhow::Result<Inherited>) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            notify::status(&error.to_string().replace('\n', "; "));
            let code = wrong(&error);
            if inherited.is_ok_and(|inherited| !inherited.is_empty()) {
                std::thread::sleep(WRONG_START);
            }
            return code;
        }
    };
    let tracer = Tracer::from_env("cokd", env!("CARGO_PKG_VERSION"));
    let mut observers = None;
    let served = block_on(async {
        let app = App::build(config, Some(args.config.clone()), inherited?)?;
        observers = Some(app.observers());
        if let Some(tracer) = &tracer {
            app.observers().trace(tracer.clone());
        }
        let signals = StopSignals::new()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (reloader, drain) = (app.reloader(), app.drain());
        let reloads = tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let reloader = reloader.clone();
                let _logged = tokio::task::spawn_blocking(move || reloader.reload()).await;
            }
        });
        let stop = CancellationToken::new();
        let on_stop = || {
            say_what_runs(&drain);
            stop.cancel();
        };
        if signals.until_stopped(app.run(stop.cancelled()), on_stop).await.is_none() {
            info!(event = "stopped", finished = false, "stopped at once");
        }
        reloads.abort();
        Ok(())
    });
    // Requests that were cut have their lines and spans by now.
    if let Some(observers) = observers {
        observers.access_log.flush();
    }
    cok_trace::finish(tracer);
    if let Err(error) = &served {
        notify::status(&format!("{error:#}").replace('\n', " "));
    }
    outcome(served)
}

/// Prints what a stop waits for. Prints nothing under a service manager, which has its own limit and no Ctrl-C.
fn say_what_runs(drain: &Drain) {
    let visitors = drain.present();
    if visitors == 0 || notify::is_present() {
        return;
    }
    let within = drain.timeout().as_secs();
    info!(
        event = "stopping",
        visitors,
        "stopping: {visitors} visitors' connections may finish within {within} s; press Ctrl-C again to stop at once"
    );
}
