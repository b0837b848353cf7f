//! One tunnel: what it needs, what happens to it, and how to run it.

mod keeper;
mod lost_connects;
mod session;
mod taken;
mod transport_policy;

use std::sync::Arc;
use std::time::Duration;

use cok_http::name::{MAX_LABEL, parse_label};
use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{ErrorCode, ErrorMessage};
use cok_transport::{Config, Transport, WindowBudget};
use tokio_util::sync::CancellationToken;

use self::keeper::Keeper;
use crate::options::Options;
use crate::proxy::Proxy;
use crate::text::quoted;

/// How long running requests may take when the client is stopped.
const DRAIN: Duration = Duration::from_secs(10);
/// By how much this process's windows may grow.
const WINDOW_BUDGET: usize = 64 * 1024 * 1024;
/// Exchanges at once, until the daemon says how many.
const MAX_EXCHANGES: u32 = 1000;

/// A name as the server knows it: one DNS label, in lower case.
pub(crate) fn check_subdomain(text: &str) -> Result<String, String> {
    parse_label(text)
        .map_err(|_| format!("\"{text}\" is not one label of 1 to {MAX_LABEL} letters, digits and inner hyphens"))
}

/// What happens to a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is being opened for the first time.
    Connecting {
        /// The daemon.
        server: String,
    },
    /// It is online.
    Connected {
        /// How it is carried.
        transport: &'static str,
        /// Its public address.
        url: String,
        /// The session's id.
        session: String,
        /// Why it is carried that way.
        reason: String,
    },
    /// It has settled on a transport that is not the wanted one. [`Event::Connected`] follows.
    Fallback {
        /// The wanted transport.
        from: &'static str,
        /// The one that carries it.
        to: &'static str,
        /// Why.
        reason: String,
    },
    /// It is offline.
    Disconnected {
        /// Why.
        reason: String,
        /// When it tries again.
        retry_in: Duration,
        /// It has been online before.
        was_online: bool,
    },
    /// Another client has the name. It may have vanished, so the tunnel asks again.
    NameTaken {
        /// The wanted name; `None` if the daemon was to pick one.
        name: Option<String>,
        /// Why it was refused.
        reason: String,
        /// For how long it asks again, at most.
        within: Duration,
    },
    /// It is asked to stop while something is under way. Without anything, it stops in silence.
    Stopping {
        /// Requests that may finish.
        requests: usize,
        /// WebSockets and event streams, which are closed now.
        streams: usize,
        /// How long the requests may take.
        within: Duration,
    },
}

/// The daemon will not have this tunnel, now or later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused by the server: {}", quoted(&.0.to_string()))]
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

    /// Keeps the tunnel up until `stop`. Then it closes WebSockets and event streams and lets other requests finish.
    /// Connects again without end; only a refusal ends it early. Dropped before its end, it breaks off what runs.
    pub async fn run(&self, stop: CancellationToken, on_event: impl FnMut(Event)) -> Result<(), Refused> {
        let mut keeper = Keeper::new(self, on_event);
        let result = tokio::select! {
            refused = keeper.keep_up() => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        keeper.finish(DRAIN).await;
        result
    }
}

/// Answers a session's requests until no more can come.
pub(crate) async fn serve(transport: Arc<dyn Transport>, proxy: Arc<Proxy>) {
    while let Some(incoming) = transport.accept().await {
        tokio::spawn(proxy.clone().exchange(incoming));
    }
}
