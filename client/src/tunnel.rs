//! One tunnel: a session for as long as there is one, and a new one whenever it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage};
use cok_transport::{CloseReason, Config, HandshakeError, Status, Transport, WindowBudget, ws};
use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connect::{Server, connect};
use crate::proxy::{HostHeader, Proxy};
use crate::target::Target;

/// The first wait after a session was lost; the next ones double.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// A session that lived this long was a good one: after it, the waits begin anew.
const GOOD_SESSION: Duration = Duration::from_secs(10);
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

/// A name as the server knows it: one DNS label, in lower case.
pub(crate) fn check_subdomain(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label = (1..=63).contains(&text.len()) && text.bytes().all(inner);
    if label && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("\"{text}\" is not one label of 1 to 63 letters, digits and inner hyphens"))
    }
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

impl Refused {
    fn is_about_the_name(&self) -> bool {
        matches!(self.0.code, ErrorCode::NameTaken | ErrorCode::NameForbidden)
    }
}

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
    /// ends it early. Dropped before its end, it breaks off what runs.
    pub async fn run(&self, stop: CancellationToken, on_event: impl Fn(Event)) -> Result<(), Refused> {
        let mut sessions = Sessions::default();
        let result = tokio::select! {
            refused = self.keep_up(&mut sessions, &on_event) => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        for session in &sessions.0 {
            session.drain(DrainReason::Shutdown, DRAIN);
        }
        for session in &sessions.0 {
            // Each ends by itself at its deadline.
            session.closed().await;
        }
        result
    }

    async fn keep_up(&self, sessions: &mut Sessions, on_event: &impl Fn(Event)) -> Refused {
        let mut subdomain = self.options.subdomain.clone();
        let mut backoff = BACKOFF_FIRST;
        // A session that the daemon wants replaced is, at once; but not one after the other.
        let mut hurried = false;
        // The latest session, as long as it drains.
        let mut before: Option<(String, Arc<dyn Transport>)> = None;
        loop {
            sessions.0.retain(|session| !is_closed(&**session));
            before.take_if(|(_, transport)| is_closed(&**transport));
            let replaces = before.as_ref().map(|(session, _)| session.clone());
            let reason = match self.session(subdomain.clone(), replaces).await {
                Ok((transport, ack)) => {
                    // The name that was given is the one to come back to.
                    subdomain = Some(ack.subdomain);
                    on_event(Event::Connected {
                        transport: transport.name(),
                        url: ack.url,
                        session: ack.session.clone(),
                    });
                    let began = Instant::now();
                    sessions.0.push(transport.clone());
                    tokio::spawn(serve(transport.clone(), self.proxy.clone()));
                    let ended = until_replaced(&*transport).await;
                    if began.elapsed() >= GOOD_SESSION {
                        (backoff, hurried) = (BACKOFF_FIRST, false);
                    }
                    before = Some((ack.session, transport));
                    match ended {
                        Ended::Replace if !hurried => {
                            hurried = true;
                            continue;
                        }
                        Ended::Replace => CloseReason::Drained,
                        Ended::Leaving => CloseReason::Lost("the server is shutting down".to_owned()),
                        Ended::Closed(reason) => reason,
                    }
                }
                Err(Failure::Closed(reason)) => reason,
                Err(Failure::Other(reason)) => CloseReason::Lost(reason),
            };
            if let Some(refused) = refusal(&reason) {
                if self.options.subdomain.is_none() && subdomain.is_some() && refused.is_about_the_name() {
                    // Somebody else has the name that the server picked; it may pick another.
                    subdomain = None;
                } else {
                    return refused;
                }
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

/// The sessions that have not ended. Should nobody wait for their end, they are broken off.
#[derive(Default)]
struct Sessions(Vec<Arc<dyn Transport>>);

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in &self.0 {
            session.close(ErrorMessage {
                code: ErrorCode::Shutdown,
                message: "the client has stopped".to_owned(),
                retryable: true,
            });
        }
    }
}

fn is_closed(transport: &dyn Transport) -> bool {
    matches!(*transport.status().borrow(), Status::Closed(_))
}

enum Ended {
    /// The daemon takes nothing new on this session and waits for the next.
    Replace,
    /// The daemon goes away; another may come.
    Leaving,
    Closed(CloseReason),
}

/// Waits until another session is needed.
async fn until_replaced(transport: &dyn Transport) -> Ended {
    let mut status = transport.status();
    let changed = status.wait_for(|status| match status {
        Status::Open => false,
        Status::Draining(drain) => {
            matches!(drain.reason, DrainReason::Restart | DrainReason::Ids | DrainReason::Shutdown)
        }
        Status::Closed(_) => true,
    });
    match changed.await.as_deref() {
        Ok(Status::Draining(drain)) if drain.reason == DrainReason::Shutdown => Ended::Leaving,
        // What drained quickly was seen only at its end.
        Ok(Status::Draining(_) | Status::Closed(CloseReason::Drained)) => Ended::Replace,
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
pub(crate) async fn serve(transport: Arc<dyn Transport>, proxy: Arc<Proxy>) {
    while let Some(incoming) = transport.accept().await {
        tokio::spawn(proxy.clone().exchange(incoming));
    }
}
