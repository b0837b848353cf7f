//! The task of a session, from its client's Connect to its end.
//!
//! A session is granted once the names that it begins with are reserved. Its tunnels are online before its client reads the
//! grant. Then the client binds and unbinds tunnels as it likes.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::SystemTime;

use cok_certs::one_line;
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage, ResetCode, TunnelFrame, Unbind,
    UnbindReason, message,
};
use cok_transport::{Corked, Handshake};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::Tunnels;
use super::claims::{Granted, Request, claim, forbidden, present_key};
use super::directory::Registration;
use super::origin::{Origin, rounded};
use super::refusals::{keys_unread, moved, too_many_sessions, unauthorized};
use super::session::{Client, Owner, Session};
use super::takeover::TakeOver;
use crate::admission::{KeyRecord, SessionPermit};
use crate::drain::Phase;
use crate::names::{Subdomain, random_id};
use crate::observe::{Greeting, Limit, Rate, Return};

/// The longest instance id that is kept; ours have 32 characters.
const MAX_INSTANCE: usize = 64;
/// Ended tunnels of a session whose exchanges may still finish. Beyond that, those of the oldest one end at once.
const MAX_ENDING: usize = 1000;

/// Grants or refuses a session, and serves it until it ends.
pub(super) async fn serve(tunnels: &Arc<Tunnels>, handshake: Box<dyn Handshake>, origin: Origin) {
    // In a box, so that what only the beginning needs does not stay in memory for as long as the session.
    let Some((session, registration)) = Box::pin(begin(tunnels, handshake, origin)).await else { return };
    if tunnels.drain.phase() >= Phase::GoingAway {
        session.transport.drain(DrainReason::Restart, tunnels.drain.timeout());
    }
    Serving { tunnels, session: &session, claims: JoinSet::new(), ending: VecDeque::new() }.run().await;
    let reason = session.transport.closed().await;
    tunnels.metrics.sessions.ended(origin.transport, &reason);
    let reason = one_line(&reason.to_string());
    for (name, live) in session.live() {
        log_offline(&session.client, &name, live.began, &reason);
    }
    drop(registration);
}

// ---- the beginning ----

async fn begin(
    tunnels: &Arc<Tunnels>,
    handshake: Box<dyn Handshake>,
    origin: Origin,
) -> Option<(Arc<Session>, Registration)> {
    let connect = handshake.connect().clone();
    let wanted = connect.subdomain.as_deref();
    let client = match introduce(tunnels, &connect, origin) {
        Ok(client) => Arc::new(client),
        Err(refusal) => {
            refuse_in_time(tunnels, handshake, origin, refusal);
            return None;
        }
    };
    let mut take_over = connect.replaces.as_deref().and_then(|old| tunnels.directory.take_over(old, &client));
    let permit = match session_permit(tunnels, &client, take_over.as_ref()) {
        Ok(permit) => permit,
        Err(refusal) => {
            tunnels.turned_away(origin, &refusal, wanted, Some(&client.key));
            handshake.refuse(&refusal);
            return None;
        }
    };
    let first = match first_tunnel(tunnels, &client, &connect, take_over.as_mut()).await {
        Ok(first) => first,
        Err(refusal) => {
            tunnels.turned_away(origin, &refusal, wanted, Some(&client.key));
            handshake.refuse(&refusal);
            return None;
        }
    };
    let (old, moving) = take_over.as_mut().map_or((None, Vec::new()), |all| (Some(all.old.clone()), all.take()));
    let moved: Vec<_> = moving.iter().map(|(id, reservation)| (*id, tunnels.bound(&reservation.name))).collect();
    let first_name = first.as_ref().map(|granted| &granted.reservation.name);
    let first_name = first_name.or(moving.iter().find(|(id, _)| *id == 0).map(|(_, reservation)| &reservation.name));
    let ack = tunnels.grant(&client, &connect, first_name.filter(|_| connect.tunnel), moved.len());
    // A visitor may come as soon as the client has its answer. So the answer goes out once the tunnels are online.
    let corked = handshake.accept(&ack, &moved);
    let transport = corked.session();
    let open = tunnels.metrics.sessions.open(origin.transport);
    let session = Session::new(client.clone(), transport.clone(), permit, open);
    tunnels.count_granted(&session, &connect, take_over.is_some());
    let registration = tunnels.directory.add_session(session.clone());
    if let Some(granted) = first
        && let Err(refusal) = tunnels.activate(&session, 0, granted)
    {
        transport.close(refusal);
        return None;
    }
    for (id, reservation) in moving {
        let name = reservation.name.clone();
        let key = client.grant.record();
        let activated = match key.and_then(|key| tunnels.admission.tunnels.acquire(&key, &name)) {
            Some(permit) => tunnels.activate(&session, id, Granted { reservation, permit }).is_ok(),
            None => false,
        };
        if !activated {
            transport.unbind(id, &Unbind::new(UnbindReason::Replaced, tunnels.drain.timeout()));
        }
    }
    if let Some(take_over) = take_over {
        take_over.done();
    }
    if let Some(old) = old {
        old.transport.drain(DrainReason::Handover, tunnels.drain.timeout());
    }
    Some((session, registration))
}

/// Refuses a client that has not introduced itself properly. The answer to a wrong key waits, and holds no session's place
/// meanwhile.
fn refuse_in_time(tunnels: &Tunnels, handshake: Box<dyn Handshake>, origin: Origin, refusal: ErrorMessage) {
    let waits = refusal.code == ErrorCode::Unauthorized;
    tunnels.metrics.sessions.greeted(origin.transport, Greeting::Refused);
    tunnels.metrics.sessions.refused(&refusal.code);
    let answer = move |handshake: Box<dyn Handshake>| {
        origin.refused(&refusal, handshake.connect().subdomain.clone().as_deref(), None);
        handshake.refuse(&refusal);
    };
    if !waits {
        return answer(handshake);
    }
    tunnels.metrics.refusals.over(Rate::Keys);
    let Some(turn) = tunnels.admission.wrong_keys.refusal(origin.peer) else {
        return debug!(peer = %origin.peer, "too many wrong keys wait for their refusals");
    };
    let drain = tunnels.drain.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = sleep(turn.wait) => {}
            () = drain.reached(Phase::GoingAway) => {}
        }
        answer(handshake);
    });
}

/// Who asks, if its key is valid.
fn introduce(tunnels: &Tunnels, connect: &Connect, origin: Origin) -> Result<Client, ErrorMessage> {
    let refuse = |code, message: String| Err(ErrorMessage { code, message, retryable: false });
    let keys = &tunnels.admission.keys;
    let grant = keys.authenticate(&connect.key, SystemTime::now());
    let Some((grant, key)) = grant.and_then(|grant| grant.record().map(|key| (grant, key))) else {
        return Err(if keys.is_complete() { unauthorized() } else { keys_unread() });
    };
    if connect.instance.is_empty() || connect.instance.len() > MAX_INSTANCE {
        return refuse(ErrorCode::Protocol, format!("the instance id must have 1 to {MAX_INSTANCE} bytes"));
    }
    let Ok(session) = random_id() else {
        return refuse(ErrorCode::Internal, "the server cannot make a session id".to_owned());
    };
    Ok(Client {
        session,
        owner: Owner { key: key.id.clone(), instance: connect.instance.clone() },
        key,
        grant,
        origin,
        version: one_line(&connect.version),
    })
}

/// A permit for the session. The one that it replaces counts as the same.
fn session_permit(
    tunnels: &Tunnels,
    client: &Client,
    take_over: Option<&TakeOver>,
) -> Result<SessionPermit, ErrorMessage> {
    let key = present_key(client)?;
    let successor = take_over.and_then(|take_over| take_over.old.permit.succeed());
    successor.or_else(|| tunnels.admission.sessions.acquire(&key)).ok_or_else(|| {
        tunnels.metrics.refusals.beyond(Limit::KeySessions);
        too_many_sessions(&key)
    })
}

/// The tunnel that Connect asks for; `None` if it asks for none, or the wanted one moves here anyway.
async fn first_tunnel(
    tunnels: &Tunnels,
    client: &Arc<Client>,
    connect: &Connect,
    mut take_over: Option<&mut TakeOver>,
) -> Result<Option<Granted>, ErrorMessage> {
    if !connect.tunnel {
        return Ok(None);
    }
    let wanted = connect.subdomain.as_deref();
    if let Some(take_over) = take_over.as_mut() {
        match take_over.name_of(0) {
            Some(name) if wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name.as_str())) => return Ok(None),
            // It asks for another name, so this one stays behind.
            Some(_) => take_over.leave_behind(0),
            None => {}
        }
    }
    if let (Some(take_over), Some(name)) = (take_over, wanted.and_then(|wanted| Subdomain::parse(wanted).ok())) {
        take_over.leave_out(&name);
    }
    claim(tunnels, Request { client, tunnel: 0, wanted, take_over: true }).await.map(Some)
}

impl Tunnels {
    fn grant(&self, client: &Client, connect: &Connect, first: Option<&Subdomain>, moved: usize) -> ConnectAck {
        let config = self.config();
        ConnectAck {
            session: client.session.clone(),
            subdomain: first.map(Subdomain::to_string),
            url: first.map(|name| self.address.url(name)),
            moved: u32::try_from(moved).unwrap_or(u32::MAX),
            initial_window: config.initial_window,
            max_exchanges: config.max_exchanges,
            features: message::common_features(&connect.features),
        }
    }

    /// Counts a session that was granted.
    fn count_granted(&self, session: &Session, connect: &Connect, takes_over: bool) {
        let (metrics, transport) = (&self.metrics.sessions, session.client.origin.transport);
        metrics.greeted(transport, Greeting::Accepted);
        if let Some(reason) = &connect.fallback {
            metrics.fell_back(reason);
        }
        if takes_over && session.is_first_return() {
            metrics.returned(transport, Return::Moved);
        }
    }

    fn bound(&self, name: &Subdomain) -> Bound {
        Bound { subdomain: name.to_string(), url: self.address.url(name) }
    }

    /// Counts and logs a client that gets no session.
    fn turned_away(&self, origin: Origin, refusal: &ErrorMessage, wanted: Option<&str>, key: Option<&KeyRecord>) {
        self.metrics.sessions.greeted(origin.transport, Greeting::Refused);
        self.refused(origin, refusal, wanted, key);
    }

    /// Counts and logs the refusal of a session or of a tunnel.
    pub(super) fn refused(
        &self,
        origin: Origin,
        refusal: &ErrorMessage,
        wanted: Option<&str>,
        key: Option<&KeyRecord>,
    ) {
        self.metrics.sessions.refused(&refusal.code);
        origin.refused(refusal, wanted, key);
    }

    /// Has a session serve a name that is reserved for it.
    fn activate(&self, session: &Arc<Session>, tunnel: u32, granted: Granted) -> Result<(), ErrorMessage> {
        let Client { key, origin, version, session: id, .. } = &*session.client;
        let (name, key, peer) = (granted.reservation.name.clone(), &key.name, origin.peer);
        let online = self.metrics.clone().tunnel_online(&name);
        let returns = self.find(&name).is_some_and(|tunnel| tunnel.was_anothers_of(&session.client));
        let rules = granted.reservation.access.as_ref().map_or(String::new(), |access| format!("; rules: {access}"));
        self.directory.activate(granted, session, tunnel, online, self.drain.timeout()).inspect_err(|refusal| {
            self.refused(*origin, refusal, Some(name.as_str()), Some(&session.client.key));
        })?;
        if returns && session.is_first_return() {
            self.metrics.sessions.returned(origin.transport, Return::Reclaimed);
        }
        info!(
            %peer, %name, %key, session = %id, version, transport = origin.transport,
            "tunnel {name} online: key {key}, from {origin}{rules}"
        );
        Ok(())
    }
}

// ---- the session ----

/// A session that is served.
struct Serving<'a> {
    tunnels: &'a Arc<Tunnels>,
    session: &'a Arc<Session>,
    /// Binds that wait for their names.
    claims: JoinSet<(u32, Option<String>, Result<Granted, ErrorMessage>)>,
    /// Tunnels that have ended, and when their exchanges must have.
    ending: VecDeque<(Instant, u32)>,
}

impl Serving<'_> {
    async fn run(mut self) {
        let transport = self.session.transport.clone();
        let mut grant = self.session.client.grant.clone();
        let mut silence = transport.silence();
        // The key may have changed since Connect.
        if !self.tunnels.enforce(self.session) {
            return;
        }
        loop {
            let next_end = self.ending.iter().map(|(at, _)| *at).min();
            tokio::select! {
                frame = transport.tunnel_frame() => match frame {
                    Some((id, TunnelFrame::Bind(bind))) => self.bind(id, bind),
                    Some((id, TunnelFrame::Unbind(unbind))) => self.unbound(id, &unbind),
                    // The session lets no other come to a daemon.
                    Some(_) => {}
                    None => return,
                },
                Some(claimed) = self.claims.join_next() => {
                    if let Ok((id, wanted, result)) = claimed {
                        self.claimed(id, wanted.as_deref(), result);
                    }
                }
                () = grant.changed() => if !self.tunnels.enforce(self.session) {
                    return;
                },
                silent = changed(&mut silence) => self.set_silent(silent),
                () = until(next_end) => self.end_exchanges(Instant::now()),
            }
        }
    }

    /// The client asks for a tunnel.
    fn bind(&mut self, id: u32, bind: Bind) {
        let rules = match bind.checked() {
            Ok(rules) => rules,
            Err(message) => {
                let error = ErrorMessage { code: ErrorCode::Unsupported, message, retryable: false };
                return self.claimed(id, bind.subdomain.as_deref(), Err(error));
            }
        };
        let (tunnels, client) = (self.tunnels.clone(), self.session.client.clone());
        self.claims.spawn(async move {
            let wanted = bind.subdomain.as_deref();
            let request = Request { client: &client, tunnel: id, wanted, take_over: bind.take_over };
            let result = claim(&tunnels, request).await.and_then(|granted| granted.with_rules(&rules));
            (id, bind.subdomain, result)
        });
    }

    /// A Bind has its answer.
    fn claimed(&self, id: u32, wanted: Option<&str>, result: Result<Granted, ErrorMessage>) {
        let transport = &self.session.transport;
        // The names that the session had by then have moved; this one has not.
        let result = if self.session.moves() { result.and(Err(moved())) } else { result };
        let result = result.and_then(|granted| self.still_allowed(granted));
        match result {
            Ok(granted) => {
                let bound = self.tunnels.bound(&granted.reservation.name);
                // The answer goes out once the tunnel is online.
                let _corked = Corked::new(transport.clone());
                if transport.answer_bind(id, Ok(bound))
                    && let Err(error) = self.tunnels.activate(self.session, id, granted)
                {
                    let moved = error.code == ErrorCode::Moved;
                    let reason = if moved { UnbindReason::Moved } else { UnbindReason::Replaced };
                    transport.unbind(id, &Unbind::new(reason, self.tunnels.drain.timeout()));
                }
            }
            Err(error) => {
                let Client { origin, key, .. } = &*self.session.client;
                self.tunnels.refused(*origin, &error, wanted, Some(key));
                transport.answer_bind(id, Err(error));
            }
        }
    }

    /// A key may have changed while the client waited for its name.
    fn still_allowed(&self, granted: Granted) -> Result<Granted, ErrorMessage> {
        let name = &granted.reservation.name;
        if present_key(&self.session.client)?.may_use(name) { Ok(granted) } else { Err(forbidden(name)) }
    }

    /// The client has ended a tunnel.
    fn unbound(&mut self, id: u32, unbind: &Unbind) {
        let closed = unbind.reason == UnbindReason::Closed;
        if let Some((name, live)) = self.tunnels.directory.leave(self.session, id, closed) {
            log_offline(&self.session.client, &name, live.began, "its client has closed it");
        }
        let within = unbind.deadline().min(self.tunnels.drain.timeout());
        self.ending.push_back((Instant::now() + within, id));
        if self.ending.len() > MAX_ENDING
            && let Some((_, oldest)) = self.ending.pop_front()
        {
            self.session.transport.reset_tunnel(oldest, ResetCode::Cancelled);
        }
        self.end_exchanges(Instant::now());
    }

    /// Abandons the exchanges of tunnels whose deadline has passed.
    fn end_exchanges(&mut self, now: Instant) {
        self.ending.retain(|(at, id)| {
            let goes_on = *at > now;
            if !goes_on {
                self.session.transport.reset_tunnel(*id, ResetCode::Cancelled);
            }
            goes_on
        });
    }

    /// Has the visitors of all tunnels wait while the client gives no sign of life.
    fn set_silent(&self, silent: bool) {
        self.tunnels.directory.set_silent(self.session, silent);
        for (_, name) in self.session.tunnels() {
            if silent {
                info!(%name, "tunnel {name} silent: its client gives no sign of life; visitors wait");
            } else {
                info!(%name, "tunnel {name} heard again");
            }
        }
    }
}

pub(super) fn log_offline(client: &Client, name: &Subdomain, began: Instant, reason: &str) {
    let (peer, key, id, lasted) = (client.origin.peer, &client.key.name, &client.session, rounded(began.elapsed()));
    info!(%peer, %name, %key, session = %id, reason, "tunnel {name} offline after {lasted}: {reason}");
}

/// Waits until the client falls silent or is heard again.
async fn changed(silence: &mut Option<watch::Receiver<bool>>) -> bool {
    let Some(silence) = silence else { return pending().await };
    if silence.changed().await.is_err() {
        return pending().await;
    }
    *silence.borrow_and_update()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
