//! The configuration file: what may stand in it, with defaults, units and bounds.
//!
//! Every mistake is reported, each with its line and key, not just the first.

mod certificates;
mod reader;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cok_transport::Congestion;
use cok_transport::quic::Tuning;
use ipnet::IpNet;

use self::reader::{Reader, Section, got};
use crate::keys::KeyRecord;
use crate::names::{Hostname, KeyDigest, SubdomainPattern};

pub use self::certificates::{Acme, Dns, ExternalAccount, Tls, Tsig};
pub use self::reader::Mistake;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tunnels are `<name>.<domain>`; the daemon itself answers on `<domain>`.
    pub domain: Hostname,
    /// Where the daemon keeps what must survive it.
    pub state_dir: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// Where certificates come from.
    pub tls: Tls,
    /// Who may open tunnels.
    pub keys: Vec<KeyRecord>,
    /// What it may use.
    pub limits: Limits,
    /// How QUIC and the congestion controllers behave.
    pub tuning: Tuning,
    /// Peers whose word on a visitor's address is taken: their `X-Forwarded-*` and `Forwarded` are kept.
    pub trusted_proxies: Vec<IpNet>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// HTTPS for visitors and tunnels.
    pub https: Vec<SocketAddr>,
    /// Plain HTTP, which only redirects.
    pub http: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// DNS over UDP and TCP, where the daemon answers for a zone itself.
    pub dns: Vec<SocketAddr>,
}

/// What the daemon may use. Each limit has a default, bounds, and what it costs to raise or lower it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long visitors wait for a tunnel that is away: time enough for a client to restart. 0 s to 5 min, default
    /// 10 s; longer than browsers and proxies wait helps nobody.
    pub reconnect_grace: Duration,
    /// How long an offline name answers 503 with `Retry-After` before it is forgotten (404). 1 s to 7 d, default 1 h.
    pub offline_retention: Duration,
    /// The most visitors that wait for one tunnel. Each holds a connection and a request head. 0 (nobody waits) to
    /// 100,000, default 1,024.
    pub max_held: usize,
    /// How long running exchanges may take once the daemon stops. 0 s to 1 h, default 30 s; keep it below what the
    /// service manager grants, or long transfers are cut anyway.
    pub drain_timeout: Duration,
    /// The most exchanges at once in a session. Each may hold `initial_window` in memory in either direction. 1 to
    /// 100,000, default 1,000.
    pub max_exchanges: u32,
    /// Body bytes of an exchange under way before its receiver has measured the path. 16 KiB (a Data frame) to 8 MiB,
    /// default 256 KiB; more starts faster over long paths, and is what each stalled visitor can hold. Over QUIC, whose
    /// windows don't grow with the path, it is four times as much.
    pub initial_window: u32,
    /// Bytes by which all windows of the process together may grow beyond the initial ones. 0 to 1 TiB, default
    /// 256 MiB.
    pub window_budget: usize,
    /// The most public connections over TCP and QUIC, each with TLS state and over TCP a file descriptor. 1 to
    /// 10,000,000, default 20,000.
    pub max_connections: usize,
    /// The most of them from one IPv4 address or IPv6 /64; trusted proxies may have any number. 1 to 10,000,000,
    /// default 2,000: a whole office or carrier behind one address passes, one machine cannot take all places.
    pub max_connections_per_address: usize,
    /// The most sessions, those included that still authenticate. 1 to 1,000,000, default 10,000.
    pub max_sessions: usize,
    /// How long a TLS handshake or a tunnel's Connect may take. 1 s to 5 min, default 10 s: slow mobile paths pass,
    /// silent connections do not pile up.
    pub handshake_timeout: Duration,
    /// How long a request's head may take, and how long a visitor's connection may be idle (QUIC: at least 30 s). 1 s
    /// to 1 h, default 60 s.
    pub header_timeout: Duration,
    /// The longest request head in bytes; more gets 431. 8 KiB to 56 KiB, default 48 KiB: with the fields that the
    /// daemon adds it must fit into a head of the wire protocol (64 KiB).
    pub max_header_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reconnect_grace: Duration::from_secs(10),
            offline_retention: Duration::from_secs(3600),
            max_held: 1024,
            drain_timeout: Duration::from_secs(30),
            max_exchanges: 1000,
            initial_window: 256 * 1024,
            window_budget: 256 * 1024 * 1024,
            max_connections: 20_000,
            max_connections_per_address: 2000,
            max_sessions: 10_000,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            max_header_bytes: 48 * 1024,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says something wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Mistakes(Vec<Mistake>),
}

impl ConfigError {
    /// Whether the same file may be good at the next attempt: a disk was out of order, or the process out of descriptors.
    /// A file that is missing, or that the daemon may not read, is an operator's mistake.
    pub fn may_pass(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied};
        let Self::Read { error, .. } = self else { return false };
        !matches!(error.kind(), NotFound | PermissionDenied | InvalidData | IsADirectory | NotADirectory)
    }
}

impl Config {
    /// The keys and sections in which `next` differs and that cannot change while a daemon runs.
    pub fn fixed(&self, next: &Self) -> Vec<&'static str> {
        let (limits, others) = (&self.limits, &next.limits);
        let fixed = [
            ("domain", self.domain != next.domain),
            ("state_dir", self.state_dir != next.state_dir),
            ("listen", self.listen != next.listen),
            ("tls or acme", self.tls != next.tls),
            ("transport", self.tuning != next.tuning),
            ("limits.window_budget", limits.window_budget != others.window_budget),
            ("limits.max_connections", limits.max_connections != others.max_connections),
            ("limits.max_sessions", limits.max_sessions != others.max_sessions),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, &path.display().to_string()).map_err(ConfigError::Mistakes)
    }

    /// Checks a configuration; `file` names it in mistakes.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Mistake>> {
        let reader = Reader::new(text, file);
        let mut root = reader.root()?;
        let domain = root.required("domain", "a host name such as \"tunnel.example.com\"", |text: &str| {
            Hostname::parse(text).map_err(|error| error.to_string())
        });
        let state_dir = root.path("state_dir").unwrap_or_else(|| "/var/lib/cokd".into());
        let mut section = root.section("listen");
        let mut listen = listen(&mut section);
        let (tls, acme) = (root.section("tls"), root.section("acme"));
        let port = listen.https.first().map_or(443, SocketAddr::port);
        let tls = certificates::tls(tls, acme, domain.as_ref(), port);
        // Not known where the rest is wrong.
        listen.dns = dns(&mut section, tls.as_ref().map(Tls::answers_dns));
        section.finish();
        let keys = keys(root.tables("keys"));
        let limits = limits(root.section("limits"));
        let tuning = tuning(root.section("transport"));
        let mut proxies = root.section("proxies");
        let trusted_proxies = proxies.list("trusted", "a network such as \"10.0.0.0/8\"", |text| {
            text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
        });
        proxies.finish();
        root.finish();
        match (domain, tls, reader.mistakes()) {
            (Some(domain), Some(tls), mistakes) if mistakes.is_empty() => Ok(Self {
                domain,
                state_dir,
                listen,
                tls,
                keys,
                limits,
                tuning,
                trusted_proxies: trusted_proxies.unwrap_or_default(),
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

fn listen(section: &mut Section<'_>) -> Listen {
    let listen = Listen {
        https: section.list("https", ADDRESS, address).unwrap_or_else(|| vec![any(443)]),
        http: section.list("http", ADDRESS, address).unwrap_or_else(|| vec![any(80)]),
        admin: section
            .optional("admin", ADDRESS, |text: &str| address(text).ok_or_else(|| got(text)))
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9180))),
        dns: Vec::new(),
    };
    if listen.https.is_empty() {
        section.mistake("https", "expected at least one address");
    }
    listen
}

/// Where DNS queries are answered, if it is known whether they are.
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

/// All keys. Two of one name could not be told apart in logs, and of two with one secret only one would ever be found.
fn keys(sections: Vec<Section<'_>>) -> Vec<KeyRecord> {
    let mut keys: Vec<KeyRecord> = Vec::new();
    for section in sections {
        if let Some(record) = key(section, &keys) {
            keys.push(record);
        }
    }
    keys
}

/// The digest in the example, which is no key's.
const PLACEHOLDER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn key(mut section: Section<'_>, others: &[KeyRecord]) -> Option<KeyRecord> {
    let name = section.required("name", "1 to 64 printable characters", |text: &str| {
        let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(got(text)) }
    });
    // What is wrong is not quoted: it may be the key itself.
    let digest = section.required("secret_sha256", "the key's SHA-256 in 64 hexadecimal digits", |text: &str| {
        if text == PLACEHOLDER {
            return Err("got the example's placeholder; make a key: cokd key create --name NAME".to_owned());
        }
        KeyDigest::parse(text).map_err(|_| match text.chars().count() {
            64 => "got other characters among them".to_owned(),
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
    let max_tunnels = section.whole("max_tunnels", 1, 10_000, 10);
    let expires = section.moment("expires");
    section.finish();
    Some(KeyRecord {
        name: name?.into(),
        digest: digest?,
        subdomains: subdomains.unwrap_or_else(|| SubdomainPattern::parse("*").into_iter().collect()),
        max_tunnels: max_tunnels as usize,
        expires,
    })
}

fn tuning(mut section: Section<'_>) -> Tuning {
    let congestion = section
        .optional("congestion", "\"bbr\" or \"cubic\"", |text: &str| text.parse::<Congestion>().map_err(|_| got(text)));
    section.finish();
    Tuning { congestion: congestion.unwrap_or_default() }
}

fn limits(mut section: Section<'_>) -> Limits {
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * 1024;
    let default = Limits::default();
    let limits = Limits {
        reconnect_grace: section.duration("reconnect_grace", Duration::ZERO, 300 * SECOND, default.reconnect_grace),
        offline_retention: section.duration("offline_retention", SECOND, 168 * HOUR, default.offline_retention),
        max_held: section.whole("max_held", 0, 100_000, default.max_held as u64) as usize,
        drain_timeout: section.duration("drain_timeout", Duration::ZERO, HOUR, default.drain_timeout),
        max_exchanges: section.whole("max_exchanges", 1, 100_000, default.max_exchanges.into()) as u32,
        initial_window: section.bytes("initial_window", 16 * KIB, 8 * MIB, default.initial_window.into()) as u32,
        window_budget: section.bytes("window_budget", 0, 1024 * 1024 * MIB, default.window_budget as u64) as usize,
        max_connections: section.whole("max_connections", 1, 10_000_000, default.max_connections as u64) as usize,
        max_connections_per_address: section.whole(
            "max_connections_per_address",
            1,
            10_000_000,
            default.max_connections_per_address as u64,
        ) as usize,
        max_sessions: section.whole("max_sessions", 1, 1_000_000, default.max_sessions as u64) as usize,
        handshake_timeout: section.duration("handshake_timeout", SECOND, 300 * SECOND, default.handshake_timeout),
        header_timeout: section.duration("header_timeout", SECOND, HOUR, default.header_timeout),
        max_header_bytes: section.bytes("max_header_bytes", 8 * KIB, 56 * KIB, default.max_header_bytes.into()) as u32,
    };
    section.finish();
    limits
}

#[cfg(test)]
mod tests;
