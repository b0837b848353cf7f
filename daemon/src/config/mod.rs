//! The configuration file, parsed into the settings of each part. The parts document the meaning, unit, default and
//! cost of a setting. This module knows the format.
//!
//! It reports every mistake with its line and key, not only the first.

mod access_log;
mod admin;
mod certificates;
mod exchanges;
mod keys;
mod metrics;
mod names;
mod rates;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cok_host::settings::{Mistake, Reader, Section, got, is_mistake};
use cok_transport::Congestion;
use cok_transport::quic::Tuning;
use ipnet::IpNet;

use crate::admission::{self, KeyRecord};
use crate::names::{Hostname, KeyDigest, SubdomainPattern};
use crate::observe::{AccessLogConfig, MetricsConfig};
use crate::startup::startup;
use crate::{certificates as certs, drain, edge, listen, tunnels};

/// The folder that systemd makes for the service (`StateDirectory=`).
const DEFAULT_STATE_DIR: &str = "/var/lib/cokd";

/// The whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) startup: Startup,
    pub(crate) listen: listen::Config,
    pub(crate) certificates: certs::Config,
    pub(crate) admission: admission::Config,
    pub(crate) edge: edge::Config,
    pub(crate) exchanges: crate::exchanges::Config,
    pub(crate) tunnels: tunnels::Config,
    pub(crate) drain: drain::Config,
    pub(crate) admin: crate::admin::Config,
    pub(crate) access_log: AccessLogConfig,
    pub(crate) metrics: MetricsConfig,
}

startup! {
    /// Settings that no single part owns. A change needs a restart.
    struct Startup {
        /// Tunnels are `<name>.<domain>`; the daemon itself answers on `<domain>`.
        domain: Hostname = "domain",
        /// The folder for state that survives a restart.
        state_dir: PathBuf = "state_dir",
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Mistakes(Vec<Mistake>),
}

impl ConfigError {
    /// True if the same file may load at the next try: the disk failed, or the process is out of descriptors. A missing
    /// or unreadable file is the operator's mistake.
    pub(crate) fn may_pass(&self) -> bool {
        let Self::Read { error, .. } = self else { return false };
        !is_mistake(error)
    }
}

/// The state directory of a file whose other settings do not matter here. Mistakes elsewhere in it, even in its syntax, are
/// none for the caller.
pub(crate) fn state_dir(path: &Path) -> Result<PathBuf, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    let of = |text: &str| Reader::new(text, "").root().ok().and_then(|mut root| root.path("state_dir"));
    // Keys of the top come before the first section.
    let tops = || text.lines().take_while(|line| !line.trim_start().starts_with('['));
    Ok(of(&text).or_else(|| tops().find_map(of)).unwrap_or_else(|| DEFAULT_STATE_DIR.into()))
}

impl Config {
    /// The keys and sections that differ in `next` and need a restart.
    pub(crate) fn changed_at_startup(&self, next: &Self) -> Vec<&'static str> {
        [
            self.startup.changed(&next.startup),
            self.listen.startup.changed(&next.listen.startup),
            self.certificates.changed(&next.certificates),
            self.admission.startup.changed(&next.admission.startup),
            self.tunnels.startup.changed(&next.tunnels.startup),
        ]
        .concat()
    }

    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, &path.display().to_string()).map_err(ConfigError::Mistakes)
    }

    /// Checks a configuration. Mistakes name it as `file`.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self, Vec<Mistake>> {
        Self::read(&Reader::new(text, file))
    }

    fn read(reader: &Reader<'_>) -> Result<Self, Vec<Mistake>> {
        let mut root = reader.root()?;
        let domain = root.required("domain", "a host name such as \"tunnel.example.com\"", |text: &str| {
            Hostname::parse(text).map_err(|error| error.to_string())
        });
        let state_dir = root.path("state_dir").unwrap_or_else(|| DEFAULT_STATE_DIR.into());
        let mut section = root.section("listen");
        let mut addresses = addresses(&mut section);
        let (tls, acme) = (root.section("tls"), root.section("acme"));
        let port = addresses.https.first().map_or(443, SocketAddr::port);
        let source = certificates::tls(tls, acme, domain.as_ref(), port);
        // Unknown if `[tls]` or `[acme]` has mistakes.
        addresses.dns = dns(&mut section, source.as_ref().map(certs::Tls::answers_dns));
        section.finish();
        let keys = keys(root.tables("keys"));
        let mut limits = limits(root.section("limits"));
        let tuning = tuning(root.section("transport"));
        limits.admission.live.rates = rates::rates(root.section("rates"));
        let mut proxies = root.section("proxies");
        let trusted_proxies = proxies.list("trusted", "a network such as \"10.0.0.0/8\"", |text| {
            text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
        });
        let proxy_protocol = proxies.list("protocol_from", "a network such as \"10.0.0.0/8\"", |text| {
            text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
        });
        proxies.finish();
        let mut http = root.section("http");
        limits.edge.via = http.flag("via", false);
        limits.edge.server_timing = http.flag("server_timing", false);
        http.finish();
        let admin = admin::admin(root.section("admin"));
        let access_log = access_log::access_log(root.section("access_log"));
        let metrics = metrics::metrics(root.section("metrics"));
        let names = names::names(root.section("names"));
        (limits.tunnels.live.names, limits.edge.hide_names) = (names.rules, names.hide);
        root.finish();
        let trusted_proxies = trusted_proxies.unwrap_or_default();
        limits.admission.live.exempt.clone_from(&trusted_proxies);
        limits.admission.live.proxy_protocol = proxy_protocol.unwrap_or_default();
        limits.admission.live.keys = keys;
        limits.edge.trusted_proxies = trusted_proxies;
        match (domain, source, reader.mistakes()) {
            (Some(domain), Some(source), mistakes) if mistakes.is_empty() => Ok(Self {
                startup: Startup { domain, state_dir },
                listen: listen::Config { startup: listen::Startup { addresses, tuning }, live: limits.listen },
                certificates: certs::Config { source },
                admission: limits.admission,
                edge: limits.edge,
                exchanges: limits.exchanges,
                tunnels: limits.tunnels,
                drain: limits.drain,
                admin,
                access_log,
                metrics,
            }),
            (_, _, mistakes) => Err(mistakes),
        }
    }
}

const ADDRESS: &str = "an address such as \"[::]:443\"";

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

fn addresses(section: &mut Section<'_>) -> listen::Addresses {
    let addresses = listen::Addresses {
        https: section.list("https", ADDRESS, address).unwrap_or_else(|| vec![any(443)]),
        http: section.list("http", ADDRESS, address).unwrap_or_else(|| vec![any(80)]),
        admin: section
            .optional("admin", ADDRESS, |text: &str| address(text).ok_or_else(|| got(text)))
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9180))),
        dns: Vec::new(),
    };
    if addresses.https.is_empty() {
        section.mistake("https", "expected at least one address");
    }
    addresses
}

/// The addresses for DNS. `answered` is `None` if mistakes hide whether the daemon answers DNS.
fn dns(section: &mut Section<'_>, answered: Option<bool>) -> Vec<SocketAddr> {
    let addresses = section.list("dns", ADDRESS, address);
    match (answered, &addresses) {
        (Some(false), Some(_)) => {
            section.mistake("dns", "is used with [tls] mode = \"acme\" and [acme.dns] provider = \"embedded\" only");
        }
        (Some(true), Some(addresses)) if addresses.is_empty() => {
            section.mistake("dns", "expected at least one address");
        }
        _ => {}
    }
    addresses.unwrap_or_else(|| if answered == Some(true) { vec![any(53)] } else { Vec::new() })
}

/// Reads all keys. Names must be unique, since logs name keys. Secrets must be unique, since only one key could be
/// found.
fn keys(sections: Vec<Section<'_>>) -> Vec<KeyRecord> {
    let mut keys: Vec<KeyRecord> = Vec::new();
    for section in sections {
        if let Some(record) = key(section, &keys) {
            keys.push(record);
        }
    }
    keys
}

/// The digest in the example file. It belongs to no key.
const PLACEHOLDER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn key(mut section: Section<'_>, others: &[KeyRecord]) -> Option<KeyRecord> {
    let name = section.required("name", "1 to 64 printable characters", |text: &str| {
        if admission::is_key_name(text) { Ok(text.to_owned()) } else { Err(got(text)) }
    });
    // The message does not quote the value: it may be the key itself.
    let digest = section.required("secret_sha256", "the key's SHA-256 in 64 hexadecimal digits", |text: &str| {
        if text == PLACEHOLDER {
            return Err(
                "got the example's placeholder; make a key: cokd key create --for-config --name NAME".to_owned()
            );
        }
        KeyDigest::parse(text).map_err(|_| match text.chars().count() {
            64 => "got other characters among them".to_owned(),
            1 => "got 1 character".to_owned(),
            count => format!("got {count} characters"),
        })
    });
    if name.as_ref().is_some_and(|name| others.iter().any(|other| *other.name == **name)) {
        section.mistake("name", "another key has this name");
    }
    if let Some(other) = others.iter().find(|other| digest.as_ref() == Some(&other.digest)) {
        section.mistake("secret_sha256", &format!("the key {:?} has the same secret", other.name));
    }
    let subdomains =
        section.list("subdomains", "a name or a pattern such as \"demo-*\"", |text| SubdomainPattern::parse(text).ok());
    if subdomains.as_ref().is_some_and(Vec::is_empty) {
        section.mistake("subdomains", "expected at least one name or pattern; leave this out to allow any");
    }
    let limits = keys::limits(&mut section);
    let expires = section.moment("expires");
    section.finish();
    let name: std::sync::Arc<str> = name?.into();
    Some(KeyRecord {
        id: name.clone(),
        name,
        digest: digest?,
        subdomains: subdomains.unwrap_or_else(|| SubdomainPattern::parse("*").into_iter().collect()),
        limits,
        expires,
    })
}

fn tuning(mut section: Section<'_>) -> Tuning {
    let congestion = section
        .optional("congestion", "\"bbr\" or \"cubic\"", |text: &str| text.parse::<Congestion>().map_err(|_| got(text)));
    section.finish();
    Tuning { congestion: congestion.unwrap_or_default() }
}

/// The settings of `[limits]`, by part.
#[derive(Debug)]
struct Limits {
    listen: listen::Live,
    admission: admission::Config,
    edge: edge::Config,
    exchanges: crate::exchanges::Config,
    tunnels: tunnels::Config,
    drain: drain::Config,
}

/// Reads `[limits]`. A limit that several parts share goes to each of them.
fn limits(mut section: Section<'_>) -> Limits {
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * 1024;
    let (edge, names) = (edge::Config::default(), tunnels::LiveConfig::default());
    let (budget, most) = (tunnels::Startup::default(), admission::Startup::default());
    let share = admission::Live::default().max_connections_per_address as u64;
    let initial_window = section.bytes("initial_window", 16 * KIB, 8 * MIB, names.initial_window.into()) as u32;
    let handshake_timeout = section.duration("handshake_timeout", SECOND, 300 * SECOND, names.handshake_timeout);
    let header_timeout = section.duration("header_timeout", SECOND, HOUR, edge.header_timeout);
    let limits = Limits {
        tunnels: tunnels::Config {
            startup: tunnels::Startup {
                window_budget: section.bytes("window_budget", 0, 1024 * 1024 * MIB, budget.window_budget as u64)
                    as usize,
                max_sessions: section.whole("max_sessions", 1, 1_000_000, budget.max_sessions as u64) as usize,
            },
            live: tunnels::LiveConfig {
                reconnect_grace: section.duration(
                    "reconnect_grace",
                    Duration::ZERO,
                    300 * SECOND,
                    names.reconnect_grace,
                ),
                offline_retention: section.duration("offline_retention", SECOND, 168 * HOUR, names.offline_retention),
                max_held: section.whole("max_held", 0, 100_000, names.max_held as u64) as usize,
                max_exchanges: section.whole("max_exchanges", 1, 100_000, names.max_exchanges.into()) as u32,
                initial_window,
                handshake_timeout,
                names: names.names,
            },
        },
        drain: drain::Config {
            timeout: section.duration("drain_timeout", Duration::ZERO, HOUR, drain::Config::default().timeout),
        },
        admission: admission::Config {
            startup: admission::Startup {
                max_connections: section.whole("max_connections", 1, 10_000_000, most.max_connections as u64) as usize,
            },
            live: admission::Live {
                max_connections_per_address: section.whole("max_connections_per_address", 1, 10_000_000, share)
                    as usize,
                ..admission::Live::default()
            },
        },
        listen: listen::Live { handshake_timeout, header_timeout, initial_window },
        edge: edge::Config {
            handshake_timeout,
            header_timeout,
            max_header_bytes: section.bytes("max_header_bytes", 8 * KIB, 56 * KIB, edge.max_header_bytes.into()) as u32,
            initial_window,
            trusted_proxies: Vec::new(),
            via: edge.via,
            server_timing: edge.server_timing,
            hide_names: edge.hide_names,
        },
        exchanges: exchanges::exchanges(&mut section),
    };
    section.finish();
    limits
}

#[cfg(test)]
mod tests;
