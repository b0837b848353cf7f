//! One session with a daemon, and the tunnels that it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cok_proto::message::DEFAULT_WINDOW;
use cok_transport::WindowBudget;
use rustls::ClientConfig;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::dial;
use crate::event::{Event, Refused, TunnelHandle, TunnelStatus};
use crate::flight::InFlight;
use crate::options::{ClientOptions, TunnelOptions};
use crate::proxy::{self, Proxy};
use crate::routes::{Routes, Slot};
use crate::session::{self, Command, Keeper, Patience, Tunnels, Wanted};

/// How long requests under way may take once the client stops, or their tunnel is closed.
const DRAIN: Duration = Duration::from_secs(10);
/// The bytes by which the windows of a session's exchanges may grow in all.
const WINDOW_BUDGET: usize = 64 * 1024 * 1024;
/// The most exchanges at once that the daemon may open.
const MAX_EXCHANGES: u32 = 1000;

/// Opens and closes the tunnels of a client. Clones are of the same client.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    handles: Arc<AtomicU64>,
    tls: Arc<ClientConfig>,
}

/// Keeps the session of a client up.
#[derive(Debug)]
pub struct Driver {
    session: session::Config,
    routes: Arc<Routes>,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// A tunnel of a client.
#[derive(Debug)]
pub struct OpenTunnel {
    client: Client,
    handle: TunnelHandle,
    slot: Arc<Slot>,
}

impl Client {
    /// A client that is not connected yet, and what keeps it connected.
    pub fn new(options: ClientOptions) -> (Self, Driver) {
        let (sender, commands) = mpsc::unbounded_channel();
        let tls = options.tls.clone();
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
            patience: Patience { name_timeout: options.name_timeout, keep_trying: options.keep_trying },
        };
        (Self { commands: sender, handles: Arc::default(), tls }, Driver { session, routes: Arc::default(), commands })
    }

    /// Opens a tunnel as soon as there is a session. Fails if its service cannot be used as it is named.
    pub fn open(&self, options: TunnelOptions) -> anyhow::Result<OpenTunnel> {
        let in_flight = Arc::<InFlight>::default();
        let (label, subdomain) = (options.label.clone(), options.subdomain.clone());
        let slot = Slot::new(self.proxy(options, in_flight.clone())?, in_flight);
        let handle = TunnelHandle(self.handles.fetch_add(1, Ordering::Relaxed));
        self.send(Command::Open(handle, Wanted { label, subdomain, slot: slot.clone() }));
        Ok(OpenTunnel { client: self.clone(), handle, slot })
    }

    /// Where all tunnels stand. Empty once the driver has ended.
    pub async fn status(&self) -> Vec<TunnelStatus> {
        let (sender, answer) = oneshot::channel();
        self.send(Command::Status(sender));
        answer.await.unwrap_or_default()
    }

    fn proxy(&self, options: TunnelOptions, in_flight: Arc<InFlight>) -> anyhow::Result<Arc<Proxy>> {
        let service = proxy::Config {
            target: options.target,
            tls: self.tls.clone(),
            host_header: options.host_header,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        };
        Proxy::new(service, in_flight)
    }

    /// Without effect once the driver has ended.
    fn send(&self, command: Command) {
        let _ended = self.commands.send(command);
    }
}

impl OpenTunnel {
    /// Names the tunnel in events.
    pub fn handle(&self) -> TunnelHandle {
        self.handle
    }

    /// Sends later requests to another service. The daemon does not notice. The name in `options` has no effect.
    pub fn set_service(&self, options: TunnelOptions) -> anyhow::Result<()> {
        self.slot.set(self.client.proxy(options, self.slot.in_flight.clone())?);
        Ok(())
    }

    /// Closes the tunnel. Requests under way may finish.
    pub fn close(self) {
        self.client.send(Command::Close(self.handle, DRAIN));
    }
}

impl Driver {
    /// Keeps the session up until `stop`. It reconnects without end; only refusals by the daemon end it early.
    ///
    /// At the end it closes WebSockets and event streams, and lets other requests finish. If its future is dropped, running
    /// requests are reset.
    pub async fn run(self, stop: CancellationToken, on_event: impl FnMut(Event)) -> Result<(), Refused> {
        let Self { session, routes, commands } = self;
        let tunnels = Tunnels::new(routes.clone(), session.patience);
        let serve = |transport| drop(tokio::spawn(routes.clone().serve(transport)));
        let mut keeper = Keeper::new(&session, tunnels, commands, serve, on_event);
        let result = tokio::select! {
            refused = keeper.keep_up() => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        keeper.finish(DRAIN).await;
        result
    }
}
