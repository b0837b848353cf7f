//! The program: it runs the tunnels of the command line, reports on them, and ends with an exit code.

mod access_flags;
mod args;
mod config_command;
mod control;
mod doctor;
mod failure;
mod inspector;
mod login;
pub mod man_pages;
mod manual;
mod overview;
mod panel;
mod plan;
mod program;
mod report;
mod requests;
mod running;
mod serve;
mod service;
pub mod settings_page;
mod share;
mod signals;
mod target_flags;
mod url;
mod verbosity;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};
use cok_host::output;
use cok_trace::Tracer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::args::Args;
use self::args::{Flags, LogTopic, StartArgs};
use self::config_command::ConfigCommand;
use self::control::{Control, Order, PickArgs, StatusArgs};
use self::doctor::DoctorArgs;
use self::failure::fail;
pub use self::failure::{Usage, exit_code};
use self::inspector::{HarArgs, ReplayArgs, RequestsArgs};
use self::login::LoginArgs;
use self::man_pages::{CompletionsArgs, ManArgs};
use self::manual::{MANUAL, PAGE};
use self::overview::Overview;
use self::panel::{Panel, Sources};
use self::plan::{Invocation, Plan};
pub use self::program::call_it;
use self::program::called;
pub use self::report::reporter;
use self::requests::RequestLog;
use self::running::Running;
use self::serve::ServeArgs;
use self::service::ServiceCommand;
use self::share::ShareArgs;
use self::signals::{Asked, Signals};
pub use self::target_flags::TargetFlags;
pub use self::verbosity::Verbosity;
use crate::client::Client;
use crate::event::Event;
use crate::events::Observation;
use crate::inspect::Inspector;
use crate::logging::{self, LogFormat};
use crate::options::ClientOptions;

/// How long the last frames have to leave when the program ends at once. Without them, the daemon would keep a tunnel over
/// QUIC until its idle timeout.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often the panel has the round trip measured, and how often while there is no measure yet.
const MEASURE_AGAIN: Duration = Duration::from_secs(10);
const MEASURE_FIRST: Duration = Duration::from_secs(1);
/// The most orders of the control socket that wait.
const MAX_ORDERS: usize = 16;

/// What is logged with -v.
const CHATTY: &str = "info,cok_client=debug";

/// Puts a local service at a public HTTPS address.
///
/// cok-client dials out to a cokd server, from behind any NAT, and carries the requests of visitors to a service on this
/// machine. It prints the public address on standard output.
#[derive(Debug, Parser)]
#[command(name = "cok-client", version, about, args_conflicts_with_subcommands = true, after_help = MANUAL.help("cok-client"))]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
}

/// Other things that the program does. No target may look like their names.
#[derive(Debug, Subcommand)]
enum Command {
    /// Open tunnels of the configuration file
    Start(Box<StartArgs>),
    /// Put the files of a folder at a public address
    #[command(after_help = MANUAL.help("cok-client serve"))]
    Serve(Box<ServeArgs>),
    /// Store the server and an API key, which is asked for on the terminal or read from a pipe
    #[command(after_help = MANUAL.help("cok-client login"))]
    Login(LoginArgs),
    /// Change, check or find the configuration file
    #[command(subcommand, after_help = MANUAL.help("cok-client config"))]
    Config(ConfigCommand),
    /// List the tunnels of all running clients
    Status(StatusArgs),
    /// Have a running client read its configuration file again; only tunnels that differ are opened, closed or changed
    Reload(PickArgs),
    /// Stop a running client
    Stop(PickArgs),
    /// List the latest requests of a running client's tunnels
    #[command(after_help = MANUAL.help("cok-client requests"))]
    Requests(RequestsArgs),
    /// Send a request to the service again
    #[command(after_help = MANUAL.help("cok-client replay"))]
    Replay(ReplayArgs),
    /// Write the latest requests into an HTTP archive, which browsers and other tools read
    Har(HarArgs),
    /// Find out what is in the way of a tunnel, and what to do; takes the options of a start
    #[command(after_help = MANUAL.help("cok-client doctor"))]
    Doctor(Box<DoctorArgs>),
    /// Print an address that lets its holders into a tunnel for a while, or revoke one
    Share(ShareArgs),
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
    main_of(&Cli::parse())
}

/// Runs the client as a subcommand of another program, which has said so by [`call_it`].
pub fn main_of(cli: &Cli) -> ExitCode {
    output::checked(start(cli))
}

fn start(cli: &Cli) -> ExitCode {
    let code = run_command(cli);
    logging::flush();
    code
}

fn run_command(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        None => return tunnels(&cli.args.flags, cli.args.invocation()),
        Some(Command::Start(args)) => return tunnels(&args.flags, Ok(args.invocation())),
        Some(Command::Serve(args)) => return tunnels(&args.flags, args.invocation()),
        Some(Command::Login(args)) => login::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Config(command)) => config_command::run(command).map(|()| ExitCode::SUCCESS),
        Some(Command::Status(args)) => control::status(args),
        Some(Command::Reload(args)) => control::reload(args),
        Some(Command::Stop(args)) => control::stop(args),
        Some(Command::Requests(args)) => inspector::requests(args),
        Some(Command::Replay(args)) => inspector::replay(args),
        Some(Command::Har(args)) => inspector::har(args),
        Some(Command::Doctor(args)) => {
            return doctor::run(args).unwrap_or_else(|error| fail(args.log_format(), &error));
        }
        Some(Command::Share(args)) => share::run(args),
        Some(Command::Service(command)) => service::run(command).map(|()| ExitCode::SUCCESS),
        Some(Command::Completions(args)) => {
            man_pages::completions(Cli::command(), args).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Some(Command::Man(args)) => {
            man_pages::man(Cli::command(), &MANUAL, &PAGE, args).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
    };
    done.unwrap_or_else(|error| fail(LogFormat::Text, &error))
}

fn tunnels(flags: &Flags, invocation: anyhow::Result<Invocation>) -> ExitCode {
    let format = flags.log_format;
    // Only here is the process sure to have one thread.
    let panel = panel::is_wanted(flags).then(panel::local_offset);
    let filter = match flags.log {
        _ if panel.is_some() => panel::LOG_FILTER,
        // The lines of requests have their failures.
        Some(LogTopic::Requests) => flags.verbosity.filter("info,cok_client::proxy=warn", CHATTY),
        None => flags.verbosity.filter("info", CHATTY),
    };
    logging::start("cok-client", format, filter);
    let prepared = invocation.and_then(|invocation| {
        let plan = invocation.plan()?;
        let client = invocation.client(&plan)?;
        Ok((invocation, plan, client))
    });
    let (invocation, plan, client) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(format, &Usage::of(error)),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format, &anyhow!(error).context("cannot start")),
    };
    let tracer = Tracer::from_env("cok-client", env!("CARGO_PKG_VERSION"));
    let result = runtime.block_on(run((flags, panel), &invocation, plan, (client, tracer.as_ref())));
    // A lookup of a name may still block a thread. Its result is not needed any more.
    runtime.shutdown_background();
    cok_trace::finish(tracer);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format, &error),
    }
}

/// Keeps all tunnels up until a signal or the control socket asks to stop, or until the daemon has refused all of them.
/// After a second signal, it does not wait for requests under way.
async fn run(
    (flags, panel): (&Flags, Option<i64>),
    invocation: &Invocation,
    plan: Plan,
    (options, tracer): (ClientOptions, Option<&Tracer>),
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let server = options.server.to_string();
    let (client, mut driver) = Client::new(options);
    if let Some(tracer) = tracer {
        driver = driver.traced(tracer);
    }
    // Without a home there is no place for the socket, and nothing that would ask there.
    let state_dir = invocation.state_dir().ok();
    let client = inspector::opened(client, plan.inspect(), state_dir.as_deref());
    let overview = Arc::new(Overview::new(client.clone()));
    let _requests = flags.log.map(|LogTopic::Requests| {
        let (log, overview) = (RequestLog::new(flags.log_queries), overview.clone());
        client.observe(move |event| log.note(event, &overview))
    });
    let panel = panel.map(|offset| open_panel(&client, server.clone(), offset, &overview)).transpose()?;
    let mut tunnels = Running::open(invocation, plan, client, &overview)?;
    let (orders, mut ordered) = mpsc::channel(MAX_ORDERS);
    let control = match &state_dir {
        Some(state_dir) => Control::new(state_dir).await,
        None => None,
    };
    let mut controlled = JoinSet::new();
    controlled.spawn(control::serve(control, server, overview.clone(), orders, stop.clone()));
    let mut running = JoinSet::new();
    let (stopped, observed) = (stop.clone(), overview.clone());
    // The panel shows what the reporter would say.
    let mut report = panel.is_none().then(reporter);
    let (format, mut is_announced) = (flags.log_format, panel.is_some());
    running.spawn(async move {
        let on_event = |mut event| {
            observed.note(&mut event);
            let is_online = matches!(event, Event::Connected { .. });
            if let Some(report) = &mut report {
                report(event);
            }
            if is_online && !std::mem::replace(&mut is_announced, true) {
                inspector::announce(observed.inspector(), format);
            }
        };
        driver.run(stopped, on_event).await
    });
    let result = loop {
        tokio::select! {
            ended = running.join_next() => break match ended {
                None | Some(Ok(Ok(()))) => Ok(()),
                Some(Ok(Err(refused))) => Err(refused.into()),
                Some(Err(error)) => Err(error).context("the client's task failed"),
            },
            asked = signals.next() => match asked {
                Asked::Stop if stop.is_cancelled() => {
                    // The session says goodbye as it is dropped.
                    running.shutdown().await;
                    sleep(LAST_WORDS).await;
                    break Ok(());
                }
                Asked::Stop | Asked::HangUp => stop.cancel(),
                // Its outcome is in the log.
                Asked::Reload => drop(tunnels.reload()),
            },
            Some(order) = ordered.recv() => match order {
                Order::Reload(answer) => drop(answer.send(tunnels.reload())),
                Order::Revoke(answer) => drop(answer.send(tunnels.apply_revocations().map_err(|error| format!("{error:#}")))),
                Order::Stop => stop.cancel(),
            },
        }
    };
    // The socket goes before the program, so that nothing stale is left.
    controlled.shutdown().await;
    result
}

/// Opens the panel, which follows all events of the client.
fn open_panel(
    client: &Client,
    server: String,
    offset: i64,
    overview: &Arc<Overview>,
) -> anyhow::Result<(Observation, Panel)> {
    let (overview, measured) = (overview.clone(), client.clone());
    let mut asked: Option<Instant> = None;
    let round_trip = Box::new(move || {
        let known = measured.round_trip();
        let enough = if known.is_some() { MEASURE_AGAIN } else { MEASURE_FIRST };
        if asked.is_none_or(|at| at.elapsed() >= enough) {
            measured.measure_round_trip();
            asked = Some(Instant::now());
        }
        known
    });
    let inspector = client.inspector().map(Inspector::secret_url);
    let sources = Sources { places: Box::new(move || overview.places()), round_trip, inspector };
    let program = format!("{} {}", called(), env!("CARGO_PKG_VERSION"));
    let panel = Panel::start(&program, server, offset, sources).context("cannot open the panel")?;
    Ok((client.observe(panel.observer()), panel))
}

/// The keys that the manual page of the file describes.
#[cfg(test)]
pub(crate) fn documented_keys() -> Vec<String> {
    PAGE.keys()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RESERVED;

    #[test]
    fn no_tunnel_may_have_the_name_of_a_command() {
        let command = Cli::command();
        for name in command.get_subcommands().map(clap::Command::get_name) {
            assert!(RESERVED.contains(&name), "{name}");
        }
        command.debug_assert();
    }
}
