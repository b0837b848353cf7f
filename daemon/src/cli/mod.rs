//! The command line.

mod admin;
mod cert;
mod exit;
mod key;
mod manual;
mod reload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use cok_certs::dns::delegation;
use cok_client::cli as client;
use cok_client::cli::Verbosity;
use cok_client::cli::man_pages::{self, CompletionsArgs, ManArgs};
use cok_client::logging::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::cert::CertCommand;
use self::exit::{DEFAULT_CONFIG, USAGE, block_on, outcome, wrong};
use self::key::KeyCommand;
#[cfg(test)]
pub(crate) use self::manual::documented_keys;
use self::manual::{MANUAL, PAGE};
use self::reload::ReloadArgs;
use crate::app::dev::{self, DevArgs};
use crate::app::{App, StopSignals};
use crate::certificates::{self, Dns, Tls};
use crate::config::Config;
use crate::drain::Drain;
use crate::host::activation::Inherited;
use crate::host::notify;

/// The first port that needs no privilege; the service has none.
const FIRST_FREE_PORT: u16 = 1024;
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
    /// Check a configuration, and whether DNS leads to this daemon; names every mistake, with exit code 2
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Ask this DNS resolver for the delegation, instead of the system's
        #[arg(long, value_name = "ADDRESS")]
        resolver: Option<SocketAddr>,
    },
    /// Have the running daemon reload its configuration; exit code 2 if it can't be applied and nothing changed
    Reload(ReloadArgs),
    /// Show or renew the certificate
    #[command(subcommand)]
    Cert(CertCommand),
    /// Make, show, change and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
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
    if std::env::args_os().nth(1).is_some_and(|command| command == "client") {
        client::call_it("cokd client");
    }
    let cli = Cli::parse();
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
            outcome(block_on(dev::run(args)))
        }
        Command::Client(cli) => client::main_of(&cli),
        Command::Check { config, resolver } => check(&config, resolver),
        Command::Cert(command) => match Config::load(command.file()) {
            Ok(config) => outcome(cert::run(&command, &config)),
            Err(error) => wrong(&error),
        },
        Command::Reload(args) => reload::ask(&args),
        Command::Key(command) => key::run(&command),
        Command::Completions(args) => outcome(man_pages::completions(Cli::command(), &args).map_err(Into::into)),
        Command::Man(args) => outcome(man_pages::man(Cli::command(), &MANUAL, &PAGE, &args).map_err(Into::into)),
    }
}

/// Checks the file and DNS. Mistakes in the file are errors. Missing DNS records are only reported, since they may
/// still be added.
fn check(path: &Path, resolver: Option<SocketAddr>) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let mistakes = certificates::mistakes(&config.certificates, config.startup.domain.as_str());
    if !mistakes.is_empty() {
        for mistake in mistakes {
            logging::complain(&format!("{}: {mistake}", path.display()).replace('\n', " "));
        }
        return ExitCode::from(USAGE);
    }
    println!("{}: no mistakes", path.display());
    let Tls::Acme(acme) = &config.certificates.source else { return ExitCode::SUCCESS };
    let Dns::Embedded(zone) = &acme.dns else { return ExitCode::SUCCESS };
    if config.listen.startup.addresses.dns.iter().any(|address| address.port() < FIRST_FREE_PORT)
        && let Some(command) = notify::dns_socket_advice()
    {
        println!("DNS: the service cannot open its port itself, and cokd-dns.socket is not enabled: {command}");
    }
    outcome(block_on(async {
        let findings = delegation::advise(zone, config.startup.domain.as_str(), resolver).await;
        if findings.is_empty() {
            println!("DNS: all records that lead here are there: {}", zone.delegation());
        }
        for finding in findings {
            println!("DNS: {finding}");
        }
        Ok(())
    }))
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
    let served = block_on(async move {
        let app = App::build(config, Some(args.config.clone()), inherited?)?;
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
