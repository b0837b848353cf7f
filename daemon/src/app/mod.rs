//! The daemon as a whole: its parts, the order in which they start, and what each passes to the others. Only this
//! module knows all parts.

pub(crate) mod dev;
mod reload;
mod signals;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use cok_store::Sqlite;
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::reload::Reloader;
pub(crate) use self::signals::StopSignals;
use crate::admin::{self, Access, Admin, AdminSocket, Feed, Identity, Places};
use crate::admission::{Admission, Fill};
use crate::certificates::{Certificates, Change, Served};
use crate::config::Config;
use crate::drain::stop::Stop;
use crate::drain::{Drain, Phase, Port, initials};
use crate::edge::{self, Edge};
use crate::exchanges::Exchanges;
use crate::host::activation::Inherited;
use crate::host::{descriptors, notify};
use crate::listen::dns::Dns;
use crate::listen::{self, Listen, PublicTls, ResetKey};
use crate::names::PublicAddress;
use crate::observe::{BytesSoFar, Figures, Health, Metrics, Observers};
use crate::tunnels::{Ledger, Tunnels};

/// The `ma` parameter of `Alt-Svc` in seconds: visitors may rely on it for a day.
const ALT_SVC_AGE: u32 = 24 * 3600;

/// The store in the state directory.
pub(crate) const STORE_FILE: &str = "store.db";
/// How long the start waits for the keys of the store.
const KEYS_LIMIT: Duration = Duration::from_secs(2);

/// A daemon whose sockets are bound. Nothing is served yet.
pub(crate) struct App {
    sockets: Bound,
    /// True if the public sockets come from the service manager.
    activated: bool,
    addresses: Addresses,
    address: PublicAddress,
    state_dir: PathBuf,
    parts: Parts,
    tls: Arc<PublicTls>,
    dns: Option<Dns>,
    certificates: Certificates,
    served: Served,
    store: Arc<Sqlite>,
    reloader: Arc<Reloader>,
}

/// The parts that live as long as the daemon.
#[derive(Clone)]
struct Parts {
    admission: Arc<Admission>,
    drain: Arc<Drain>,
    tunnels: Arc<Tunnels>,
    edge: Arc<Edge>,
    exchanges: Arc<Exchanges>,
    listen: Arc<Listen>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    observers: Arc<Observers>,
    /// What the admin address answers.
    access: Arc<ArcSwap<Access>>,
}

/// Bound sockets.
struct Bound {
    https: Vec<TcpListener>,
    quic: Vec<Port>,
    http: Vec<TcpListener>,
    admin: Vec<TcpListener>,
    /// `None` if it cannot be made.
    admin_socket: Option<AdminSocket>,
}

/// Where a daemon listens.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// HTTPS.
    pub(crate) https: Vec<SocketAddr>,
    /// Plain HTTP.
    pub(crate) http: Vec<SocketAddr>,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

impl App {
    /// Loads the certificate, binds the listeners that were not handed over, and builds all parts. `source` is the file
    /// to reload, if there is one.
    pub(crate) fn build(config: Config, source: Option<PathBuf>, mut inherited: Inherited) -> anyhow::Result<Self> {
        let (domain, state_dir) = (config.startup.domain.clone(), config.startup.state_dir.clone());
        let startup = &config.listen.startup;
        let metrics = Arc::new(Metrics::new(config.metrics));
        let (certificates, responder) =
            Certificates::new(&config.certificates, domain.as_str(), &state_dir, count(metrics.clone()))?;
        let served = certificates.served(&config.certificates, domain.as_str(), &state_dir);
        let dns =
            responder.map(|responder| Dns::bind(responder, &startup.addresses.dns, &mut inherited)).transpose()?;
        if !inherited.dns_udp.is_empty() {
            warn!(
                event = "unused_socket",
                "the service manager's socket \"dns\" is not answered: acme.dns.provider is not \"embedded\"; disable \
                 cokd-dns.socket"
            );
        }
        let reset_key = ResetKey::load_or_create(&state_dir).context("cannot make a secret")?;
        let names_secret = reset_key.names_secret();
        let tls = Arc::new(PublicTls::new(certificates.resolver(), startup.tuning.clone(), reset_key)?);

        let activated = !inherited.https.is_empty();
        let parked = if inherited.quic.is_empty() { Vec::new() } else { initials::take(&state_dir) };
        let (https, quic) = listen::bind_public(startup, inherited.https, inherited.quic)?;
        let http = listen::bind_all(&startup.addresses.http, inherited.http)?;
        let admin = listen::bind_all(&[startup.addresses.admin], inherited.admin)?;
        let quic = tls.ports(config.listen.live, quic, &parked)?;
        let sockets = Bound { https, quic, http, admin, admin_socket: bind_admin_socket(&state_dir) };
        let addresses = sockets.addresses(startup.addresses.admin)?;

        let address = PublicAddress { domain, port: addresses.https.first().map_or(443, SocketAddr::port) };
        let alt_svc = sockets.quic.first().and_then(|_| alt_svc(address.port));
        let access = Access::load(&config.admin, admin::path(&state_dir))?;
        let parts = Parts::new(&config, &address, alt_svc, &certificates, metrics, access, &names_secret);
        let store = Sqlite::open(state_dir.join(STORE_FILE));
        parts.admission.keys.expect_stored();
        parts.health.watch_store(store.troubles());
        let endpoints = sockets.quic.iter().map(|port| port.endpoint.clone()).collect();
        let reloader = Reloader::new(source, config, parts.clone(), tls.clone(), endpoints);
        Ok(Self {
            sockets,
            activated,
            addresses,
            address,
            state_dir,
            parts,
            tls,
            dns,
            certificates,
            served,
            store,
            reloader,
        })
    }

    /// The addresses it listens on.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its public address.
    pub(crate) fn address(&self) -> &PublicAddress {
        &self.address
    }

    /// Reloads its configuration.
    pub(crate) fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// Its drain.
    pub(crate) fn drain(&self) -> Arc<Drain> {
        self.parts.drain.clone()
    }

    /// What looks at its requests.
    pub(crate) fn observers(&self) -> Arc<Observers> {
        self.parts.observers.clone()
    }

    /// Serves until `stop` resolves. Requests in flight may then finish within `drain_timeout`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let Self { sockets, activated, addresses, address, state_dir, parts, tls, dns, .. } = self;
        let Self { certificates, served: certificate, store, reloader, .. } = self;
        let Bound { https, quic, http, admin, admin_socket } = sockets;
        let Parts { admission, drain, tunnels, exchanges, listen, health, metrics, observers, access, .. } = parts;

        // These tasks run until the stop has ended.
        let mut background = JoinSet::new();
        background.spawn(follow_keys(admission.clone(), store.clone()));
        // Clients come at once, and their keys must be known by then. If they are not, the clients are to try again.
        let _known = timeout(KEYS_LIMIT, admission.keys.completed()).await;

        let ledger = Ledger::new(store.clone(), store.path().to_owned(), store.troubles());
        let restored = ledger.restore(&tunnels).await;
        let expected = restored.online.clone();

        let mut listeners = JoinSet::new();
        for (listener, address) in https.into_iter().zip(&addresses.https) {
            info!(event = "listening", listener = "https", %address, "listening on {address} for HTTPS");
            listeners.spawn(listen::serve_https(listen.clone(), listener, tls.clone()));
        }
        for Port { endpoint, connections, .. } in &quic {
            let address = endpoint.local_addr().unwrap_or(addresses.admin);
            info!(event = "listening", listener = "quic", %address, "listening on {address} for QUIC");
            listeners.spawn(listen::serve_quic(listen.clone(), endpoint.clone(), connections.clone()));
        }
        for (listener, at) in http.into_iter().zip(&addresses.http) {
            info!(event = "listening", listener = "http", address = %at, "listening on {at} for HTTP");
            listeners.spawn(listen::serve_http(listen.clone(), listener, address.clone()));
        }
        for responder in dns.into_iter().flat_map(Dns::serve) {
            listeners.spawn(responder);
        }
        let at = addresses.admin;
        info!(event = "listening", listener = "admin", address = %at, "listening on {at} for health and metrics");
        let reload = reloader.for_admin();
        let asked_to_stop = CancellationToken::new();
        let api = Arc::new(Admin {
            health: health.clone(),
            metrics: metrics.clone(),
            observers: observers.clone(),
            admission: admission.clone(),
            tunnels: tunnels.clone(),
            exchanges: exchanges.clone(),
            drain: drain.clone(),
            certificate: certificate.clone(),
            store,
            access,
            reload,
            log_level: Arc::default(),
            stop: asked_to_stop.clone(),
            identity: Identity { domain: address.domain.to_string(), started: Instant::now() },
            feed: Feed::default(),
            places: Places::default(),
        });
        let admin = serve_admin(admin, admin_socket, &api);

        let follower = background.spawn(ledger.clone().follow(tunnels.clone(), restored));
        background.spawn(tunnels.clone().sweep());
        background.spawn(async move { admission.keys.watch_clock().await });
        background.spawn(api.feed());
        background.spawn({
            let (observers, exchanges) = (observers.clone(), exchanges.clone());
            let bytes = move || {
                let totals = exchanges.totals();
                BytesSoFar { received: totals.received, sent: totals.sent }
            };
            async move { observers.history.keep(bytes).await }
        });
        background.spawn(exchanges.watch());
        background.spawn(certificates.keep_fresh());
        background.spawn(health.clone().watch(certificate.clone(), state_dir.clone()));
        background.spawn({
            let metrics = metrics.clone();
            async move { metrics.runtime.measure_lag().await }
        });
        background.spawn(notify::feed_watchdog());
        health.set_listening();
        info!(event = "ready", domain = %address.domain, "serving {}", address.domain);

        let stop = async {
            tokio::select! {
                () = stop => {}
                () = asked_to_stop.cancelled() => {}
            }
        };
        tokio::pin!(stop);
        tokio::select! {
            // Readiness waits for the clients to reconnect: a second restart right now must not meet them on their way.
            () = tunnels.back(expected) => {
                reloader.announce();
                stop.await;
                reloader.conceal();
            }
            () = &mut stop => {}
        }

        // Before the log says so: from now on the daemon is not ready.
        drain.enter(Phase::Draining);
        let (sessions, time) = (tunnels.online(), humantime::format_duration(drain.timeout()));
        info!(event = "draining", sessions, "stopping: what runs may finish within {time}; tunnels online: {sessions}");
        let drain_sessions = Box::new({
            let tunnels = tunnels.clone();
            move |within| tunnels.drain_sessions(within)
        });
        let save_names = Box::pin(async move {
            follower.abort();
            ledger.save(&tunnels).await;
        });
        Stop { drain, activated, listeners, ports: quic, admin, state_dir, save_names, drain_sessions }.run().await;
    }
}

impl Parts {
    fn new(
        config: &Config,
        address: &PublicAddress,
        alt_svc: Option<HeaderValue>,
        certificates: &Certificates,
        metrics: Arc<Metrics>,
        access: Access,
        names_secret: &[u8],
    ) -> Self {
        let mut admission = config.admission.clone();
        admission.startup.fit(descriptors::raise_limit(), config.tunnels.startup.max_sessions);
        let admission = Admission::new(admission);
        let drain = Drain::new(config.drain.clone());
        let health = Health::new(certificates.state(), drain.clone());
        let tunnels = Tunnels::new(
            config.tunnels.clone(),
            address.clone(),
            admission.clone(),
            drain.clone(),
            metrics.clone(),
            names_secret,
        );
        let exchanges = Exchanges::new(config.exchanges.clone());
        let observers = Observers::new(metrics.clone(), config.access_log.clone());
        let for_edge = edge::Parts {
            tunnels: tunnels.clone(),
            drain: drain.clone(),
            health: health.clone(),
            observers: observers.clone(),
            rates: admission.rates.clone(),
            exchanges: exchanges.clone(),
        };
        let edge = Edge::new(address.domain.clone(), config.edge.clone(), alt_svc, for_edge);
        let listen = Listen::new(
            config.listen.live,
            edge.clone(),
            tunnels.clone(),
            admission.clone(),
            drain.clone(),
            metrics.clone(),
        );
        let access = Arc::new(ArcSwap::from_pointee(access));
        metrics.read_by(Box::new(figures(&admission, &tunnels, &exchanges, &health)));
        Self { admission, drain, tunnels, edge, exchanges, listen, health, metrics, observers, access }
    }
}

impl Bound {
    fn addresses(&self, admin: SocketAddr) -> std::io::Result<Addresses> {
        let local = |listeners: &[TcpListener]| -> std::io::Result<Vec<SocketAddr>> {
            listeners.iter().map(TcpListener::local_addr).collect()
        };
        let admin = local(&self.admin)?.first().copied().unwrap_or(admin);
        Ok(Addresses { https: local(&self.https)?, http: local(&self.http)?, admin })
    }
}

/// Follows the keys of the store. Runs until it is dropped.
async fn follow_keys(admission: Arc<Admission>, store: Arc<Sqlite>) {
    admission.keys.follow(&*store).await;
}

/// Makes the socket of the admin API. Traffic needs none.
fn bind_admin_socket(state_dir: &Path) -> Option<AdminSocket> {
    let failed = |error: &std::io::Error| {
        let path = admin::path(state_dir);
        warn!(event = "no_admin_socket", %error, "`cokd key` and `cokd reload` cannot reach this daemon: {}: {error}", path.display());
    };
    AdminSocket::bind(state_dir).inspect_err(failed).ok()
}

/// Starts a task for each listener of the admin API. With sockets of the service manager these answer during a drain,
/// since the next daemon starts only when this one has ended.
fn serve_admin(listeners: Vec<TcpListener>, socket: Option<AdminSocket>, admin: &Arc<Admin>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(socket) = socket {
        tasks.spawn(socket.serve(admin.clone()));
    }
    for listener in listeners {
        let admin = admin.clone();
        tasks.spawn(listen::accept(listener, move |stream, _| {
            tokio::spawn(admin.clone().serve_at_address(stream));
        }));
    }
    tasks
}

/// Counts certificate changes in the metrics.
fn count(metrics: Arc<Metrics>) -> impl Fn(Change) + Send + Sync {
    move |change| metrics.certificates.note(&change)
}

/// Reads what the daemon holds, for the metrics.
fn figures(
    admission: &Arc<Admission>,
    tunnels: &Arc<Tunnels>,
    exchanges: &Arc<Exchanges>,
    health: &Arc<Health>,
) -> impl Fn() -> Figures + Send + Sync + 'static {
    let (admission, tunnels) = (admission.clone(), Arc::downgrade(tunnels));
    let (exchanges, health) = (exchanges.clone(), health.clone());
    move || {
        let (totals, connections) = (exchanges.totals(), admission.connections.fill());
        // The tunnels hold the metrics.
        let Some(tunnels) = tunnels.upgrade() else { return Figures::default() };
        Figures {
            connections,
            sessions: tunnels.session_fill(),
            exchanges: totals.open,
            waiting: tunnels.held(),
            stalled: totals.stalled,
            evicted: totals.evicted,
            buffered: Fill { used: totals.held, most: totals.most_held },
            windows: tunnels.window_fill(),
            is_ready: health.unready().is_none(),
            components: health.working(),
            disk_free: health.disk_free(),
        }
    }
}

fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALT_SVC_AGE}")).ok()
}
