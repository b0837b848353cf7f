//! Makes clients and tunnels from few settings; the rest has defaults.

use std::net::SocketAddr;
#[cfg(feature = "files")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use cok_host::home;
use cok_proto::Rules;
#[cfg(feature = "trace")]
use cok_trace::Tracer;
use cok_transport::{Congestion, quic};
use http::{Request, Response};
use tower_service::Service;

use crate::client::Client;
#[cfg(feature = "files")]
use crate::files::InvalidFolder;
#[cfg(feature = "inspect")]
use crate::inspect::{Inspect, Inspector};
use crate::instance::{instance_id, new_id};
use crate::name::check_subdomain;
use crate::options::{ClientOptions, HostHeader, NAME_TIMEOUT, TunnelOptions};
use crate::outbound::{InvalidProxy, Outbound, ProxyUrl, from_environment};
use crate::server::Server;
use crate::service::{Body, BoxError, LocalService};
use crate::settings::{OpenError, SettingError};
use crate::target::Target;
use crate::target_trust::TargetTrust;
use crate::text::explain;
use crate::transport::{PROBE_INTERVAL, TransportChoice};
use crate::trust::{trust_file, trust_system};
use crate::tunnel::Tunnel;
use crate::upgrades::{UpgradeProtocol, Upgrades};

/// The default time limit until a service begins its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// The default time limit for a connection to a service, which is local or nearby.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// A client of the daemon at `server`, such as `https://tunnel.example.com`.
    pub fn builder(server: impl Into<String>, key: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server.into(), key.into())
    }

    /// Another tunnel in the session of this client.
    pub fn tunnel(&self) -> TunnelBuilder {
        TunnelBuilder::new(Carrier::Shared(self.clone()))
    }
}

impl Tunnel {
    /// A tunnel with a client of its own. `server` is the daemon's address, such as `https://tunnel.example.com`.
    ///
    /// For settings of the client, see [`ClientBuilder::tunnel`].
    pub fn builder(server: impl Into<String>, key: impl Into<String>) -> TunnelBuilder {
        ClientBuilder::new(server.into(), key.into()).tunnel()
    }
}

/// The settings of a client. Made by [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    server: String,
    key: String,
    ca_file: Option<PathBuf>,
    connect_to: Option<SocketAddr>,
    proxy: Wish,
    transport: TransportChoice,
    congestion: Congestion,
    probe_interval: Duration,
    name_timeout: Duration,
    keep_trying: bool,
    state_dir: Option<PathBuf>,
    instance: Option<String>,
    #[cfg(feature = "trace")]
    tracer: Option<Tracer>,
    #[cfg(feature = "inspect")]
    inspect: Inspect,
}

/// Which proxy a client uses.
#[derive(Clone, Debug)]
enum Wish {
    None,
    Named(Result<ProxyUrl, InvalidProxy>),
    Environment,
}

impl ClientBuilder {
    fn new(server: String, key: String) -> Self {
        Self {
            server,
            key,
            ca_file: None,
            connect_to: None,
            proxy: Wish::None,
            transport: TransportChoice::Auto,
            congestion: Congestion::default(),
            probe_interval: PROBE_INTERVAL,
            name_timeout: NAME_TIMEOUT,
            keep_trying: false,
            state_dir: None,
            instance: None,
            #[cfg(feature = "trace")]
            tracer: None,
            #[cfg(feature = "inspect")]
            inspect: Inspect::Off,
        }
    }

    /// Trusts the authorities in this PEM file. Default: those of the system.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Dials this address, over TCP and UDP. Default: what the server's name resolves to.
    #[must_use]
    pub fn connect_to(mut self, address: SocketAddr) -> Self {
        self.connect_to = Some(address);
        self
    }

    /// Reaches the daemon through this proxy: `http://`, `https://`, `socks5://` or `socks5h://`, with an optional
    /// `user:password@`. Default: none. A proxy carries only TCP, so the client takes a WebSocket.
    #[must_use]
    pub fn proxy(mut self, url: impl AsRef<str>) -> Self {
        self.proxy = Wish::Named(url.as_ref().parse());
        self
    }

    /// Takes the proxy from `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` exempts the daemon. Lower case will do.
    #[must_use]
    pub fn proxy_from_env(mut self) -> Self {
        self.proxy = Wish::Environment;
        self
    }

    /// How to reach the daemon. Default: QUIC where it works, a WebSocket where it does not.
    #[must_use]
    pub fn transport(mut self, transport: TransportChoice) -> Self {
        self.transport = transport;
        self
    }

    /// The congestion control of the session. Default: BBR.
    #[must_use]
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }

    /// The wait until a client on WebSocket tries QUIC again. It doubles with every failed try, up to ten minutes. Default:
    /// [`PROBE_INTERVAL`].
    #[must_use]
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// How long to ask for a name that another client has. Zero asks once. Default: [`NAME_TIMEOUT`].
    #[must_use]
    pub fn name_timeout(mut self, timeout: Duration) -> Self {
        self.name_timeout = timeout;
        self
    }

    /// Whether to ask again every few minutes after each refusal that may pass, such as one of the key. Opening a tunnel then
    /// waits instead of failing. Default: false.
    #[must_use]
    pub fn keep_trying(mut self, keep_trying: bool) -> Self {
        self.keep_trying = keep_trying;
        self
    }

    /// The folder of the instance id. Default: cok's folder in the user's state directory; without a home, the id is new in
    /// every run.
    #[must_use]
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }

    /// The instance id, in place of the one in the state directory. A client gets the names of another one back at once
    /// if it has the same key and id.
    #[must_use]
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.instance = Some(id.into());
        self
    }

    /// Records requests as spans. Default: none are recorded. [`Tracer::from_env`] makes one.
    #[cfg(feature = "trace")]
    #[must_use]
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Shows the requests of all tunnels on a page of this machine, at [`Client::inspector`]. Default: off.
    #[cfg(feature = "inspect")]
    #[must_use]
    pub fn inspect(mut self, inspect: Inspect) -> Self {
        self.inspect = inspect;
        self
    }

    /// A tunnel with a client of its own.
    pub fn tunnel(self) -> TunnelBuilder {
        TunnelBuilder::new(Carrier::Own(Box::new(self)))
    }

    /// Starts the client. It connects in the background, and reconnects without end.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn connect(self) -> Result<Client, SettingError> {
        #[cfg(feature = "trace")]
        let tracer = self.tracer.clone();
        #[cfg(feature = "inspect")]
        let (inspect, folder) = (self.inspect, self.state_dir.clone());
        let (client, driver) = Client::new(self.options()?);
        #[cfg(feature = "trace")]
        let driver = match &tracer {
            Some(tracer) => driver.traced(tracer),
            None => driver,
        };
        #[cfg(feature = "inspect")]
        let client = match inspect {
            Inspect::Off => client,
            Inspect::Port(port) => {
                client.with_inspector(Inspector::start(port, folder.as_deref()).map_err(SettingError::Inspector)?)
            }
        };
        Ok(client.start(driver))
    }

    fn options(self) -> Result<ClientOptions, SettingError> {
        if self.key.is_empty() || !self.key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SettingError::Key);
        }
        if self.probe_interval.is_zero() {
            return Err(SettingError::Zero("the probe interval"));
        }
        let server: Server = self.server.parse()?;
        let named = match self.proxy {
            Wish::None => None,
            Wish::Named(proxy) => Some((proxy?, "the settings")),
            Wish::Environment => {
                from_environment(|name| std::env::var(name).ok().filter(|text| !text.is_empty()), server.address())?
            }
        };
        if named.is_some() && self.transport == TransportChoice::Quic {
            return Err(SettingError::QuicThroughProxy);
        }
        let outbound = |(proxy, origin)| Outbound::new(proxy, origin, self.ca_file.as_deref());
        let proxy = named.map(outbound).transpose()?;
        let tls = match &self.ca_file {
            Some(path) => trust_file(path)?,
            None => trust_system()?,
        };
        let dialer = quic::Dialer::new(&tls, &quic::Tuning { congestion: self.congestion });
        let instance = self.instance.map_or_else(
            || {
                let folder = self.state_dir.or_else(|| Some(home::state_folder()?.join("cok")));
                folder.map_or_else(new_id, |folder| instance_id(&folder)).map_err(SettingError::Instance)
            },
            Ok,
        )?;
        Ok(ClientOptions {
            server,
            connect_to: self.connect_to,
            proxy,
            quic: dialer.map_err(|error| SettingError::Quic(explain(&error)))?,
            tls,
            transport: self.transport,
            congestion: self.congestion,
            probe_interval: self.probe_interval,
            key: self.key,
            name_timeout: self.name_timeout,
            keep_trying: self.keep_trying,
            log_queries: false,
            instance,
        })
    }
}

/// The settings of a tunnel. Made by [`Tunnel::builder`] or [`Client::tunnel`].
#[derive(Clone, Debug)]
pub struct TunnelBuilder {
    carrier: Carrier,
    label: Option<String>,
    subdomain: Option<String>,
    rules: Rules,
    target: Option<Wanted>,
    host_header: HostHeader,
    target_trust: TargetTrust,
    upgrades: Upgrades,
    response_timeout: Option<Duration>,
    connect_timeout: Duration,
}

/// The client that carries a tunnel.
#[derive(Clone, Debug)]
enum Carrier {
    /// One that there is.
    Shared(Client),
    /// One that is made with the tunnel.
    Own(Box<ClientBuilder>),
}

#[derive(Clone, Debug)]
enum Wanted {
    Text(String),
    Service(LocalService),
}

impl TunnelBuilder {
    fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            label: None,
            subdomain: None,
            rules: Rules::default(),
            target: None,
            host_header: HostHeader::default(),
            target_trust: TargetTrust::default(),
            upgrades: Upgrades::default(),
            response_timeout: Some(RESPONSE_TIMEOUT),
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// The wanted name, one DNS label. Default: the daemon picks one.
    #[must_use]
    pub fn subdomain(mut self, name: impl Into<String>) -> Self {
        self.subdomain = Some(name.into());
        self
    }

    /// A name for the tunnel in events.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Which visitors the daemon lets in. Default: all.
    ///
    /// ```
    /// let rules = cok_client::Rules { basic_auth: vec!["me:secret".parse()?], ..Default::default() };
    /// # Ok::<(), &'static str>(())
    /// ```
    ///
    /// [`ShareSecret`](crate::ShareSecret) makes the key of share links.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The local service: `3000`, `host:3000`, `http://…`, `https://…`, `h2c://…` or `unix:/path`.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(Wanted::Text(target.into()));
        self
    }

    /// A service in this process in place of a target, such as an axum `Router`. Each request gets a clone of it, and has
    /// [`VisitorAddress`](crate::VisitorAddress) in its extensions. A panic in the service fails only its own request.
    #[must_use]
    pub fn service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.target = Some(Wanted::Service(LocalService::new(service)));
        self
    }

    /// The files of a folder in place of a target, for GET and HEAD: with ranges, conditional requests, index pages and
    /// listings. Nothing outside of the folder is served, and no name that begins with a dot.
    #[cfg(feature = "files")]
    pub fn folder(mut self, path: impl AsRef<Path>) -> Result<Self, InvalidFolder> {
        self.target = Some(Wanted::Service(LocalService::folder(path.as_ref())?));
        Ok(self)
    }

    /// What the service sees as Host. Default: what the visitor asked for.
    #[must_use]
    pub fn host_header(mut self, host: HostHeader) -> Self {
        self.host_header = host;
        self
    }

    /// Which certificates an `https://` target on another machine may show. Default: those that the system trusts.
    #[must_use]
    pub fn target_trust(mut self, trust: TargetTrust) -> Self {
        self.target_trust = trust;
        self
    }

    /// Which protocols besides WebSocket a request may switch to, such as `tcp` or `SPDY/3.1`. Default: none.
    #[must_use]
    pub fn upgrades(mut self, protocols: impl IntoIterator<Item = UpgradeProtocol>) -> Self {
        self.upgrades = protocols.into_iter().collect();
        self
    }

    /// How long the service may take until its response begins; `None` for no limit. The time of an upload does not count.
    /// Default: 120 s.
    #[must_use]
    pub fn response_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.response_timeout = limit.into();
        self
    }

    /// How long a connection to the target may take. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Opens the tunnel and waits until it is online, however long that takes. If the future is dropped before, the tunnel is
    /// closed.
    pub async fn open(self) -> Result<Tunnel, OpenError> {
        let target = match self.target {
            None => return Err(SettingError::NoTarget.into()),
            Some(Wanted::Text(text)) => text.parse().map_err(SettingError::Target)?,
            Some(Wanted::Service(service)) => Target::Service(service),
        };
        if self.connect_timeout.is_zero() {
            return Err(SettingError::Zero("the connect timeout").into());
        }
        self.rules.check().map_err(SettingError::Rules)?;
        let subdomain = match &self.subdomain {
            Some(name) => Some(check_subdomain(name).map_err(SettingError::Subdomain)?),
            None => None,
        };
        let (client, owned) = match self.carrier {
            Carrier::Shared(client) => (client, false),
            Carrier::Own(builder) => (builder.connect()?, true),
        };
        let options = TunnelOptions {
            label: self.label,
            subdomain,
            rules: self.rules,
            target,
            host_header: self.host_header,
            target_trust: self.target_trust,
            upgrades: self.upgrades,
            response_timeout: self.response_timeout,
            connect_timeout: self.connect_timeout,
        };
        Tunnel::open(client, options, owned).await
    }
}
