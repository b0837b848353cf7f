//! Exchanges: a request from the tunnel is sent to the local service, its response goes back.
//!
//! One task an exchange. Over HTTP/1.1 that task polls the service's connection itself, so a chunk passes from socket
//! to tunnel without a hop between tasks. Over HTTP/2 it polls its own stream of a shared connection.
//!
//! To follow a request: [`Proxy::exchange`] here, `request` (what the service gets), `local` (a connection), `http1` or
//! `http2` (there and back), `respond` (what the daemon gets).

mod body;
mod flight;
mod h2_pool;
mod http1;
mod http2;
mod local;
mod pool;
mod request;
mod respond;
mod response_timeout;
mod trust;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use cok_proto::{RequestHead, ResetCode};
use cok_transport::{ExchangeHalves, Incoming, SendHalf};
use http::header::UPGRADE;
use tracing::{debug, info};

use self::body::RequestBody;
use self::flight::Flight;
pub(crate) use self::flight::{InFlight, UnderWay};
use self::local::{DialError, Local, Service};
use self::request::Request;
use crate::options::{HostHeader, Options};
use crate::text::quoted;

/// Forwards to one local service.
#[derive(Debug)]
pub(crate) struct Proxy {
    local: Local,
    host: HostHeader,
    response_timeout: Option<Duration>,
    /// What is under way.
    pub(crate) in_flight: Arc<InFlight>,
}

/// Why an exchange came to nothing; each has its code for the daemon.
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
    #[error("the client stops, and the connection could not be closed in order")]
    Stopped,
}

/// What became of a request on a connection.
enum Outcome {
    /// The response is through.
    Answered,
    /// The service closed the connection, or took no more on it, and has not begun to answer. It may be sent again.
    Unanswered(Box<Request>),
}

impl Failure {
    fn code(&self) -> ResetCode {
        match self {
            Self::Dial(DialError::Refused { .. }) => ResetCode::LocalRefused,
            Self::Dial(DialError::TimedOut { .. }) | Self::Slow(_) => ResetCode::LocalTimeout,
            Self::Broke(_) | Self::Stopped => ResetCode::LocalBroken,
            Self::TooLarge => ResetCode::TooLarge,
            Self::Gone => ResetCode::Cancelled,
        }
    }
}

impl Proxy {
    pub(crate) fn new(options: &Options) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            local: Local::new(&options.target, options.connect_timeout, &options.tls)?,
            host: options.host_header.clone(),
            response_timeout: options.response_timeout,
            in_flight: Arc::default(),
        }))
    }

    /// Answers one request.
    pub(crate) async fn exchange(self: Arc<Self>, incoming: Incoming) {
        let Incoming { head, end, exchange: ExchangeHalves { mut send, recv } } = incoming;
        let (method, target) = (head.method.clone(), head.target.clone());
        let mut flight = self.in_flight.begin();
        let result = if head.headers.contains_key(UPGRADE) && !end {
            Box::pin(upgrade::exchange(&self, head, &mut send, recv, &mut flight)).await
        } else {
            let body = if end { RequestBody::empty() } else { RequestBody::new(recv, &head.headers) };
            self.forward(head, body, &mut send, &mut flight).await
        };
        let target = quoted(target.as_str());
        match result {
            Ok(()) => debug!(%method, target, "{method} {target}: answered"),
            Err(Failure::Gone) => debug!(%method, target, "{method} {target}: the visitor left"),
            Err(failure) => {
                let error = quoted(&failure.to_string());
                if matches!(failure, Failure::Stopped) {
                    debug!(%method, target, error, "{method} {target}: {error}");
                } else {
                    info!(%method, target, error, "{method} {target}: {error}");
                }
                send.reset(failure.code());
            }
        }
    }

    /// Sends a request, a second time if it met a connection that the service was just closing.
    async fn forward(
        &self,
        head: RequestHead,
        body: RequestBody,
        send: &mut Box<dyn SendHalf>,
        flight: &mut Flight,
    ) -> Result<(), Failure> {
        let mut request = Request::new(head, body, self.local.own_host(), &self.host);
        let limit = self.response_timeout;
        for fresh in [false, true] {
            let outcome = match self.local.connect(fresh).await? {
                Service::Http1(connection) => {
                    http1::exchange(connection, request, send, limit, &self.local.pool, flight).await?
                }
                Service::Http2(lease) => Box::pin(http2::exchange(lease, request, send, limit, flight)).await?,
            };
            match outcome {
                Outcome::Answered => return Ok(()),
                Outcome::Unanswered(again) => request = *again,
            }
        }
        Err(Failure::Broke("it closed the connection before it answered, twice".to_owned()))
    }
}
