//! The daemon as a whole: what its parts share, and how it starts; `stop` has how it stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::{ArcSwap, Guard};
use cok_certs::dns::embedded::Embedded;
use cok_certs::unix_now;
use cok_transport::WindowBudget;
use http::HeaderValue;
use quinn::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::activation::Inherited;
use crate::certificates::{Certificates, Dns};
use crate::config::{Config, ConfigError};
use crate::keys::KeyStore;
use crate::listener::first_packets;
use crate::listener::quic::Port;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::names::{Hostname, Subdomain};
use crate::places::Places;
use crate::public_tls::PublicTls;
use crate::quic_secret::QuicSecret;
use crate::quota::Quota;
use crate::registry::Registry;
use crate::running::Running;
use crate::shutdown::Shutdown;
use crate::stop::Serving;
use crate::{admin, listener, service_manager};

/// How often names that have been away for too long are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long the service manager may wait for the tunnels of before to be back, and how often they are looked for.
const RETURN_LIMIT: Duration = Duration::from_secs(2);
const RETURN_LOOK: Duration = Duration::from_millis(20);

/// How long a visitor may rely on what `Alt-Svc` says, in seconds: a day.
const ALT_SVC_AGE: u32 = 24 * 3600;

/// What all parts of a running daemon share.
#[derive(Debug)]
pub struct Daemon {
    /// The domain that it serves.
    pub domain: Hostname,
    /// Its configuration, which a reload changes.
    config: ArcSwap<Config>,
    /// Where that comes from; nothing for one that has no file.
    source: Option<PathBuf>,
    /// Tells of each reload.
    reloaded: watch::Sender<()>,
    /// One reload at a time, or parts of two files could be in force.
    reloading: Mutex<()>,
    /// Whether the service manager knows that it is ready, and not yet that it stops.
    announced: AtomicBool,
    /// All names.
    pub registry: Arc<Registry>,
    /// All keys.
    pub keys: KeyStore,
    /// Tunnels of each key.
    pub tunnels_of_keys: Arc<Quota>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// What windows grow out of.
    pub windows: WindowBudget,
    /// Requests under way.
    pub running: Running,
    /// Its going away.
    pub shutdown: Shutdown,
    /// Connections and sessions that are waited for at the end.
    pub tasks: TaskTracker,
    /// Of them those of visitors, each with a token.
    pub visitors: TaskTracker,
    /// Places for public connections.
    pub places: Places,
    /// Places for sessions.
    pub sessions: Arc<Semaphore>,
    pub(crate) ready: AtomicBool,
    /// The port in public addresses.
    public_port: u16,
    /// What `Alt-Svc` says; nothing without UDP.
    alt_svc: Option<HeaderValue>,
    /// Answers DNS queries, if the daemon does so itself.
    dns: Option<Arc<Embedded>>,
}

/// Why the configuration stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// This daemon was started without a file.
    #[error("this daemon was started without a configuration file")]
    NoFile,
    /// It can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It differs in what can't change while the daemon runs.
    #[error("{}", fixed(file, keys))]
    Fixed {
        /// The file.
        file: PathBuf,
        /// The keys or sections, such as `domain`.
        keys: Vec<&'static str>,
    },
}

fn fixed(file: &std::path::Path, keys: &[&str]) -> String {
    let line = |key| format!("{}: {key}: cannot change while cokd runs; restart it", file.display());
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A daemon whose listeners are bound.
pub struct Bound {
    daemon: Arc<Daemon>,
    https: Vec<TcpListener>,
    quic: Vec<Port>,
    http: Vec<TcpListener>,
    admin: Vec<TcpListener>,
    /// The public sockets are the service manager's.
    handed_over: bool,
    /// Names that were online when the last process ended.
    expected: Vec<Subdomain>,
    dns: Option<Dns>,
    memory: Memory,
    tls: PublicTls,
    certificates: Certificates,
    addresses: Addresses,
}

/// Where a daemon listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// HTTPS.
    pub https: Vec<SocketAddr>,
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Daemon {
    /// Loads the certificate and binds the listeners, but for those that were handed over; nothing is served yet.
    pub fn bind(config: Config, source: Option<PathBuf>, mut inherited: Inherited) -> anyhow::Result<Bound> {
        let metrics = Arc::<Metrics>::default();
        let (certificates, dns) = Certificates::new(&config, metrics.clone(), &mut inherited)?;
        if !inherited.dns_udp.is_empty() {
            warn!(
                event = "unused_socket",
                "the service manager's socket \"dns\" is not answered: acme.dns.provider is not \"embedded\"; disable \
                 cokd-dns.socket"
            );
        }
        let secret = QuicSecret::load_or_create(&config.state_dir).context("cannot make a secret")?;
        let tls = PublicTls::new(certificates.resolver(), secret)?;
        let local = |listeners: &[TcpListener]| -> std::io::Result<Vec<SocketAddr>> {
            listeners.iter().map(TcpListener::local_addr).collect()
        };
        let handed_over = !inherited.https.is_empty();
        let before = if inherited.quic.is_empty() { Vec::new() } else { first_packets::take(&config.state_dir) };
        let (https, quic) = listener::bind_public(&config, inherited.https, inherited.quic)?;
        let http = listener::bind_all(&config.listen.http, inherited.http)?;
        let admin = listener::bind_all(&[config.listen.admin], inherited.admin)?;
        let admin_address = local(&admin)?.first().copied().unwrap_or(config.listen.admin);
        let addresses = Addresses { https: local(&https)?, http: local(&http)?, admin: admin_address };
        let quic = tls.ports(&config, quic, &before)?;
        let limits = &config.limits;
        let public_port = addresses.https.first().map_or(443, SocketAddr::port);
        let registry = Registry::new(limits.reconnect_grace, limits.offline_retention);
        let memory = Memory::new(&config.state_dir);
        let expected = memory.recall(&registry);
        let daemon = Arc::new(Self {
            registry,
            keys: KeyStore::new(config.keys.clone()),
            tunnels_of_keys: Arc::default(),
            metrics,
            windows: WindowBudget::new(limits.window_budget),
            running: Running::default(),
            shutdown: Shutdown::default(),
            tasks: TaskTracker::new(),
            visitors: TaskTracker::new(),
            places: Places::new(
                limits.max_connections,
                limits.max_connections_per_address,
                config.trusted_proxies.clone(),
            ),
            sessions: Arc::new(Semaphore::new(limits.max_sessions)),
            ready: AtomicBool::new(false),
            public_port,
            alt_svc: alt_svc(&quic, public_port),
            dns: dns.as_ref().map(|dns| dns.responder.clone()),
            domain: config.domain.clone(),
            config: ArcSwap::from_pointee(config),
            source,
            reloaded: watch::Sender::new(()),
            reloading: Mutex::default(),
            announced: AtomicBool::new(false),
        });
        Ok(Bound { daemon, https, quic, http, admin, handed_over, expected, dns, memory, tls, certificates, addresses })
    }

    /// The configuration of now. Not to be held while anything is waited for.
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// Reads the configuration again, and applies it to what begins from now on. On any mistake, and where something has
    /// changed that only a restart can change, nothing is applied.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let source = self.source.as_deref().ok_or(ReloadError::NoFile)?;
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let config = Config::load(source)?;
        let fixed = self.config().fixed(&config);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed { file: source.to_owned(), keys: fixed });
        }
        let limits = &config.limits;
        self.registry.set_times(limits.reconnect_grace, limits.offline_retention);
        self.places.set(limits.max_connections_per_address, config.trusted_proxies.clone());
        self.keys.replace(config.keys.clone());
        self.config.store(Arc::new(config));
        self.reloaded.send_replace(());
        Ok(())
    }

    /// Why it accepts no traffic, or none that visitors trust; nothing once it does: it listens, has a certificate from
    /// where it should come that has not expired, and is not stopping.
    pub fn unready(&self) -> Option<String> {
        if !self.ready.load(Ordering::Relaxed) || self.shutdown.started() {
            return Some("the daemon is starting or stopping".to_owned());
        }
        let expiry = self.metrics.certificate_expiry.get();
        if expiry > unix_now() {
            return None;
        }
        let mut why = if expiry == 0 {
            "there is no certificate yet, and a self-signed one is served"
        } else {
            "the certificate has expired"
        }
        .to_owned();
        if let Some(refused) = self.dns.as_ref().and_then(|dns| dns.refused()) {
            why = format!("{why}: {refused}");
        }
        Some(why)
    }

    /// Whether the service manager has heard that it is ready, and not yet that it stops.
    pub fn announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    /// What visitors over TCP are told of HTTP/3 (RFC 7838); nothing where there is no UDP.
    pub fn alt_svc(&self) -> Option<&HeaderValue> {
        self.alt_svc.as_ref()
    }

    /// The public address of a name.
    pub fn url(&self, name: &Subdomain) -> String {
        match self.public_port {
            443 => format!("https://{name}.{}", self.domain),
            port => format!("https://{name}.{}:{port}", self.domain),
        }
    }

    /// The daemon's own address, which clients take as `--server`.
    pub fn server_url(&self) -> String {
        match self.public_port {
            443 => format!("https://{}", self.domain),
            port => format!("https://{}:{port}", self.domain),
        }
    }
}

impl Bound {
    /// The daemon.
    pub fn daemon(&self) -> &Arc<Daemon> {
        &self.daemon
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until `stop` resolves, then lets what runs finish, at most for `drain_timeout`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { daemon, https, quic, http, admin, handed_over, expected, dns, memory, tls, certificates, addresses } =
            self;
        let acceptor = TlsAcceptor::from(tls.config.clone());
        let mut listeners = JoinSet::new();
        for (listener, address) in https.into_iter().zip(&addresses.https) {
            info!(event = "listening", listener = "https", %address, "listening on {address} for HTTPS");
            listeners.spawn(listener::https(daemon.clone(), listener, acceptor.clone()));
        }
        for Port { endpoint, connections, .. } in &quic {
            let address = endpoint.local_addr().unwrap_or(addresses.admin);
            info!(event = "listening", listener = "quic", %address, "listening on {address} for QUIC");
            listeners.spawn(listener::quic::serve(daemon.clone(), endpoint.clone(), connections.clone()));
        }
        for (listener, address) in http.into_iter().zip(&addresses.http) {
            info!(event = "listening", listener = "http", %address, "listening on {address} for HTTP");
            listeners.spawn(listener::http(daemon.clone(), listener, daemon.public_port));
        }
        if let Some(Dns { responder, listeners: addresses }) = dns {
            for (address, bound) in addresses {
                // Before the service manager hears that the daemon is ready.
                listener::dns::note(&responder, address, &bound);
                listeners.spawn(listener::dns::serve(responder.clone(), address, bound));
            }
        }
        let address = addresses.admin;
        info!(event = "listening", listener = "admin", %address, "listening on {address} for health and metrics");
        // Where the next daemon starts only when this one has ended, the admin address goes on answering while it drains.
        let mut admins = JoinSet::new();
        for listener in admin {
            admins.spawn(admin::serve(daemon.clone(), listener));
        }
        let keeper = tokio::spawn(memory.clone().keep_on(daemon.registry.clone()));
        let endpoints = quic.iter().map(|port| port.endpoint.clone()).collect();
        let mut others = JoinSet::new();
        others.spawn(sweep(daemon.registry.clone()));
        others.spawn(certificates.keep_fresh());
        others.spawn(follow(daemon.clone(), tls, endpoints));
        daemon.ready.store(true, Ordering::Relaxed);
        info!(event = "ready", domain = %daemon.domain, "serving {}", daemon.domain);
        others.spawn(service_manager::feed_watchdog());

        tokio::pin!(stop);
        tokio::select! {
            // Who restarts twice in a row must not find the clients on their way.
            () = back(&daemon.registry, expected) => {
                service_manager::ready();
                daemon.announced.store(true, Ordering::Relaxed);
                stop.await;
                daemon.announced.store(false, Ordering::Relaxed);
            }
            () = &mut stop => {}
        }

        let serving = Serving { daemon, handed_over, listeners, quic, memory, keeper, admins, _others: others };
        serving.stop().await;
    }
}

/// Has new QUIC connections begin with the settings of the last reload.
async fn follow(daemon: Arc<Daemon>, tls: PublicTls, endpoints: Vec<Endpoint>) {
    let mut reloaded = daemon.reloaded.subscribe();
    while reloaded.changed().await.is_ok() {
        for endpoint in &endpoints {
            let config = Arc::clone(&daemon.config());
            match tls.for_quic(&config) {
                Ok(settings) => endpoint.set_server_config(Some(settings)),
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(error, "QUIC keeps the settings that it had before the reload: {error}");
                }
            }
        }
    }
}

/// Waits for names to be online again, but not for long: their clients may be gone.
async fn back(registry: &Registry, mut names: Vec<Subdomain>) {
    let limit = Instant::now() + RETURN_LIMIT;
    while !names.is_empty() && Instant::now() < limit {
        names.retain(|name| registry.find(name).is_some_and(|tunnel| tunnel.live().is_none()));
        tokio::time::sleep(RETURN_LOOK).await;
    }
}

fn alt_svc(quic: &[Port], port: u16) -> Option<HeaderValue> {
    quic.first()?;
    HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALT_SVC_AGE}")).ok()
}

async fn sweep(registry: Arc<Registry>) {
    let mut interval = tokio::time::interval(SWEEP_EVERY);
    loop {
        interval.tick().await;
        registry.sweep();
    }
}
