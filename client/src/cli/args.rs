//! The command line's arguments, and which tunnels they ask for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use cok_transport::Congestion;

use super::access_flags::AccessFlags;
use super::plan::{Invocation, Selection};
use super::program::called;
use super::target_flags::TargetFlags;
use super::url::PublicUrl;
use super::verbosity::Verbosity;
use crate::inspect::Inspect;
use crate::logging::LogFormat;
use crate::options::HostHeader;
use crate::target::is_bare_word;
use crate::times::{parse_interval, parse_time};
use crate::transport::TransportChoice;

/// Which tunnels to open.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to forward to: 3000, host:3000, http://…, https://…, h2c://… or unix:/path, optionally after the word
    /// "http". The NAME of a [tunnels.NAME] opens that tunnel of the configuration file; without TARGET, all of them open
    #[arg(value_name = "TARGET", num_args = 0..=2)]
    target: Vec<String>,
    /// Short form of a TARGET on this machine
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// Which tunnels of the configuration file to open.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StartArgs {
    /// The NAME of a [tunnels.NAME]; without any, all of them open
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Open all tunnels of the file
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// What else to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogTopic {
    /// One line a request
    Requests,
}

/// How to open tunnels.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Flags {
    /// The name to have; without one the server picks [env: COK_SUBDOMAIN]
    #[arg(short, long)]
    pub(super) subdomain: Option<String>,
    /// The public address to have, such as `https://demo.tunnel.example.com`. It stands for --subdomain demo, and for
    /// --server if no server is named
    #[arg(long, value_name = "URL", conflicts_with = "subdomain", value_parser = PublicUrl::from_str)]
    pub(super) url: Option<PublicUrl>,
    /// The server, such as `https://tunnel.example.com` [env: COK_SERVER]
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// How long to ask for a name that another client has, such as one that vanished; 0 to ask once
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = parse_time)]
    pub(super) name_timeout: Duration,
    /// Ask again every few minutes after each refusal that may pass, such as one of the key, instead of ending
    #[arg(long)]
    pub(super) keep_trying: bool,
    /// How to reach the server; quic and ws never fall back to the other [env: COK_TRANSPORT] [default: auto]
    #[arg(long, value_name = "TRANSPORT")]
    pub(super) transport: Option<TransportChoice>,
    /// Which congestion control the tunnel uses, bbr or cubic; cubic falls to a fraction of the rate on paths that lose
    /// packets [default: bbr]
    #[arg(long, value_name = "NAME")]
    pub(super) congestion: Option<Congestion>,
    /// With auto: how long a tunnel on WebSocket waits until it tries QUIC again. The wait doubles with every failed try,
    /// up to 10 minutes [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(super) probe_interval: Option<Duration>,
    /// Reach the server through this proxy: http://, https://, socks5:// or socks5h://, with an optional USER:PASSWORD@;
    /// "none" for no proxy [env: HTTPS_PROXY, ALL_PROXY, NO_PROXY]. Secrets are better there or in the configuration file
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
    /// The API key [env: COK_API_KEY]; better there or in a file, since other users see command lines
    #[arg(long, value_name = "KEY")]
    pub(super) api_key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    pub(super) api_key_file: Option<PathBuf>,
    /// What the service sees as Host: preserve, rewrite, or a value
    #[arg(long, value_name = "HOW", value_parser = HostHeader::from_str)]
    pub(super) host_header: Option<HostHeader>,
    #[command(flatten)]
    pub(super) of_target: TargetFlags,
    #[command(flatten)]
    pub(super) access: AccessFlags,
    /// Trust the authorities in this PEM file instead of the system's for the server
    #[arg(long, value_name = "PEM")]
    pub(super) ca_file: Option<PathBuf>,
    /// Dial this address instead of resolving the server's name, over TCP and UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) connect_to: Option<SocketAddr>,
    /// How long the service may take until its response begins, such as 120s; 0 for no limit. The time that an upload takes
    /// does not count
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_time)]
    pub(super) response_timeout: Duration,
    /// How long a connection to the service may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub(super) connect_timeout: Duration,
    /// The configuration file [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where to keep the instance id and the control sockets [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where log lines go, and how they look
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(super) log_format: LogFormat,
    /// Log what else: `requests` prints one line a request, and WebSockets and event streams at their beginning and end
    #[arg(long, value_name = "WHAT")]
    pub(super) log: Option<LogTopic>,
    /// Name the queries of requests in the log, which may hold secrets
    #[arg(long)]
    pub(super) log_queries: bool,
    /// Show requests at this port of 127.0.0.1, or at a free one if that is taken; "off" shows none [env: COK_INSPECT]
    /// [default: 4040]
    #[arg(long, value_name = "off|PORT")]
    pub(super) inspect: Option<Inspect>,
    /// Print log lines in place of the panel that a terminal shows
    #[arg(long)]
    pub(super) no_panel: bool,
    #[command(flatten)]
    pub(super) verbosity: Verbosity,
}

impl Args {
    /// What the command line asks for.
    pub(super) fn invocation(&self) -> anyhow::Result<Invocation> {
        let words: Vec<&str> = self.target.iter().map(String::as_str).collect();
        let target = match (words.as_slice(), self.port) {
            ([] | ["http"], Some(port)) => port.to_string(),
            (_, Some(_)) => bail!("--port is a TARGET of its own; give only one of them"),
            ([], None) => return Ok(Invocation::new(Selection::All, &self.flags)),
            (["http"], None) => bail!("the TARGET is missing; say {} http 3000", called()),
            ([word] | ["http", word], None) if is_bare_word(word) => {
                return Ok(Invocation::new(Selection::Word((*word).to_owned()), &self.flags));
            }
            ([target] | ["http", target], None) => (*target).to_owned(),
            ([kind, ..], None) => bail!("\"{kind}\" is no kind of tunnel; say {} [http] TARGET", called()),
        };
        Ok(Invocation::new(Selection::Target(target.parse()?), &self.flags))
    }
}

impl StartArgs {
    /// What the command line asks for.
    pub(super) fn invocation(&self) -> Invocation {
        let selection = if self.names.is_empty() { Selection::All } else { Selection::Named(self.names.clone()) };
        Invocation::new(selection, &self.flags)
    }
}
