//! One tunnel: a session with the daemon, and the local service behind it.

use std::sync::Arc;
use std::time::Duration;

use cok_http::name::{MAX_LABEL, parse_label};
use cok_proto::message::DEFAULT_WINDOW;
use cok_transport::WindowBudget;
use tokio_util::sync::CancellationToken;

use crate::dial;
use crate::event::{Event, Refused};
use crate::flight::InFlight;
use crate::options::Options;
use crate::proxy::{self, Proxy};
use crate::session::{self, Keeper};

/// How long requests under way may take once the client stops.
const DRAIN: Duration = Duration::from_secs(10);
/// The bytes by which the windows of a session's exchanges may grow in all.
const WINDOW_BUDGET: usize = 64 * 1024 * 1024;
/// The most exchanges at once that the daemon may open.
const MAX_EXCHANGES: u32 = 1000;

/// A name as the server knows it: one DNS label, in lower case.
pub(crate) fn check_subdomain(text: &str) -> Result<String, String> {
    parse_label(text)
        .map_err(|_| format!("\"{text}\" is not one label of 1 to {MAX_LABEL} letters, digits and inner hyphens"))
}

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    session: session::Config,
    proxy: Arc<Proxy>,
    in_flight: Arc<InFlight>,
}

impl Tunnel {
    /// A tunnel that is not connected yet.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let in_flight = Arc::<InFlight>::default();
        let service = proxy::Config {
            target: options.target,
            tls: options.tls.clone(),
            host_header: options.host_header,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        };
        let session = session::Config {
            dial: dial::Config {
                server: options.server,
                connect_to: options.connect_to,
                tls: options.tls,
                transport: options.transport,
                quic: options.quic,
                congestion: options.congestion,
            },
            limits: cok_transport::Config {
                initial_window: DEFAULT_WINDOW,
                max_exchanges: MAX_EXCHANGES,
                budget: WindowBudget::new(WINDOW_BUDGET),
            },
            probe_interval: options.probe_interval,
            key: options.key,
            instance: options.instance,
            subdomain: options.subdomain,
            name_timeout: options.name_timeout,
        };
        Ok(Self { session, proxy: Proxy::new(service, in_flight.clone())?, in_flight })
    }

    /// Keeps the tunnel up until `stop`. It reconnects without end; only a refusal by the daemon ends it early.
    ///
    /// At the end it closes WebSockets and event streams, and lets other requests finish. If its future is dropped, running
    /// requests are reset.
    pub async fn run(&self, stop: CancellationToken, on_event: impl FnMut(Event)) -> Result<(), Refused> {
        let serve = |transport| drop(tokio::spawn(self.proxy.clone().serve(transport)));
        let mut keeper = Keeper::new(&self.session, serve, on_event);
        let result = tokio::select! {
            refused = keeper.keep_up() => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        keeper.finish(&self.in_flight, DRAIN).await;
        result
    }
}
