//! The command line: from flags, environment and file to tunnels, and from their end to an exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Parser, ValueEnum};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{FileConfig, FileTunnel, home_folder};
use crate::connect::{Server, trust_file, trust_system};
use crate::instance::instance_id;
use crate::logging::{self, LogFormat};
use crate::proxy::HostHeader;
use crate::target::Target;
use crate::tunnel::{Event, Options, Refused, Tunnel};

/// Something failed at run time.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;
/// The daemon refused the key or the name.
const REFUSED: u8 = 3;

/// Puts a local service at a public HTTPS address.
#[derive(Debug, Parser)]
#[command(name = "cok-client", version, about)]
#[command(after_help = "Exit codes: 0 stopped on request, 1 failed at run time, 2 wrong usage or configuration, \
                        3 refused by the server (key, name).")]
pub struct Args {
    /// What to forward to: 3000, host:3000, http://…, https://…, h2c://… or unix:/path, optionally after the word
    /// "http"; without one, the tunnels of the configuration file
    #[arg(value_name = "TARGET", num_args = 0..=2)]
    target: Vec<String>,
    /// Short form of a TARGET on this machine
    #[arg(short, long, value_name = "PORT", conflicts_with = "target")]
    port: Option<u16>,
    /// The name to have; without one the server picks
    #[arg(short, long, env = "COK_SUBDOMAIN")]
    subdomain: Option<String>,
    /// The server, such as https://tunnel.example.com
    #[arg(long, env = "COK_SERVER")]
    server: Option<String>,
    /// How to reach the server
    #[arg(long, env = "COK_TRANSPORT")]
    transport: Option<TransportChoice>,
    /// The API key; better in the environment or in a file, since other users see command lines
    #[arg(long, env = "COK_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// What the service sees as Host: preserve, rewrite, or a value
    #[arg(long, value_name = "HOW")]
    host_header: Option<String>,
    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Dial this address instead of resolving the server's name
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect_to: Option<SocketAddr>,
    /// How long the service may take until its response begins, in seconds; 0 for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    response_timeout: u64,
    /// How long a connection to the service may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    connect_timeout: u64,
    /// The configuration file [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep the instance id [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Log every request
    #[arg(short, long)]
    verbose: bool,
}

/// How to reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportChoice {
    /// Whatever works best; for now a WebSocket
    Auto,
    /// QUIC streams
    Quic,
    /// A WebSocket
    Ws,
}

/// Runs the client as its command line says.
pub fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log_format, if args.verbose { "info,cok_client=debug" } else { "info" });
    let tunnels = match tunnels(&args) {
        Ok(tunnels) => tunnels,
        Err(error) => return fail(USAGE, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &anyhow!(error).context("cannot start")),
    };
    match runtime.block_on(run(tunnels)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(if error.is::<Refused>() { REFUSED } else { FAILED }, &error),
    }
}

/// One line: what and why.
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("cok-client: {}", format!("{error:#}").replace('\n', " "));
    ExitCode::from(code)
}

/// Keeps all tunnels up until a signal, or until one of them is refused.
async fn run(tunnels: Vec<Options>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    for options in tunnels {
        let (tunnel, stop) = (Tunnel::new(options)?, stop.clone());
        running.spawn(async move { tunnel.run(stop, report).await });
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
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
            _ = tokio::signal::ctrl_c() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

/// The address goes to standard output, alone on its line; the rest is for the log.
#[expect(clippy::print_stdout, reason = "the address is what the program is for")]
fn report(event: Event) {
    match event {
        Event::Connected { transport, url, session } => {
            println!("{url}");
            info!(event = "connected", transport, url, session);
        }
        Event::Disconnected { reason, retry_in } => {
            warn!(event = "disconnected", reason, retry_in_ms = retry_in.as_millis() as u64);
        }
    }
}

/// What the command line, the environment and the file come to.
fn tunnels(args: &Args) -> anyhow::Result<Vec<Options>> {
    let file = FileConfig::load(args.config.as_deref())?;
    let server = args.server.clone().or(file.server).context(
        "no server: name one by --server https://tunnel.example.com, COK_SERVER or `server` in the configuration file",
    )?;
    let server = Server::from_str(&server)?;
    let transport = match (args.transport, file.transport.as_deref()) {
        (Some(transport), _) => transport,
        (None, Some(text)) => TransportChoice::from_str(text, false)
            .map_err(|_| anyhow!("transport \"{text}\" in the configuration file: say auto, quic or ws"))?,
        (None, None) => TransportChoice::Auto,
    };
    if transport == TransportChoice::Quic {
        bail!("--transport quic is not built yet; use ws or auto");
    }
    let key = match (&args.api_key, args.api_key_file.as_ref().or(file.api_key_file.as_ref())) {
        (Some(key), _) => key.clone(),
        (None, Some(path)) => {
            let key = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the API key file {}", path.display()))?;
            key.trim().to_owned()
        }
        (None, None) => bail!("no API key: give one by --api-key-file, COK_API_KEY or `api_key_file` in the file"),
    };
    if key.is_empty() {
        bail!("the API key is empty");
    }
    let tls = match args.ca_file.as_ref().or(file.ca_file.as_ref()) {
        Some(path) => trust_file(path)?,
        None => trust_system()?,
    };
    let state_dir = args.state_dir.clone().or_else(|| Some(home_folder("XDG_STATE_HOME", ".local/state")?.join("cok")));
    let state_dir = state_dir.context("there is no home folder; name a place by --state-dir")?;
    let mut wanted: Vec<FileTunnel> = Vec::new();
    match (args.port, args.target.as_slice()) {
        (Some(port), _) => wanted.push(given(port.to_string())),
        (None, [target]) => wanted.push(given(target.clone())),
        (None, [kind, target]) if kind == "http" => wanted.push(given(target.clone())),
        (None, [kind, _, ..]) => bail!("\"{kind}\" is no kind of tunnel; say cok-client [http] TARGET"),
        (None, []) => {
            for (name, tunnel) in file.tunnels {
                wanted.push(FileTunnel { subdomain: tunnel.subdomain.or(Some(name)), ..tunnel });
            }
        }
    }
    if wanted.is_empty() {
        bail!("nothing to forward to: say cok-client 3000, or put [tunnels.NAME] into the configuration file");
    }
    if wanted.len() > 1 && args.subdomain.is_some() {
        bail!("--subdomain names one tunnel, but the configuration file has {}", wanted.len());
    }
    let instance = instance_id(&state_dir);
    let options = wanted.into_iter().map(|tunnel| {
        let host_header = args.host_header.as_ref().or(tunnel.host_header.as_ref());
        Ok(Options {
            server: server.clone(),
            connect_to: args.connect_to,
            tls: tls.clone(),
            key: key.clone(),
            subdomain: args.subdomain.clone().or(tunnel.subdomain),
            instance: instance.clone(),
            target: Target::from_str(&tunnel.target)?,
            host_header: host_header
                .map_or(Ok(HostHeader::default()), |text| text.parse())
                .map_err(|error: String| anyhow!("--host-header: {error}"))?,
            response_timeout: (args.response_timeout > 0).then(|| Duration::from_secs(args.response_timeout)),
            connect_timeout: Duration::from_secs(args.connect_timeout),
        })
    });
    options.collect()
}

fn given(target: String) -> FileTunnel {
    FileTunnel { target, subdomain: None, host_header: None }
}
