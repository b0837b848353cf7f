//! Exchanges: a request from the tunnel is sent to the local service, its response goes back.
//!
//! One task an exchange. Over HTTP/1.1 that task polls the service's connection itself, so a chunk passes from socket
//! to tunnel without a hop between tasks.

mod body;
mod local;
mod pool;
mod request;
mod respond;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use cok_proto::{RequestHead, ResetCode};
use cok_transport::{Exchange, Incoming, SendHalf};
use http::header::{EXPECT, UPGRADE};
use tracing::{debug, info};

use self::body::RequestBody;
use self::local::{DialError, Local};
use self::pool::Pool;
use self::request::Request;
use crate::target::Target;
use crate::tunnel::Options;

/// What the service sees as Host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// What the visitor asked for.
    #[default]
    Preserve,
    /// The target's own host and port.
    Rewrite,
    /// This.
    Value(http::HeaderValue),
}

impl std::str::FromStr for HostHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "rewrite" => Ok(Self::Rewrite),
            // It becomes an authority over HTTP/2, so it has to be one.
            value => match value.parse::<http::uri::Authority>() {
                Ok(_) => http::HeaderValue::from_str(value).map(Self::Value).map_err(|error| error.to_string()),
                Err(_) => Err(format!("\"{value}\" is not \"preserve\", \"rewrite\" or a host")),
            },
        }
    }
}

/// Forwards to one local service.
#[derive(Debug)]
pub(crate) struct Proxy {
    local: Local,
    host: HostHeader,
    pool: Arc<Pool>,
    response_timeout: Option<Duration>,
}

/// Why an exchange came to nothing; each has its code for the daemon.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect to the service: {0}")]
    Dial(#[from] DialError),
    #[error("the service broke off: {0}")]
    Broke(String),
    #[error("a kept-alive connection was closed before the response began")]
    Stale,
    #[error("the service did not begin its response within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the response's head is too large for the tunnel")]
    TooLarge,
    #[error("the visitor left")]
    Gone,
}

impl Failure {
    fn code(&self) -> ResetCode {
        match self {
            Self::Dial(DialError::Refused(_)) => ResetCode::LocalRefused,
            Self::Dial(DialError::TimedOut(_)) | Self::Slow(_) => ResetCode::LocalTimeout,
            Self::Broke(_) => ResetCode::LocalBroken,
            // The service has closed an idle connection while the request was on its way. Sent again, it goes over a
            // fresh one; only requests for which that is safe end like this.
            Self::Stale => ResetCode::Unprocessed,
            Self::TooLarge => ResetCode::TooLarge,
            Self::Gone => ResetCode::Cancelled,
        }
    }
}

impl Proxy {
    pub(crate) fn new(options: &Options) -> anyhow::Result<Arc<Self>> {
        let local = Local::new(&options.target, options.connect_timeout, &options.tls)?;
        let pool = Pool::new();
        Ok(Arc::new(Self {
            local,
            host: options.host_header.clone(),
            pool,
            response_timeout: options.response_timeout,
        }))
    }

    /// Answers one request.
    pub(crate) async fn exchange(self: Arc<Self>, incoming: Incoming) {
        let Incoming { head, end, exchange: Exchange { mut send, recv } } = incoming;
        let (method, target) = (head.method.clone(), head.target.clone());
        let result = if head.headers.contains_key(UPGRADE) && !end {
            upgrade::exchange(&self, head, &mut send, recv).await
        } else {
            let body = if end { RequestBody::empty() } else { RequestBody::new(recv, &head.headers) };
            self.forward(head, body, &mut send).await
        };
        match result {
            Ok(()) => debug!(%method, %target, "answered"),
            Err(Failure::Gone) => debug!(%method, %target, "the visitor left"),
            Err(failure) => {
                info!(%method, %target, error = %failure, "request failed");
                send.reset(failure.code());
            }
        }
    }

    async fn forward(&self, head: RequestHead, body: RequestBody, send: &mut Box<dyn SendHalf>) -> Result<(), Failure> {
        let interim = head.headers.contains_key(EXPECT);
        let repeatable = head.method.is_idempotent() && body.is_empty();
        let mut request = Request { message: request::build(head, body, &self.local, &self.host), interim, repeatable };
        if matches!(self.local.target(), Target::H2c(_) | Target::Https(_))
            && let Some(http2) = self.local.http2().await?
        {
            return respond::over_http2(http2, request, send, self.response_timeout).await;
        }
        // An idle connection may turn out to be closed; a fresh one follows then.
        while let Some(connection) = self.pool.take() {
            match respond::over_http1(connection, request, send, self.response_timeout, &self.pool).await? {
                respond::Outcome::Answered => return Ok(()),
                respond::Outcome::NotSent(unsent) => request = *unsent,
            }
        }
        let connection = self.local.http1().await?;
        match respond::over_http1(connection, request, send, self.response_timeout, &self.pool).await? {
            respond::Outcome::Answered => Ok(()),
            respond::Outcome::NotSent(_) => Err(Failure::Broke("it closed a fresh connection".to_owned())),
        }
    }
}
