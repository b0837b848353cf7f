//! Exchanges: a request from the tunnel is sent to the local service, its response goes back.
//!
//! Each exchange has one task. Over HTTP/1.1 that task polls the service's connection itself, so a chunk passes from socket
//! to tunnel without a hop between tasks. Over HTTP/2 it polls its own stream of a shared connection.
//!
//! To follow a request: [`Proxy::exchange`] here, `request` (what the service gets), `service` (a connection), `http1`,
//! `http2` or `in_process` (there and back), `respond` (what the daemon gets).

mod alarm;
mod blocked_host;
mod body;
mod framing;
mod http1;
mod http2;
mod in_process;
mod invalid;
mod lent;
mod request;
mod respond;
mod response_body;
mod response_timeout;
mod service;
mod unless_gone;
mod upgrade;
mod watched;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use cok_proto::{RequestHead, ResetCode};
use cok_transport::{ExchangeHalves, Incoming, SendHalf};
use rustls::ClientConfig;
use tracing::{Level, debug, enabled, info};

use self::blocked_host::BlockedHost;
use self::body::RequestBody;
use self::request::Request;
use self::service::dial_error::DialError;
use self::service::local::{self, InvalidHost, Local, Service};
use self::service::tls::LocalTls;
use self::unless_gone::unless_gone;
use self::upgrade::Asked;
use self::watched::Reason;
pub(crate) use self::watched::Watch;
use crate::exchange::{Origin, Spoken};
use crate::flight::{self, Flight, InFlight};
use crate::options::HostHeader;
use crate::target::Target;
use crate::target_trust::Fingerprint;
use crate::text::{path_text, quoted};
use crate::upgrades::Upgrades;

/// The failure of a service that sends interim responses without end.
const INTERIM_FLOOD: &str = "it sent interim responses without end";

/// What the proxy needs.
#[derive(Debug)]
pub(crate) struct Config {
    /// The local service.
    pub(crate) target: Target,
    /// Whom to trust behind `https://` on other machines.
    pub(crate) tls: Arc<ClientConfig>,
    /// The only certificates to trust there, if the user has listed them.
    pub(crate) fingerprints: Option<Vec<Fingerprint>>,
    /// Which protocols the service may switch to.
    pub(crate) upgrades: Upgrades,
    /// What the service sees as Host.
    pub(crate) host_header: HostHeader,
    /// How long a connection to the service may take.
    pub(crate) connect_timeout: Duration,
    /// How long the service may take until its response begins; `None` for no limit.
    pub(crate) response_timeout: Option<Duration>,
    /// Whether log lines name queries, which may hold secrets.
    pub(crate) log_queries: bool,
    /// Reports requests.
    pub(crate) watch: Watch,
}

/// Forwards to one local service.
#[derive(Debug)]
pub(crate) struct Proxy {
    local: Local,
    host: HostHeader,
    upgrades: Upgrades,
    response_timeout: Option<Duration>,
    log_queries: bool,
    watch: Watch,
    blocked_host: Arc<BlockedHost>,
    in_flight: Arc<InFlight>,
}

/// Why an exchange failed. Each failure has a reset code for the daemon.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the service broke off: {0}")]
    Broke(String),
    #[error("the service did not begin its response within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the response's head is too large for the tunnel")]
    TooLarge,
    #[error("the visitor left")]
    Gone,
    /// The response is not HTTP, or breaks a rule of it.
    #[error("the service's response is not valid HTTP: {0}")]
    Invalid(String),
    /// The service speaks another protocol than its target says.
    #[error("{0}")]
    Mismatch(String),
    #[error("the client stops, and the connection could not be closed in order")]
    Stopped,
}

/// The outcome of a request on a connection.
enum Outcome {
    /// The whole response was passed on.
    Answered,
    /// The connection was closed before the response began. The request may be sent again.
    Unanswered(Box<Request>),
}

impl Failure {
    fn code(&self) -> ResetCode {
        match self {
            Self::Dial(DialError::Refused { .. }) => ResetCode::LocalRefused,
            Self::Dial(DialError::TimedOut { .. }) | Self::Slow(_) => ResetCode::LocalTimeout,
            Self::Dial(DialError::Unresolved { .. }) => ResetCode::LocalUnresolved,
            Self::Dial(DialError::Untrusted { .. }) => ResetCode::LocalUntrusted,
            Self::Dial(DialError::Mismatch { .. }) | Self::Mismatch(_) => ResetCode::LocalMismatch,
            Self::Invalid(_) => ResetCode::LocalInvalid,
            Self::Broke(_) | Self::Stopped => ResetCode::LocalBroken,
            Self::TooLarge => ResetCode::TooLarge,
            Self::Gone => ResetCode::Cancelled,
        }
    }
}

impl Proxy {
    /// `in_flight` counts its exchanges.
    pub(crate) fn new(config: Config, in_flight: Arc<InFlight>) -> Result<Arc<Self>, InvalidHost> {
        let sees_visitors_host =
            config.host_header == HostHeader::Preserve && !matches!(config.target, Target::Service(_));
        Ok(Arc::new(Self {
            local: Local::new(config.target, config.connect_timeout, LocalTls::new(&config.tls, config.fingerprints))?,
            host: config.host_header,
            upgrades: config.upgrades,
            response_timeout: config.response_timeout,
            log_queries: config.log_queries,
            watch: config.watch,
            blocked_host: BlockedHost::new(sees_visitors_host),
            in_flight,
        }))
    }

    /// The service.
    #[cfg(feature = "trace")]
    pub(crate) fn target(&self) -> &Target {
        self.local.target()
    }

    /// Answers one request.
    pub(crate) async fn exchange(self: Arc<Self>, incoming: Incoming, origin: Origin) {
        let Incoming { mut head, end, exchange, .. } = incoming;
        let (ExchangeHalves { mut send, recv }, reason) =
            self.watch.begin((&head, end), exchange, origin, &self.blocked_host).parts();
        let (method, target) = (head.method.clone(), head.target.clone());
        let mut flight = self.in_flight.begin();
        let asks_upgrade = upgrade::wanted(&mut head, &self.upgrades);
        let result = if let Some(protocol) = asks_upgrade {
            let asked = Asked { head, protocol, recv, end };
            reason.speaks(Spoken::Http1);
            Box::pin(upgrade::exchange(&self, asked, &mut send, &mut flight)).await
        } else {
            let body = if end { RequestBody::empty() } else { RequestBody::new(recv, &head.headers) };
            self.forward(head, body, (&mut send, &reason), &mut flight).await
        };
        if result.is_ok() && !enabled!(Level::DEBUG) {
            return;
        }
        let target = target.to_text();
        let shown = if self.log_queries { &*target } else { target.split('?').next().unwrap_or_default() };
        let target = quoted(&path_text(shown));
        match result {
            Ok(()) => debug!(%method, target, "{method} {target}: answered"),
            Err(Failure::Gone) => {
                reason.is(|| Failure::Gone.to_string());
                debug!(%method, target, "{method} {target}: the visitor left");
            }
            Err(failure) => {
                let error = quoted(&failure.to_string());
                reason.is(|| error.clone());
                if matches!(failure, Failure::Stopped) {
                    debug!(%method, target, error, "{method} {target}: {error}");
                } else {
                    info!(%method, target, error, "{method} {target}: {error}");
                }
                send.break_off(failure.code());
            }
        }
    }

    /// Sends a request. Sends it again over a fresh connection if the service has just closed the first one.
    async fn forward(
        &self,
        head: RequestHead,
        body: RequestBody,
        (send, reason): (&mut Box<dyn SendHalf>, &Reason),
        flight: &mut Flight,
    ) -> Result<(), Failure> {
        let mut request = Request::new(head, body, self.local.own_host(), &self.host);
        let limit = self.response_timeout;
        if let Some(service) = self.local.in_process() {
            reason.speaks(Spoken::InProcess);
            return Box::pin(in_process::exchange(service, request, send, limit, flight)).await;
        }
        for fresh in [false, true] {
            let outcome = match unless_gone(send, limit, self.local.connect(request.message.headers(), fresh)).await? {
                Service::Http1(connection) => {
                    reason.speaks(Spoken::Http1);
                    http1::exchange(connection, request, send, limit, &self.local.pool, flight).await?
                }
                Service::Http2(lease) => {
                    reason.speaks(Spoken::Http2);
                    Box::pin(http2::exchange(lease, request, send, limit, flight)).await?
                }
            };
            match outcome {
                Outcome::Answered => return Ok(()),
                Outcome::Unanswered(again) => request = *again,
            }
        }
        Err(Failure::Broke("it closed the connection before it answered, twice".to_owned()))
    }
}
