//! One tunnel: a session for as long as there is one, and a new one whenever it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{Connect, ConnectAck, DrainReason, ErrorMessage};
use cok_transport::{CloseReason, Config, HandshakeError, Status, Transport, WindowBudget, ws};
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::connect::{Server, connect};
use crate::proxy::{HostHeader, Proxy};
use crate::target::Target;

/// The first wait after a session was lost; the next ones double.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// How long the daemon may take for the upgrade and for its answer.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How long running exchanges may take when the client is stopped.
const DRAIN: Duration = Duration::from_secs(10);
/// By how much this process's windows may grow.
const WINDOW_BUDGET: usize = 64 * 1024 * 1024;
/// Exchanges at once, until the daemon says how many.
const MAX_EXCHANGES: u32 = 1000;

/// What a tunnel needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon.
    pub server: Server,
    /// Dialled instead of the daemon's resolved address.
    pub connect_to: Option<SocketAddr>,
    /// Whom to trust: [`crate::trust_system`] or [`crate::trust_file`].
    pub tls: Arc<ClientConfig>,
    /// The API key.
    pub key: String,
    /// The wanted name; without one the daemon picks.
    pub subdomain: Option<String>,
    /// This installation, see [`crate::instance_id`].
    pub instance: String,
    /// The local service.
    pub target: Target,
    /// What the service sees as Host.
    pub host_header: HostHeader,
    /// How long the service may take until its response begins; `None` for ever.
    pub response_timeout: Option<Duration>,
    /// How long a connection to the service may take.
    pub connect_timeout: Duration,
}

/// What happens to a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is online.
    Connected {
        /// How it is carried.
        transport: &'static str,
        /// Its public address.
        url: String,
        /// The session's id.
        session: String,
    },
    /// It is offline.
    Disconnected {
        /// Why.
        reason: String,
        /// When it tries again.
        retry_in: Duration,
    },
}

/// The daemon will not have this tunnel, now or later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused by the server: {0}")]
pub struct Refused(pub ErrorMessage);

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    options: Options,
    proxy: Arc<Proxy>,
    config: Config,
}

impl Tunnel {
    /// A tunnel that is not connected yet.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let proxy = Proxy::new(&options)?;
        let config = Config {
            initial_window: DEFAULT_WINDOW,
            max_exchanges: MAX_EXCHANGES,
            budget: WindowBudget::new(WINDOW_BUDGET),
        };
        Ok(Self { options, proxy, config })
    }

    /// Keeps the tunnel up until `stop`, then lets running exchanges finish. Connects again for ever; only a refusal
    /// ends it early.
    pub async fn run(&self, stop: CancellationToken, on_event: impl Fn(Event)) -> Result<(), Refused> {
        let mut sessions: Vec<Arc<dyn Transport>> = Vec::new();
        let result = tokio::select! {
            refused = self.keep_up(&mut sessions, &on_event) => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        for session in &sessions {
            session.drain(DrainReason::Shutdown, DRAIN);
        }
        for session in &sessions {
            // Each ends by itself at its deadline.
            session.closed().await;
        }
        result
    }

    async fn keep_up(&self, sessions: &mut Vec<Arc<dyn Transport>>, on_event: &impl Fn(Event)) -> Refused {
        let mut subdomain = self.options.subdomain.clone();
        let mut replaces = None;
        let mut backoff = BACKOFF_FIRST;
        loop {
            sessions.retain(|session| !matches!(*session.status().borrow(), Status::Closed(_)));
            let reason = match self.session(subdomain.clone(), replaces.take()).await {
                Ok((transport, ack)) => {
                    backoff = BACKOFF_FIRST;
                    // The name that was given is the one to come back to.
                    subdomain = Some(ack.subdomain);
                    on_event(Event::Connected {
                        transport: transport.name(),
                        url: ack.url,
                        session: ack.session.clone(),
                    });
                    sessions.push(transport.clone());
                    tokio::spawn(serve(transport.clone(), self.proxy.clone()));
                    match until_replaced(&*transport).await {
                        Ended::Drains => {
                            replaces = Some(ack.session);
                            continue;
                        }
                        Ended::Closed(reason) => reason,
                    }
                }
                Err(Failure::Closed(reason)) => reason,
                Err(Failure::Other(reason)) => CloseReason::Lost(reason),
            };
            if let Some(refused) = refusal(&reason) {
                return refused;
            }
            let retry_in = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            on_event(Event::Disconnected { reason: reason.to_string(), retry_in });
            tokio::time::sleep(retry_in).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    async fn session(
        &self,
        subdomain: Option<String>,
        replaces: Option<String>,
    ) -> Result<(Arc<dyn Transport>, ConnectAck), Failure> {
        let Options { server, connect_to, tls, key, instance, .. } = &self.options;
        let stream = connect(server, *connect_to, tls).await.map_err(|error| Failure::Other(format!("{error:#}")))?;
        let ask = Connect {
            key: key.clone(),
            subdomain,
            instance: instance.clone(),
            replaces,
            initial_window: self.config.initial_window,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
        };
        match ws::connect(stream, &server.authority(), self.config.clone(), &ask, HANDSHAKE).await {
            Ok(session) => Ok(session),
            Err(ws::ConnectError::Handshake(HandshakeError::Closed(reason))) => Err(Failure::Closed(reason)),
            Err(error) => Err(Failure::Other(error.to_string())),
        }
    }
}

enum Failure {
    Closed(CloseReason),
    Other(String),
}

enum Ended {
    /// The daemon takes nothing new on this session and waits for the next.
    Drains,
    Closed(CloseReason),
}

/// Waits until another session is needed.
async fn until_replaced(transport: &dyn Transport) -> Ended {
    let mut status = transport.status();
    let changed = status.wait_for(|status| match status {
        Status::Open => false,
        Status::Draining(drain) => matches!(drain.reason, DrainReason::Restart | DrainReason::Ids),
        Status::Closed(_) => true,
    });
    match changed.await.as_deref() {
        Ok(Status::Draining(_)) => Ended::Drains,
        Ok(Status::Closed(reason)) => Ended::Closed(reason.clone()),
        _ => Ended::Closed(CloseReason::Lost("its driver is gone".to_owned())),
    }
}

/// An Error that says that trying again is of no use.
fn refusal(reason: &CloseReason) -> Option<Refused> {
    match reason {
        CloseReason::Session(cok_proto::mux::SessionError::Peer(error)) if !error.retryable => {
            Some(Refused(error.clone()))
        }
        _ => None,
    }
}

/// Answers a session's requests until no more can come.
async fn serve(transport: Arc<dyn Transport>, proxy: Arc<Proxy>) {
    while let Some(incoming) = transport.accept().await {
        tokio::spawn(proxy.clone().exchange(incoming));
    }
}
