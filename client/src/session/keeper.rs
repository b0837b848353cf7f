//! The loop that keeps a session up: on the better transport, and a new one whenever it ends.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::{Connect, ErrorCode, ErrorMessage, SessionError};
use cok_transport::{CloseReason, HandshakeError, Transport};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::Config;
use super::lost_connects::LostConnects;
use super::open::{Ended, Session, Sessions};
use super::taken::Taken;
use super::transport_policy::{TransportPolicy, Way};
use crate::dial::{self, Opened, Unreachable};
use crate::event::{Event, Refused};
use crate::flight::{InFlight, UnderWay};
use crate::text::quoted;

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
    /// The current session, and earlier ones that still drain.
    sessions: Sessions,
    /// The name to ask for: the wanted one, or the one that the daemon has given.
    subdomain: Option<String>,
    policy: TransportPolicy,
    lost_connects: LostConnects,
    taken: Taken,
    was_online: bool,
}

/// What follows a failure.
enum Next {
    /// Another try, later each time.
    Retry,
    /// Another try after this time: another client has the name.
    Ask(Duration),
    /// The end.
    GiveUp(Refused),
}

/// Why there is no session.
enum Failure {
    Unreachable(Unreachable),
    Closed(CloseReason),
    Other(String),
}

impl<'a, S: FnMut(Arc<dyn Transport>), F: FnMut(Event)> Keeper<'a, S, F> {
    /// `serve` gets each new session, and must not wait.
    pub(crate) fn new(config: &'a Config, serve: S, on_event: F) -> Self {
        Self {
            config,
            serve,
            on_event,
            sessions: Sessions::default(),
            subdomain: config.subdomain.clone(),
            policy: TransportPolicy::new(config.dial.transport, config.probe_interval),
            lost_connects: LostConnects::default(),
            taken: Taken::new(config.name_timeout),
            was_online: false,
        }
    }

    /// Keeps a session up until the daemon refuses it.
    pub(crate) async fn keep_up(&mut self) -> Refused {
        (self.on_event)(Event::Connecting { server: self.config.dial.server.to_string() });
        let mut backoff = BACKOFF_FIRST;
        // The daemon may have a session replaced at once, but not one right after the other.
        let mut hurried = false;
        // The latest session, as long as it drains.
        let mut before: Option<Session> = None;
        loop {
            before.take_if(|session| session.is_closed());
            let replaces = before.as_ref().map(|session| session.id.clone());
            // Boxed, so that the memory for connecting is free while the session lives.
            let failure = match Box::pin(self.begin(replaces)).await {
                Ok(session) => {
                    let began = Instant::now();
                    let (last, ended) = self.stay(session).await;
                    let enough = match ended {
                        Ended::Replace | Ended::Closed(CloseReason::Forgotten) => HURRY_AFTER,
                        _ => GOOD_SESSION,
                    };
                    if began.elapsed() >= enough {
                        (backoff, hurried) = (BACKOFF_FIRST, false);
                    }
                    before = Some(last);
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
                        Ended::Closed(reason) => Failure::Closed(reason),
                    }
                }
                Err(failure) => failure,
            };
            match self.after(&failure) {
                Next::GiveUp(refused) => return refused,
                Next::Ask(wait) => {
                    sleep(wait).await;
                    continue;
                }
                Next::Retry => {}
            }
            let retry_in = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            let (reason, was_online) = (failure.to_string(), self.was_online);
            (self.on_event)(Event::Disconnected { reason, retry_in, was_online });
            sleep(retry_in).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// Takes no new requests, closes WebSockets and event streams, and lets requests finish until `deadline`.
    pub(crate) async fn finish(&mut self, in_flight: &InFlight, deadline: Duration) {
        let UnderWay { requests, streams } = in_flight.under_way();
        if requests + streams > 0 {
            (self.on_event)(Event::Stopping { requests, streams, within: deadline });
        }
        self.sessions.announce(deadline);
        in_flight.stop();
        self.sessions.ended().await;
    }

    /// Connects to the daemon and asks for a session.
    async fn begin(&mut self, replaces: Option<String>) -> Result<Session, Failure> {
        let config = &self.config.dial;
        let opened = match self.policy.way(Instant::now()) {
            Way::Race => dial::race(config).await,
            Way::Quic(reason) => dial::quic(config).await.map(|path| path.because(reason)),
            Way::Ws(reason) => dial::ws(config).await.map(|path| path.because(reason)),
        };
        let opened = opened.map_err(Failure::Unreachable)?;
        self.ask(opened, replaces).await
    }

    /// Stays with a session, and with those on the other transport that it moves to, until a new one is needed.
    async fn stay(&mut self, mut session: Session) -> (Session, Ended) {
        loop {
            let opened = tokio::select! {
                ended = session.ended() => return (session, ended),
                opened = self.better(&session) => opened,
            };
            // The daemon drains the old session as soon as it grants the new one, so the old one's end does not count here.
            match Box::pin(self.ask(opened, Some(session.id.clone()))).await {
                Ok(next) => session = next,
                Err(failure) => {
                    debug!("the tunnel could not move to the other transport: {failure}");
                    self.policy.probe_failed();
                }
            }
        }
    }

    /// Waits until the other transport is the better one, and connects over it.
    async fn better(&mut self, session: &Session) -> Opened {
        let config = &self.config.dial;
        if !self.policy.may_move() {
            return pending().await;
        }
        let Some(health) = &session.health else {
            loop {
                sleep(self.policy.probe_wait()).await;
                match Box::pin(dial::quic(config)).await {
                    Ok(path) => return path.because("moved: QUIC answers again"),
                    Err(error) => debug!("still on WebSocket: {error}"),
                }
                self.policy.probe_failed();
            }
        };
        loop {
            let why = health.turned_bad().await;
            match Box::pin(dial::ws(config)).await {
                Ok(path) => return path.because(format!("moved: QUIC turned bad: {why}")),
                Err(error) => debug!("QUIC has turned bad: {why}; WebSocket fails too: {error}"),
            }
            sleep(ESCAPE_RETRY).await;
        }
    }

    /// Asks for a session, and has it served if the daemon grants it.
    async fn ask(&mut self, opened: Opened, replaces: Option<String>) -> Result<Session, Failure> {
        let config = self.config;
        let ask = Connect {
            key: config.key.clone(),
            tunnel: true,
            subdomain: self.subdomain.clone(),
            instance: config.instance.clone(),
            replaces,
            initial_window: config.limits.initial_window,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
        };
        let Opened { path, reason } = opened;
        let is_quic = path.is_quic();
        let (transport, ack, health) = match path.connect(config.limits.clone(), &ask).await {
            Ok(session) => session,
            Err(error) => {
                if let HandshakeError::Closed(CloseReason::Session(SessionError::Peer(ErrorMessage {
                    code: ErrorCode::NameTaken,
                    ..
                }))) = error
                {
                    self.policy.repeat(is_quic, reason);
                } else if let HandshakeError::TimedOut(_)
                | HandshakeError::Closed(CloseReason::Lost(_) | CloseReason::Forgotten) = error
                {
                    self.lost_connects.note(Instant::now());
                    if is_quic {
                        self.policy.quic_unanswered(error.to_string(), Instant::now());
                    }
                }
                return Err(match error {
                    HandshakeError::Closed(reason) => Failure::Closed(reason),
                    HandshakeError::TimedOut(_) => Failure::Other(error.to_string()),
                });
            }
        };
        self.taken.clear();
        self.was_online = true;
        self.sessions.add(transport.clone());
        (self.serve)(transport.clone());
        // The client asks for the same name when it comes back.
        self.subdomain = ack.subdomain;
        if self.policy.settled(is_quic, Instant::now()) {
            (self.on_event)(Event::Fallback { from: "quic", to: transport.name(), reason: reason.clone() });
        }
        let (name, session) = (transport.name(), ack.session.clone());
        (self.on_event)(Event::Connected { transport: name, url: ack.url.unwrap_or_default(), session, reason });
        Ok(Session { id: ack.session, transport, health })
    }

    /// Decides what follows a failure. Most errors of the daemon say whether to try again.
    fn after(&mut self, failure: &Failure) -> Next {
        let error = match failure {
            Failure::Closed(CloseReason::Session(SessionError::Peer(error))) if !error.retryable => error,
            _ => {
                self.taken.clear();
                return Next::Retry;
            }
        };
        let now = Instant::now();
        if error.code == ErrorCode::Replaced && self.lost_connects.excuse(now) {
            return Next::Retry;
        }
        let refused = Refused(error.clone());
        if self.config.subdomain.is_none() && refused.is_about_the_name() && self.subdomain.take().is_some() {
            // Another client has the name that the daemon had picked. The daemon may pick another one.
            return Next::Retry;
        }
        if error.code != ErrorCode::NameTaken {
            return Next::GiveUp(refused);
        }
        let first = !self.taken.is_waiting();
        let Some(wait) = self.taken.refused(now) else { return Next::GiveUp(refused) };
        if first {
            let (name, within) = (self.subdomain.clone(), self.config.name_timeout);
            (self.on_event)(Event::NameTaken { name, reason: quoted(&error.message), within });
        }
        Next::Ask(wait)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => why.fmt(f),
            Self::Closed(reason) => f.write_str(&quoted(&reason.to_string())),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
