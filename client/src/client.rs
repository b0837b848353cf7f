//! One session with a daemon, and the tunnels that it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cok_proto::Rules;
use cok_proto::message::DEFAULT_WINDOW;
#[cfg(feature = "trace")]
use cok_trace::Tracer;
use cok_transport::WindowBudget;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::dial;
use crate::event::{Event, Refused, TunnelHandle, TunnelStatus};
use crate::events::{Events, Hub, Observation};
use crate::flight::InFlight;
#[cfg(feature = "inspect")]
use crate::inspect::Inspector;
use crate::options::{ClientOptions, TunnelOptions};
use crate::proxy::{self, Proxy, Watch};
use crate::routes::{Routes, Slot};
use crate::session::{self, Command, Keeper, Patience, Tunnels, Wanted};
use crate::settings::SettingError;
use crate::target::Target;

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
    hub: Arc<Hub>,
    keeps_trying: bool,
    log_queries: bool,
    /// Captures the exchanges of all tunnels, if there is one.
    #[cfg(feature = "inspect")]
    inspector: Option<Arc<Inspector>>,
    /// `None` if the caller runs the driver.
    running: Option<Arc<Running>>,
}

/// The task of a client. Dropping this stops the client.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    ended: watch::Receiver<Option<Result<(), Refused>>>,
}

/// Keeps the session of a client up.
#[derive(Debug)]
pub struct Driver {
    session: session::Config,
    routes: Arc<Routes>,
    commands: mpsc::UnboundedReceiver<Command>,
    hub: Arc<Hub>,
}

/// A tunnel of a client.
#[derive(Debug)]
pub struct OpenTunnel {
    client: Client,
    handle: TunnelHandle,
    slot: Arc<Slot>,
}

impl Client {
    /// The events of the client and of all its tunnels from now on, requests among them.
    pub fn events(&self) -> Events {
        self.hub.listen(None)
    }

    /// Calls `observer` with each event of the client and of all its tunnels from now on, requests among them, until the result
    /// is dropped. No event is lost, as slow readers of [`Client::events`] lose some. The calls come from the tasks where the
    /// events happen, so an observer must return at once. It must not begin or end an observation.
    pub fn observe(&self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Observation {
        self.hub.observe(observer)
    }

    /// The round trip to the daemon, as the session's connection has measured it; `None` without a session or a measure.
    pub fn round_trip(&self) -> Option<Duration> {
        self.hub.session()?.round_trip()
    }

    /// Has the session measure the round trip.
    #[cfg(feature = "program")]
    pub(crate) fn measure_round_trip(&self) {
        if let Some(session) = self.hub.session() {
            session.ping();
        }
    }

    /// Waits until the client has ended. It fails if the daemon has refused it.
    pub async fn ended(&self) -> Result<(), Refused> {
        let Some(running) = &self.running else { return Ok(()) };
        let mut ended = running.ended.clone();
        // Without a result, the runtime has dropped the task.
        ended.wait_for(Option::is_some).await.map_or(Ok(()), |result| result.clone().unwrap_or(Ok(())))
    }

    /// Closes all tunnels and the session. WebSockets and event streams are closed; other requests have ten seconds to
    /// finish. Dropping the client and all its tunnels does the same in the background.
    pub async fn close(self) -> Result<(), Refused> {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
        self.ended().await
    }

    /// A client that is not connected yet, and what keeps it connected.
    pub fn new(options: ClientOptions) -> (Self, Driver) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (hub, keeps_trying, log_queries) = (Hub::new(), options.keep_trying, options.log_queries);
        let session = session::Config {
            dial: options.dial(),
            limits: cok_transport::Config {
                initial_window: DEFAULT_WINDOW,
                max_exchanges: MAX_EXCHANGES,
                budget: WindowBudget::new(WINDOW_BUDGET),
            },
            probe_interval: options.probe_interval,
            key: options.key,
            instance: options.instance,
            patience: Patience {
                name_timeout: options.name_timeout,
                keep_trying: options.keep_trying,
                outlasts_refusals: false,
            },
        };
        let driver = Driver { session, routes: Arc::default(), commands, hub: hub.clone() };
        let client = Self {
            commands: sender,
            handles: Arc::default(),
            hub,
            keeps_trying,
            log_queries,
            #[cfg(feature = "inspect")]
            inspector: None,
            running: None,
        };
        (client, driver)
    }

    /// Has an inspector capture the exchanges of all tunnels that are opened from now on.
    #[cfg(feature = "inspect")]
    pub(crate) fn with_inspector(self, inspector: Inspector) -> Self {
        Self { inspector: Some(Arc::new(inspector)), ..self }
    }

    /// The inspector, if it has one.
    #[cfg(feature = "inspect")]
    pub fn inspector(&self) -> Option<&Inspector> {
        self.inspector.as_deref()
    }

    /// Opens a tunnel as soon as there is a session. Fails if its service cannot be used as it is named.
    pub fn open(&self, options: TunnelOptions) -> Result<OpenTunnel, SettingError> {
        self.open_as(self.new_handle(), options)
    }

    /// A handle for a tunnel that is still to be opened.
    pub(crate) fn new_handle(&self) -> TunnelHandle {
        TunnelHandle(self.handles.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a tunnel under this handle.
    pub(crate) fn open_as(&self, handle: TunnelHandle, options: TunnelOptions) -> Result<OpenTunnel, SettingError> {
        let in_flight = Arc::<InFlight>::default();
        let (label, subdomain) = (options.label.clone(), options.subdomain.clone());
        let rules = Arc::new(options.rules.clone());
        let slot = Slot::new(self.proxy(handle, options, in_flight.clone())?, in_flight);
        #[cfg(feature = "inspect")]
        if let Some(inspector) = &self.inspector {
            inspector.opened(handle, label.clone(), slot.exchanges());
        }
        self.send(Command::Open(handle, Wanted { label, subdomain, rules, slot: slot.clone() }));
        Ok(OpenTunnel { client: self.clone(), handle, slot })
    }

    /// Where all tunnels stand. Empty once the driver has ended.
    pub async fn status(&self) -> Vec<TunnelStatus> {
        let (sender, answer) = oneshot::channel();
        self.send(Command::Status(sender));
        answer.await.unwrap_or_default()
    }

    /// Runs the driver in a task. The client then ends with its last clone and its last tunnel, and not because all its
    /// tunnels are refused.
    pub(crate) fn start(mut self, mut driver: Driver) -> Self {
        driver.session.patience.outlasts_refusals = true;
        let stop = CancellationToken::new();
        let (result, ended) = watch::channel(None);
        let (hub, stopped) = (self.hub.clone(), stop.clone());
        tokio::spawn(async move {
            result.send_replace(Some(driver.run(stopped, |_| {}).await));
            hub.close();
        });
        self.running = Some(Arc::new(Running { stop, ended }));
        self
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Whether refused tunnels ask again, and opening them waits.
    pub(crate) fn keeps_trying(&self) -> bool {
        self.keeps_trying
    }

    fn proxy(
        &self,
        tunnel: TunnelHandle,
        options: TunnelOptions,
        in_flight: Arc<InFlight>,
    ) -> Result<Arc<Proxy>, SettingError> {
        let service = proxy::Config {
            tls: options.target_trust.load(matches!(options.target, Target::Https(_)))?,
            target: options.target,
            fingerprints: options.target_trust.fingerprints().map(<[_]>::to_vec),
            upgrades: options.upgrades,
            host_header: options.host_header,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            log_queries: self.log_queries,
            watch: self.watch(tunnel),
        };
        Proxy::new(service, in_flight).map_err(|error| SettingError::TargetHost(error.0))
    }

    fn watch(&self, tunnel: TunnelHandle) -> Watch {
        let watch = Watch::new(self.hub.clone(), tunnel);
        #[cfg(feature = "inspect")]
        if let Some(inspector) = &self.inspector {
            return watch.tapped(inspector.tap(tunnel));
        }
        watch
    }

    /// Without effect once the driver has ended.
    fn send(&self, command: Command) {
        let _ended = self.commands.send(command);
    }
}

impl ClientOptions {
    /// The ways to the daemon.
    pub(crate) fn dial(&self) -> dial::Config {
        dial::Config {
            server: self.server.clone(),
            connect_to: self.connect_to,
            proxy: self.proxy.clone(),
            tls: self.tls.clone(),
            transport: self.transport,
            quic: self.quic.clone(),
            congestion: self.congestion,
        }
    }
}

impl OpenTunnel {
    /// Names the tunnel in events.
    pub fn handle(&self) -> TunnelHandle {
        self.handle
    }

    /// Sends later requests to another service. The daemon does not notice. The name in `options` has no effect.
    pub fn set_service(&self, options: TunnelOptions) -> Result<(), SettingError> {
        self.slot.set(self.client.proxy(self.handle, options, self.slot.in_flight.clone())?);
        Ok(())
    }

    /// Has the daemon let other visitors in. Until it has answered, the rules before hold.
    pub fn set_rules(&self, rules: Rules) {
        self.client.send(Command::SetRules(self.handle, Arc::new(rules)));
    }

    /// Closes the tunnel. Requests under way may finish.
    pub fn close(self) {
        self.request_close();
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn request_close(&self) {
        self.client.send(Command::Close(self.handle, DRAIN));
    }

    /// Closes the tunnel and waits until its requests under way have finished.
    pub(crate) async fn finish(&self) {
        self.request_close();
        // The driver answers in the order of the commands, so the tunnel takes no new requests afterwards.
        self.client.status().await;
        let _late = timeout(DRAIN, self.slot.in_flight.idle()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Driver {
    /// Has the exchanges of all tunnels recorded.
    #[cfg(feature = "trace")]
    #[must_use]
    pub fn traced(self, tracer: &Tracer) -> Self {
        self.routes.trace(tracer.clone());
        self
    }

    /// Keeps the session up until `stop`. It reconnects without end; only refusals by the daemon end it early.
    ///
    /// At the end it closes WebSockets and event streams, and lets other requests finish. If its future is dropped, running
    /// requests are reset.
    pub async fn run(self, stop: CancellationToken, mut on_event: impl FnMut(Event)) -> Result<(), Refused> {
        let Self { session, routes, commands, hub } = self;
        let on_event = |event| {
            hub.publish(&event);
            on_event(event);
        };
        let tunnels = Tunnels::new(routes.clone(), session.patience);
        let serve = |transport| {
            hub.set_session(&transport);
            drop(tokio::spawn(routes.clone().serve(transport)));
        };
        let mut keeper = Keeper::new(&session, tunnels, commands, serve, on_event);
        let result = tokio::select! {
            refused = keeper.keep_up() => Err(refused),
            () = stop.cancelled() => Ok(()),
        };
        keeper.finish(DRAIN).await;
        result
    }
}
