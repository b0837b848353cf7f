//! The command line, and the tunnels that follow from it, the environment and the file. Flags beat the environment, which
//! beats the file.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cok_host::home;
use cok_transport::{Congestion, quic};

use super::program::called;
use crate::config::{FileConfig, FileTunnel};
use crate::instance::instance_id;
use crate::logging::LogFormat;
use crate::name::check_subdomain;
use crate::options::{ClientOptions, HostHeader, TunnelOptions};
use crate::server::Server;
use crate::target::{FORMS, is_bare_word};
use crate::times::{parse_interval, parse_time};
use crate::transport::{PROBE_INTERVAL, TransportChoice};
use crate::trust::{trust_file, trust_system};

/// Which tunnels to open.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environment: COK_SERVER, COK_API_KEY, COK_SUBDOMAIN, COK_TRANSPORT; flags beat it, and it beats \
                        the configuration file.\nExit codes: 0 stopped on request, 1 failed at run time, 2 wrong usage \
                        or configuration, 3 refused by the server (key, name)."
)]
pub struct Args {
    /// What to forward to: 3000, host:3000, http://…, https://…, h2c://… or unix:/path, optionally after the word
    /// "http". The NAME of a [tunnels.NAME] opens that tunnel of the configuration file; without TARGET, all of them open
    #[arg(value_name = "TARGET", num_args = 0..=2)]
    target: Vec<String>,
    /// Short form of a TARGET on this machine
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The name to have; without one the server picks [env: COK_SUBDOMAIN]
    #[arg(short, long)]
    subdomain: Option<String>,
    /// The server, such as `https://tunnel.example.com` [env: COK_SERVER]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// How long to ask for a name that another client has, such as one that vanished; 0 to ask once
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = parse_time)]
    name_timeout: Duration,
    /// Ask again every few minutes after each refusal that may pass, such as one of the key, instead of ending
    #[arg(long)]
    keep_trying: bool,
    /// How to reach the server; quic and ws never fall back to the other [env: COK_TRANSPORT] [default: auto]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<TransportChoice>,
    /// Which congestion control the tunnel uses, bbr or cubic; cubic falls to a fraction of the rate on paths that lose
    /// packets [default: bbr]
    #[arg(long, value_name = "NAME")]
    congestion: Option<Congestion>,
    /// With auto: how long a tunnel on WebSocket waits until it tries QUIC again. The wait doubles with every failed try,
    /// up to 10 minutes [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    probe_interval: Option<Duration>,
    /// The API key [env: COK_API_KEY]; better there or in a file, since other users see command lines
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// What the service sees as Host: preserve, rewrite, or a value
    #[arg(long, value_name = "HOW", value_parser = HostHeader::from_str)]
    host_header: Option<HostHeader>,
    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Dial this address instead of resolving the server's name, over TCP and UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect_to: Option<SocketAddr>,
    /// How long the service may take until its response begins, such as 120s; 0 for no limit. The time that an upload takes
    /// does not count
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_time)]
    response_timeout: Duration,
    /// How long a connection to the service may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    connect_timeout: Duration,
    /// The configuration file [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep the instance id [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where log lines go, and how they look
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(super) log_format: LogFormat,
    /// Log every request
    #[arg(short, long)]
    pub(super) verbose: bool,
}

impl Args {
    /// The client, and the tunnels to open.
    pub(super) fn options(&self) -> anyhow::Result<(ClientOptions, Vec<TunnelOptions>)> {
        let mut file = FileConfig::load(self.config.as_deref())?;
        let wanted = self.wanted(mem::take(&mut file.tunnels))?;
        let server = match self.server.clone().or_else(|| env("COK_SERVER")) {
            Some(server) => Server::from_str(&server)?,
            None => file.server.clone().context(
                "no server: name one by --server https://tunnel.example.com, COK_SERVER or `server` in the \
                 configuration file",
            )?,
        };
        let transport = self.transport(&file)?;
        let congestion = self.congestion.or(file.congestion).unwrap_or_default();
        let key = self.key(&file)?;
        let tls = match self.ca_file.as_ref().or(file.ca_file.as_ref()) {
            Some(path) => trust_file(path)?,
            None => trust_system()?,
        };
        let quic = quic::Dialer::new(&tls, &quic::Tuning { congestion })?;
        if self.connect_timeout.is_zero() {
            bail!("--connect-timeout must be more than 0");
        }
        let state_dir = self.state_dir.clone();
        let state_dir = state_dir.or_else(|| Some(home::state_folder()?.join("cok")));
        let state_dir = state_dir.context("there is no home folder; name a place by --state-dir")?;
        let subdomain = match self.subdomain.clone().or_else(|| env("COK_SUBDOMAIN")) {
            Some(name) => Some(check_subdomain(&name).map_err(|why| anyhow!("--subdomain: {why}"))?),
            None => None,
        };
        if wanted.is_empty() {
            bail!("nothing to forward to: say {} 3000, or put [tunnels.NAME] into the configuration file", called());
        }
        if wanted.len() > 1 && subdomain.is_some() {
            bail!("--subdomain names one tunnel, but the configuration file has {}", wanted.len());
        }
        let instance = instance_id(&state_dir);
        let client = ClientOptions {
            server,
            connect_to: self.connect_to,
            tls,
            transport,
            quic,
            congestion,
            probe_interval: self.probe_interval.or(file.probe_interval).unwrap_or(PROBE_INTERVAL),
            key,
            name_timeout: self.name_timeout,
            keep_trying: self.keep_trying,
            instance,
        };
        let tunnels = wanted.into_iter().map(|(label, tunnel)| TunnelOptions {
            label,
            subdomain: subdomain.clone().or(tunnel.subdomain),
            target: tunnel.target,
            host_header: self.host_header.clone().or(tunnel.host_header).unwrap_or_default(),
            response_timeout: (!self.response_timeout.is_zero()).then_some(self.response_timeout),
            connect_timeout: self.connect_timeout,
        });
        Ok((client, tunnels.collect()))
    }

    /// The tunnels that the command line asks for, with their names in the file. `named` are those of the file.
    fn wanted(&self, mut named: BTreeMap<String, FileTunnel>) -> anyhow::Result<Vec<(Option<String>, FileTunnel)>> {
        let words: Vec<&str> = self.target.iter().map(String::as_str).collect();
        let target = match (words.as_slice(), self.port) {
            ([] | ["http"], Some(port)) => port.to_string(),
            (_, Some(_)) => bail!("--port is a TARGET of its own; give only one of them"),
            ([], None) => return Ok(named.into_iter().map(|(name, tunnel)| (Some(name), tunnel)).collect()),
            (["http"], None) => bail!("the TARGET is missing; say {} http 3000", called()),
            ([word] | ["http", word], None) if is_bare_word(word) => {
                let tunnel = named.remove(*word);
                let tunnel = tunnel.ok_or_else(|| no_such_tunnel(word, &named))?;
                return Ok(vec![(Some((*word).to_owned()), tunnel)]);
            }
            ([target] | ["http", target], None) => (*target).to_owned(),
            ([kind, ..], None) => bail!("\"{kind}\" is no kind of tunnel; say {} [http] TARGET", called()),
        };
        Ok(vec![(None, FileTunnel { target: target.parse()?, subdomain: None, host_header: None })])
    }

    fn transport(&self, file: &FileConfig) -> anyhow::Result<TransportChoice> {
        match (self.transport, env("COK_TRANSPORT")) {
            (Some(transport), _) => Ok(transport),
            (None, Some(text)) => TransportChoice::parse(&text).map_err(|why| anyhow!("COK_TRANSPORT: {why}")),
            (None, None) => Ok(file.transport.unwrap_or(TransportChoice::Auto)),
        }
    }

    fn key(&self, file: &FileConfig) -> anyhow::Result<String> {
        let from_file = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the API key file {}", path.display()))
        };
        let key = match (&self.api_key, &self.api_key_file, env("COK_API_KEY").as_ref(), &file.api_key_file) {
            (Some(key), ..) | (None, None, Some(key), _) => key.clone(),
            (None, Some(path), ..) | (None, None, None, Some(path)) => from_file(path)?,
            (None, None, None, None) => {
                bail!("no API key: give one by --api-key-file, COK_API_KEY or `api_key_file` in the configuration file")
            }
        };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("the API key is empty, or not one word of printable characters");
        }
        Ok(key.to_owned())
    }
}

/// The error for a word that is neither a target nor a tunnel of the file.
fn no_such_tunnel(word: &str, tunnels: &BTreeMap<String, FileTunnel>) -> anyhow::Error {
    let names: Vec<&str> = tunnels.keys().map(String::as_str).collect();
    let has = if names.is_empty() { "no tunnels".to_owned() } else { names.join(", ") };
    anyhow!("there is no tunnel \"{word}\": the configuration file has {has}; a TARGET looks like {FORMS}")
}

/// The value of an environment variable, unless it is empty.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
