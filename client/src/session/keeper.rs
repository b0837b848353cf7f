//! The loop that keeps a session up: on the better transport, and a new one whenever it ends.

use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cok_host::figures::duration;
use cok_proto::{Connect, ErrorCode, FallbackReason, SessionError};
use cok_transport::{CloseReason, HandshakeError, Transport};
use tokio::sync::mpsc;
use tokio::time::{self, Instant, interval, sleep_until};
use tracing::debug;

use super::Config;
use super::open::{Ended, Session, Sessions};
use super::sleep::{self, Sleep};
use super::transport_policy::{TransportPolicy, Way};
use super::tunnels::{Command, Current, LONGEST_WAIT, Tunnels, long_wait};
use crate::dial::{self, Opened, Unreachable};
use crate::event::{Event, Refused};
use crate::flight::UnderWay;
use crate::text::quoted;

/// How long a client that stops waits at most until its last packets are out.
const GOODBYE: Duration = Duration::from_millis(100);
/// The first wait after a session was lost; the next ones double.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// After a session that lived this long, the waits begin from the first again.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// A session that lived this long is replaced at once if the daemon asks for that or has restarted. Daemons may restart
/// that often, but one that turns every session away does not get a storm.
const HURRY_AFTER: Duration = Duration::from_secs(1);
/// The wait between two tries to move from a bad QUIC path to a WebSocket. Meanwhile the session may recover, or end.
const ESCAPE_RETRY: Duration = Duration::from_secs(1);

/// The state of the loop.
pub(crate) struct Keeper<'a, S, F> {
    config: &'a Config,
    /// Starts to serve the exchanges of a new session.
    serve: S,
    on_event: F,
    tunnels: Tunnels,
    /// What the user wants.
    commands: mpsc::UnboundedReceiver<Command>,
    /// The current session, and earlier ones that still drain.
    sessions: Sessions,
    policy: TransportPolicy,
    /// Refusals of sessions since the last one that was granted.
    refusals: u32,
    was_online: bool,
    sleep: Sleep,
}

/// What follows a failure.
enum Next {
    /// Another try, later each time.
    Retry,
    /// Another try after this time, since the daemon has refused the session.
    Wait(Duration),
    /// The end.
    GiveUp(Refused),
}

/// Why there is no session.
enum Failure {
    Unreachable(Unreachable),
    Closed(CloseReason),
    /// The machine has slept for so long.
    Asleep(Duration),
    Other(String),
}

impl<'a, S: FnMut(Arc<dyn Transport>), F: FnMut(Event)> Keeper<'a, S, F> {
    /// `serve` gets each new session, and must not wait.
    pub(crate) fn new(
        config: &'a Config,
        tunnels: Tunnels,
        commands: mpsc::UnboundedReceiver<Command>,
        serve: S,
        on_event: F,
    ) -> Self {
        Self {
            config,
            serve,
            on_event,
            tunnels,
            commands,
            sessions: Sessions::default(),
            policy: config.policy(),
            refusals: 0,
            was_online: false,
            sleep: Sleep::new(),
        }
    }

    /// Keeps a session up until the daemon refuses it, or all its tunnels.
    pub(crate) async fn keep_up(&mut self) -> Refused {
        (self.on_event)(Event::Connecting { server: self.config.dial.server.to_string() });
        let mut backoff = BACKOFF_FIRST;
        // The daemon may have a session replaced at once, but not one right after the other.
        let mut hurried = false;
        // The latest session, whose tunnels the next one may take over.
        let mut before: Option<Session> = None;
        loop {
            if before.is_none() {
                self.tunnels.lost();
            }
            let replaces = before.as_ref().map(|session| session.current.id.clone());
            // Boxed, so that the memory for connecting is free while the session lives.
            let failure = match Box::pin(self.begin(replaces)).await {
                Ok(session) => {
                    let began = Instant::now();
                    self.sleep.begin();
                    let (last, ended) = match self.stay(session).await {
                        Ok(ended) => ended,
                        Err(refused) => return refused,
                    };
                    let enough = match ended {
                        Ended::Replace | Ended::Closed(CloseReason::Forgotten) => HURRY_AFTER,
                        _ => GOOD_SESSION,
                    };
                    if began.elapsed() >= enough {
                        (backoff, hurried) = (BACKOFF_FIRST, false);
                    }
                    before = Some(last).filter(|_| ended.leaves_tunnels());
                    if matches!(ended, Ended::Replace) {
                        self.config.dial.quic.renew();
                    }
                    match ended {
                        Ended::Replace if !hurried => {
                            hurried = true;
                            continue;
                        }
                        Ended::Replace => Failure::Closed(CloseReason::Drained),
                        Ended::Leaving => Failure::Other("the server is shutting down".to_owned()),
                        // What the daemon says of its own accord has nothing to do with a sleep.
                        Ended::Closed(reason @ CloseReason::Session(SessionError::Peer(_))) => Failure::Closed(reason),
                        Ended::Closed(reason) => self.sleep.lately().map_or(Failure::Closed(reason), Failure::Asleep),
                    }
                }
                Err(failure) => failure,
            };
            match self.after(&failure) {
                Next::GiveUp(refused) => return refused,
                Next::Wait(wait) => {
                    self.pause(wait).await;
                    continue;
                }
                Next::Retry => {}
            }
            let retry_in = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            let (reason, was_online) = (failure.to_string(), self.was_online);
            (self.on_event)(Event::Disconnected { reason, retry_in, was_online });
            self.pause(retry_in).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// Takes no new requests, closes WebSockets and event streams, and lets requests finish until `deadline`.
    pub(crate) async fn finish(&mut self, deadline: Duration) {
        let UnderWay { requests, streams } = self.tunnels.under_way();
        if requests + streams > 0 {
            (self.on_event)(Event::Stopping { requests, streams, within: deadline });
        }
        self.sessions.announce(deadline);
        self.tunnels.stop();
        self.sessions.ended().await;
        self.config.dial.quic.say_goodbye(GOODBYE).await;
    }

    /// Waits, and meanwhile does what the user wants.
    async fn pause(&mut self, time: Duration) {
        meanwhile(&mut self.tunnels, &mut self.commands, time::sleep(time)).await;
    }

    /// Connects to the daemon and asks for a session.
    async fn begin(&mut self, replaces: Option<String>) -> Result<Session, Failure> {
        let config = &self.config.dial;
        let way = self.policy.way(Instant::now());
        let opening = async {
            match way {
                Way::Race => dial::race(config).await,
                Way::Quic(reason) => dial::quic(config).await.map(|path| path.because(reason)),
                Way::Ws { reason, fallback } => dial::ws(config).await.map(|path| Opened { path, reason, fallback }),
            }
        };
        let opened = meanwhile(&mut self.tunnels, &mut self.commands, Box::pin(opening)).await;
        self.ask(opened.map_err(Failure::Unreachable)?, replaces).await
    }

    /// Stays with a session, and with those on the other transport that it moves to, until a new one is needed. An error
    /// once the daemon has refused all tunnels.
    async fn stay(&mut self, mut session: Session) -> Result<(Session, Ended), Refused> {
        loop {
            let opened = match self.serve_tunnels(&session).await {
                Left::Ended(ended) => return Ok((session, ended)),
                Left::Refused(refused) => return Err(refused),
                Left::Better(opened) => opened,
            };
            // The daemon drains the old session as soon as it grants the new one, so the old one's end does not count here.
            match Box::pin(self.ask(opened, Some(session.current.id.clone()))).await {
                Ok(next) => session = next,
                Err(failure) => {
                    debug!("the session could not move to the other transport: {failure}");
                    self.policy.probe_failed();
                }
            }
        }
    }

    /// Binds tunnels in a session and takes in what the daemon says about them, until there is a reason to leave it.
    async fn serve_tunnels(&mut self, session: &Session) -> Left {
        let Self { config, tunnels, commands, policy, on_event, sleep, .. } = self;
        let current = &session.current;
        let mut better = pin!(better(&config.dial, policy, session));
        let mut ended = pin!(session.ended());
        let mut looks = interval(sleep::TICK);
        loop {
            let now = Instant::now();
            tunnels.bind_due(current, now);
            tunnels.end_exchanges(current, now);
            if let Some(refused) = tunnels.all_refused() {
                return Left::Refused(refused);
            }
            tokio::select! {
                biased;
                // What the daemon says of a tunnel comes before the end of the session.
                Some((id, frame)) = current.transport.tunnel_frame() => tunnels.receive(id, frame, current, on_event),
                ended = &mut ended => return Left::Ended(ended),
                Some(command) = commands.recv() => tunnels.apply(command, Some(current)),
                () = until(tunnels.next_due()) => {}
                _ = looks.tick() => sleep.tick(),
                opened = &mut better => return Left::Better(opened),
            }
        }
    }

    /// Asks for a session, and has it served if the daemon grants it.
    async fn ask(&mut self, opened: Opened, replaces: Option<String>) -> Result<Session, Failure> {
        let config = self.config;
        let moving = if replaces.is_some() { self.tunnels.moving() } else { Vec::new() };
        let Opened { path, reason, fallback } = opened;
        let ask = Connect {
            key: config.key.clone(),
            tunnel: false,
            subdomain: None,
            instance: config.instance.clone(),
            replaces,
            initial_window: config.limits.initial_window,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
            fallback,
        };
        let is_quic = path.is_quic();
        let answered = path.connect(config.limits.clone(), &ask, &moving).await;
        let (transport, ack, health) = match answered {
            Ok(session) => session,
            Err(error) => {
                if let HandshakeError::TimedOut(_)
                | HandshakeError::Closed(CloseReason::Lost(_) | CloseReason::Forgotten) = error
                    && is_quic
                {
                    self.policy.quic_unanswered(error.to_string(), Instant::now());
                }
                return Err(match error {
                    HandshakeError::Closed(reason) => Failure::Closed(reason),
                    HandshakeError::TimedOut(_) => Failure::Other(error.to_string()),
                });
            }
        };
        (self.refusals, self.was_online) = (0, true);
        self.sessions.add(transport.clone());
        (self.serve)(transport.clone());
        if self.policy.settled(is_quic, Instant::now()) {
            (self.on_event)(Event::Fallback { from: "quic", to: transport.name(), reason: reason.clone() });
        }
        self.tunnels.began(ack.moved);
        Ok(Session { current: Current { transport, id: ack.session, reason }, health })
    }

    /// Decides what follows a failure. Most errors of the daemon say whether to try again.
    fn after(&mut self, failure: &Failure) -> Next {
        let Failure::Closed(CloseReason::Session(SessionError::Peer(error))) = failure else { return Next::Retry };
        if error.retryable {
            return Next::Retry;
        }
        let refused = Refused(error.clone());
        if !self.config.patience.keep_trying {
            return Next::GiveUp(refused);
        }
        // A key that was refused may come back, but hardly soon.
        let is_key = error.code == ErrorCode::Unauthorized;
        let retry_in = if is_key { LONGEST_WAIT } else { long_wait(self.refusals) };
        (self.on_event)(Event::Disconnected { reason: refused.to_string(), retry_in, was_online: self.was_online });
        self.refusals = self.refusals.saturating_add(1);
        Next::Wait(retry_in)
    }
}

/// Why the loop leaves a session.
enum Left {
    /// A new one is needed.
    Ended(Ended),
    /// The other transport is the better one.
    Better(Opened),
    /// The daemon has refused all tunnels.
    Refused(Refused),
}

/// Waits for a future, and meanwhile does what the user wants.
async fn meanwhile<T>(
    tunnels: &mut Tunnels,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    future: impl Future<Output = T>,
) -> T {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            result = &mut future => return result,
            Some(command) = commands.recv() => tunnels.apply(command, None),
        }
    }
}

/// Waits until the other transport is the better one, and connects over it.
async fn better(config: &dial::Config, policy: &mut TransportPolicy, session: &Session) -> Opened {
    if !policy.may_move() {
        return pending().await;
    }
    let Some(health) = &session.health else {
        loop {
            time::sleep(policy.probe_wait()).await;
            match Box::pin(dial::quic(config)).await {
                Ok(path) => return path.because("moved: QUIC answers again"),
                Err(error) => debug!("still on WebSocket: {error}"),
            }
            policy.probe_failed();
        }
    };
    loop {
        let why = health.turned_bad().await;
        match Box::pin(dial::ws(config)).await {
            Ok(path) => {
                let reason = format!("moved: QUIC turned bad: {why}");
                return path.in_place_of_quic(reason, FallbackReason::BadPath);
            }
            Err(error) => debug!("QUIC has turned bad: {why}; WebSocket fails too: {error}"),
        }
        time::sleep(ESCAPE_RETRY).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => why.fmt(f),
            Self::Closed(reason) => f.write_str(&quoted(&reason.to_string())),
            Self::Asleep(time) => {
                write!(f, "this machine was asleep for {}, and its session ended meanwhile", duration(*time))
            }
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
