//! `cokd dev`: a daemon, a client and, unless there is a target, a sample site, all on loopback in one process.

mod command;
mod greeting;
mod place;
mod ports;
mod sample;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use cok_client::cli::{TargetFlags, Usage, Verbosity, reporter};
use cok_client::logging::{self, LogFormat};
use cok_client::{
    Client, ClientOptions, Event, HostHeader, NAME_TIMEOUT, PROBE_INTERVAL, Server, TransportChoice, TunnelOptions,
    instance_id, trust_file,
};
use cok_host::{home, private_file};
use cok_trace::Tracer;
use cok_transport::Congestion;
use cok_transport::quic::{Dialer, Tuning};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::greeting::Greeting;
use self::ports::{Ports, Wanted};
use self::sample::Site;
use crate::admission::{self, KeyLimits, KeyRecord};
use crate::app::{App, StopSignals};
use crate::certificates::{self, Tls};
use crate::config::{Config, Startup};
use crate::host::activation::Inherited;
use crate::names::{ApiKey, Hostname, KeyDigest, Subdomain, SubdomainPattern};
use crate::{admin, drain, edge, exchanges, listen, observe, tunnels};

/// The base domain. Browsers resolve every name under .localhost to this machine. TLS libraries refuse the wildcard
/// `*.localhost`, so there is one more label.
const DOMAIN: &str = "cok.localhost";
/// Time limit to connect to the target, which is local or nearby.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The log filter: warnings, failed requests, and the tunnel's state.
pub(crate) const LOG_FILTER: &str = "warn,cokd::app::dev=info,cok_client::proxy=info,cok_client::cli::report=info";

/// The options of `cokd dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// What to forward to: 3000, host:3000, http://…, https://…, h2c://… or unix:/path. A folder such as ./dist stands for its
    /// files; without a TARGET there is a sample site
    target: Option<String>,
    /// The port for HTTPS; 0 for a free one [default: 8443, or a free one if that is taken]
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// A port for plain HTTP, which only redirects to HTTPS; 0 for a free one [default: none]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Where to keep the authority and the key [default: ~/.local/state/cok/dev]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The tunnel's name
    #[arg(long, default_value = "demo", value_parser = parse_subdomain)]
    subdomain: Subdomain,
    /// How the client reaches the daemon; auto is QUIC where it works
    #[arg(long, default_value = "auto")]
    transport: TransportChoice,
    #[command(flatten)]
    target_flags: TargetFlags,
    /// Print one line of JSON on standard output once traffic passes
    #[arg(long)]
    json: bool,
    /// Where log lines go, and how they look
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

fn parse_subdomain(text: &str) -> Result<Subdomain, String> {
    Subdomain::parse(text).map_err(|error| error.to_string())
}

/// Runs until SIGINT or SIGTERM. Requests may then finish, unless a second signal comes.
pub(crate) async fn run(args: DevArgs, tracer: Option<Tracer>) -> anyhow::Result<()> {
    let signals = StopSignals::new()?;
    let stop = CancellationToken::new();
    signals.until_stopped(serve(&args, tracer, &stop), || stop.cancel()).await.unwrap_or(Ok(()))
}

/// Runs until `stop`, or until the daemon refuses the client. Both record requests by one tracer.
async fn serve(args: &DevArgs, tracer: Option<Tracer>, stop: &CancellationToken) -> anyhow::Result<()> {
    let state_dir = args
        .state_dir
        .clone()
        .or_else(|| Some(home::state_folder()?.join("cok/dev")))
        .ok_or_else(|| Usage("there is no home folder; name a place by --state-dir".to_owned()))?;
    // The printed commands work in any folder.
    let state_dir = std::path::absolute(state_dir).context("cannot use --state-dir")?;
    let site = Site::default();
    let target = match &args.target {
        Some(target) => place::target(target)?,
        None => site.target(),
    };
    let ports = Ports::choose(Wanted { https: args.https_port, http: args.http_port }, &target).await?;
    if let Some(notice) = &ports.notice {
        logging::complain(&format!("cokd: {notice}"));
    }
    let key = dev_key(&state_dir)?;
    // The sample site shows by Via which version of HTTP its visitor speaks.
    let edge = edge::Config { via: args.target.is_none(), ..edge::Config::default() };
    let app = App::build(config(&ports, state_dir.clone(), &key, edge)?, None, Inherited::default())?;
    let https = *app.addresses().https.first().context("no HTTPS listener")?;
    let server = app.address().server_url();
    let ca_file = state_dir.join("authority/ca.pem");
    let tls = trust_file(&ca_file)?;
    let (client, mut driver) = Client::new(ClientOptions {
        server: Server::from_str(&server)?,
        connect_to: Some(https),
        proxy: None,
        transport: args.transport,
        quic: Dialer::new(&tls, &Tuning::default())?,
        congestion: Congestion::default(),
        probe_interval: PROBE_INTERVAL,
        tls,
        key: key.clone(),
        name_timeout: NAME_TIMEOUT,
        keep_trying: false,
        log_queries: false,
        instance: instance_id(&state_dir)?,
    });
    if let Some(tracer) = tracer {
        driver = driver.traced(&tracer);
        app.observers().trace(tracer);
    }
    client.open(TunnelOptions {
        label: None,
        subdomain: Some(args.subdomain.to_string()),
        rules: cok_client::Rules::default(),
        target: target.clone(),
        host_header: HostHeader::Preserve,
        target_trust: args.target_flags.trust().unwrap_or_default(),
        upgrades: args.target_flags.upgrades().collect(),
        response_timeout: None,
        connect_timeout: CONNECT_TIMEOUT,
    })?;

    let daemon_stop = CancellationToken::new();
    let serving = tokio::spawn(app.run(daemon_stop.clone().cancelled_owned()));
    let mut report = reporter();
    let mut greeted = false;
    let on_event = |event: Event| {
        if let Event::Connected { transport, .. } = event {
            site.carried_by(transport);
        }
        match event {
            Event::Connected { url, transport, .. } if !greeted => {
                let target = args.target.as_ref().map(|_| &target);
                let (url, subdomain, server) = (&url, &args.subdomain, &server);
                greet(
                    args.json,
                    &Greeting {
                        url,
                        subdomain,
                        transport,
                        target,
                        server,
                        ca_file: &ca_file,
                        key: &key,
                        ports: &ports,
                    },
                );
                greeted = true;
            }
            Event::Connected { url, .. } => info!(event = "connected", url, "the tunnel is online again: {url}"),
            // On loopback this takes milliseconds.
            Event::Connecting { .. } => {}
            event => report(event),
        }
    };
    let result = driver.run(stop.clone(), on_event).await;
    // The daemon answers until the client's requests have finished.
    daemon_stop.cancel();
    serving.await.context("the daemon's task failed")?;
    result.map_err(Into::into)
}

fn greet(json: bool, greeting: &Greeting<'_>) {
    let text = if json { greeting.json() } else { greeting.to_string() };
    // Standard output may be closed. The site runs all the same.
    let _closed = writeln!(io::stdout(), "{text}");
}

/// The key of this machine's development daemon, kept so that a second terminal's command stays valid.
fn dev_key(state_dir: &std::path::Path) -> anyhow::Result<String> {
    let path = state_dir.join("key");
    let cannot = |doing: &str| format!("cannot {doing} {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(key) if !key.trim().is_empty() => return Ok(key.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| cannot("read")),
    }
    let key = ApiKey::generate().context("cannot make a key")?;
    private_file::write(&path, format!("{}\n", key.reveal()).as_bytes()).with_context(|| cannot("write"))?;
    Ok(key.reveal().to_owned())
}

fn config(ports: &Ports, state_dir: PathBuf, key: &str, edge: edge::Config) -> anyhow::Result<Config> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let key = KeyRecord {
        id: "dev".into(),
        name: "dev".into(),
        digest: KeyDigest::of(key),
        subdomains: vec![SubdomainPattern::parse("*")?],
        limits: KeyLimits { tunnels: 100, ..KeyLimits::default() },
        expires: None,
    };
    let addresses = listen::Addresses {
        https: vec![local(ports.https)],
        http: ports.http.map(local).into_iter().collect(),
        admin: local(ports.admin),
        dns: Vec::new(),
    };
    let keys = admission::Live { keys: vec![key], ..admission::Live::default() };
    Ok(Config {
        startup: Startup { domain: Hostname::parse(DOMAIN)?, state_dir },
        listen: listen::Config {
            startup: listen::Startup { addresses, tuning: Tuning::default() },
            live: listen::Live::default(),
        },
        certificates: certificates::Config { source: Tls::SelfSigned },
        admission: admission::Config { startup: admission::Startup::default(), live: keys },
        edge,
        exchanges: exchanges::Config::default(),
        tunnels: tunnels::Config { startup: tunnels::Startup::default(), live: tunnels::LiveConfig::default() },
        drain: drain::Config { timeout: Duration::from_secs(2) },
        admin: admin::Config::default(),
        access_log: observe::AccessLogConfig::default(),
        metrics: observe::MetricsConfig::default(),
    })
}
