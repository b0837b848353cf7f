//! Where tunnels connect: from a client's WebSocket upgrade, or its QUIC connection, to a session that serves a name.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cok_certs::one_line;
use cok_proto::{Connect, ConnectAck, ErrorCode, ErrorMessage};
use cok_transport::{Config, Handshake, HandshakeError, Transport, quic, ws};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::{debug, info};

use crate::daemon::Daemon;
use crate::edge::RequestBody;
use crate::edge::Stream;
use crate::edge::body::Body;
use crate::keys::KeyRecord;
use crate::names::Subdomain;
use crate::places::Place;
use crate::quoted::quoted;
use crate::registry::{Claim, Owner, Registration};

/// The longest instance id that is kept; ours have 32 characters.
const MAX_INSTANCE: usize = 64;
/// How many names are tried for a client that wants none in particular.
const SUGGESTION_ROUNDS: usize = 4;

/// Answers a request at [`ws::PATH`]: an upgrade (RFC 6455, section 4.2), after which the session begins.
pub fn upgrade(daemon: &Arc<Daemon>, mut request: Request<RequestBody>, peer: IpAddr) -> Response<Body> {
    let headers = request.headers();
    let is = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let upgrades = *request.method() == Method::GET && is(UPGRADE, "websocket") && is(CONNECTION, "upgrade");
    if !upgrades || !is(SEC_WEBSOCKET_PROTOCOL, ws::SUBPROTOCOL) {
        return plain(StatusCode::UPGRADE_REQUIRED, "tunnels connect here, by WebSocket with the subprotocol cok.v1\n");
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return plain(StatusCode::BAD_REQUEST, "sec-websocket-key is missing\n");
    };
    let accept = ws::accept_key(key.as_bytes());
    let origin = Origin { peer, transport: "ws" };
    let Ok(place) = daemon.sessions.clone().try_acquire_owned() else {
        origin.refused(&full(), None, None);
        return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{FULL}\n"));
    };
    if daemon.shutdown.started() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the server is restarting\n");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let daemon = daemon.clone();
    daemon.tasks.clone().spawn(async move {
        let _place = place;
        // Apart, so that what only the beginning needs does not stay in memory for as long as the tunnel.
        if let Some(handshake) = Box::pin(begin(&daemon, upgraded, origin)).await {
            session(&daemon, handshake, origin).await;
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(ws::SUBPROTOCOL));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What a client's user can do about a name, which is no advice for the operator's log.
const CHOOSE_ANOTHER: &str = "; choose another --subdomain";
/// What clients hear when all places for sessions are taken.
const FULL: &str = "the server has as many tunnels as it can take";

fn full() -> ErrorMessage {
    ErrorMessage { code: ErrorCode::LimitReached, message: FULL.to_owned(), retryable: true }
}

/// Takes a QUIC connection whose ALPN is a tunnel's, for as long as the session lasts. Its `place` is held until then.
pub async fn over_quic(daemon: &Arc<Daemon>, connection: quinn::Connection, place: Place) {
    let (_public_place, peer) = (place, connection.remote_address().ip().to_canonical());
    let origin = Origin { peer, transport: "quic" };
    if daemon.shutdown.started() {
        return connection.close(ErrorCode::LimitReached.to_u32().into(), b"the server is restarting");
    }
    let Ok(_session_place) = daemon.sessions.clone().try_acquire_owned() else {
        origin.refused(&full(), None, None);
        return connection.close(ErrorCode::LimitReached.to_u32().into(), FULL.as_bytes());
    };
    let limit = daemon.config().limits.handshake_timeout;
    match Box::pin(quic::accept(connection, session_config(daemon), limit)).await {
        Ok(handshake) => session(daemon, handshake, origin).await,
        Err(error) => origin.unfinished(&error),
    }
}

fn session_config(daemon: &Daemon) -> Config {
    let limits = &daemon.config().limits;
    Config {
        initial_window: limits.initial_window,
        max_exchanges: limits.max_exchanges,
        budget: daemon.windows.clone(),
    }
}

/// Takes the connection over from HTTP and waits for the client to say what it wants.
async fn begin(daemon: &Daemon, upgraded: OnUpgrade, origin: Origin) -> Option<Box<dyn Handshake>> {
    let peer = origin.peer;
    let upgraded = upgraded.await.inspect_err(|error| debug!(%peer, %error, "tunnel gone before its upgrade")).ok()?;
    // The connection itself, so that nothing of the HTTP side stays in memory.
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    drop(parts.read_buf);
    if let Err(error) = cok_transport::tcp::tune_tunnel(stream.get_ref().0) {
        debug!(%peer, %error, "cannot bound the tunnel's unsent bytes");
    }
    let limit = daemon.config().limits.handshake_timeout;
    let handshake = ws::accept(stream, read, session_config(daemon), limit).await;
    handshake.inspect_err(|error| origin.unfinished(error)).ok()
}

/// Grants or refuses a session, and keeps its name until it ends.
async fn session(daemon: &Arc<Daemon>, handshake: Box<dyn Handshake>, origin: Origin) {
    let connect = handshake.connect().clone();
    let wanted = connect.subdomain.as_deref();
    let (key, name) = match authorize(daemon, &connect) {
        Ok(authorized) => authorized,
        Err((refusal, key)) => {
            origin.refused(&refusal, wanted, key.as_deref());
            return handshake.refuse(&refusal);
        }
    };
    let id = format!("{:032x}", fastrand::u128(..));
    let owner = Owner { key: key.name.clone(), instance: connect.instance.clone() };
    let refused = |refusal: &ErrorMessage| origin.refused(refusal, Some(name.as_str()), Some(&key));
    let Some(_permit) = daemon.tunnels_of_keys.take(&key, &name) else {
        let refusal = ErrorMessage {
            code: ErrorCode::LimitReached,
            message: format!("the key has its {} tunnels already", key.max_tunnels),
            retryable: false,
        };
        refused(&refusal);
        return handshake.refuse(&refusal);
    };
    if let Err(refusal) = daemon.registry.may_claim(&name, &owner, connect.replaces.as_deref()) {
        refused(&refusal);
        return handshake.refuse(&refusal);
    }
    let limits = daemon.config().limits.clone();
    let transport = handshake.accept(&ConnectAck {
        session: id.clone(),
        subdomain: name.to_string(),
        url: daemon.url(&name),
        initial_window: limits.initial_window,
        max_exchanges: limits.max_exchanges,
        features: Vec::new(),
    });
    let claim = Claim {
        name: name.clone(),
        owner,
        replaces: connect.replaces,
        session: id.clone(),
        drain: limits.drain_timeout,
    };
    // Somebody may have been faster since the check.
    let registration = match daemon.registry.claim(claim, transport.clone()) {
        Ok(registration) => registration,
        Err(refusal) => {
            refused(&refusal);
            return transport.close(refusal);
        }
    };
    let (began, peer, key) = (Instant::now(), origin.peer, &key.name);
    let version = one_line(&connect.version);
    info!(
        %peer, %name, %key, session = %id, version, transport = origin.transport,
        "tunnel {name} online: key {key}, from {origin}"
    );
    daemon.metrics.active_tunnels.inc();
    if daemon.shutdown.started() {
        transport.drain(cok_proto::DrainReason::Restart, limits.drain_timeout);
    }
    let reason = tokio::select! {
        reason = transport.closed() => reason,
        never = note_silence(&*transport, &registration, &name) => match never {},
    };
    drop(registration);
    daemon.metrics.active_tunnels.dec();
    let (lasted, reason) = (rounded(began.elapsed()), one_line(&reason.to_string()));
    info!(%peer, %name, %key, session = %id, reason, "tunnel {name} offline after {lasted}: {reason}");
}

/// Where a tunnel comes from, and how.
#[derive(Clone, Copy, Debug)]
struct Origin {
    peer: IpAddr,
    transport: &'static str,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.peer, self.transport)
    }
}

impl Origin {
    /// Logs that a connection has ended before its client could be granted or refused anything.
    fn unfinished(self, error: &HandshakeError) {
        let (peer, transport, error) = (self.peer, self.transport, one_line(&error.to_string()));
        info!(%peer, transport, error, "no tunnel came of a connection from {self}: {error}");
    }

    /// Logs a refusal: for the operator, as its message is for the client's user.
    fn refused(self, refusal: &ErrorMessage, wanted: Option<&str>, key: Option<&KeyRecord>) {
        let (peer, transport, code) = (self.peer, self.transport, &refusal.code);
        let (name, key) = (wanted.map(quoted), key.map(|key| &*key.name));
        let why = match (code, &name) {
            (ErrorCode::Unauthorized, _) => "the API key is unknown or has expired".to_owned(),
            (ErrorCode::NameTaken, Some(name)) => format!("name {name} is taken"),
            _ => refusal.message.strip_suffix(CHOOSE_ANOTHER).unwrap_or(&refusal.message).to_owned(),
        };
        let named = name.filter(|name| !why.contains(name.as_str())).map(|name| format!("name {name}, "));
        let keyed = key.map(|key| format!("key {key}, "));
        let (named, keyed) = (named.unwrap_or_default(), keyed.unwrap_or_default());
        let name = wanted.map(one_line);
        info!(%peer, name, key, %code, transport, "tunnel refused: {why} ({named}{keyed}from {self})");
    }
}

/// As precise as people want it: to the hour from a day on, to the minute from an hour on.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    const UNITS: [(u64, u64); 2] = [(24 * 3600, 3600), (3600, 60)];
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(from, _)| seconds >= *from).map_or(1, |(_, unit)| *unit);
    humantime::format_duration(Duration::from_secs(seconds / unit * unit))
}

/// Has visitors wait while the client gives no sign of life.
async fn note_silence(transport: &dyn Transport, registration: &Registration, name: &Subdomain) -> Infallible {
    let Some(mut silence) = transport.silence() else { return std::future::pending().await };
    while silence.changed().await.is_ok() {
        let silent = *silence.borrow_and_update();
        registration.set_silent(silent);
        if silent {
            info!(%name, "tunnel {name} silent: its client gives no sign of life; visitors wait");
        } else {
            info!(%name, "tunnel {name} heard again");
        }
    }
    std::future::pending().await
}

/// A refusal, and the key if it is a valid one.
type Refused = (ErrorMessage, Option<Arc<KeyRecord>>);

/// Who asks, and for which name.
fn authorize(daemon: &Daemon, connect: &Connect) -> Result<(Arc<KeyRecord>, Subdomain), Refused> {
    let refusal = |code, message: String| ErrorMessage { code, message, retryable: false };
    let Some(key) = daemon.keys.authenticate(&connect.key, SystemTime::now()) else {
        let message = "the API key is unknown or has expired; ask the server's operator for a new one";
        return Err((refusal(ErrorCode::Unauthorized, message.to_owned()), None));
    };
    let refuse = |code, message| Err((refusal(code, message), Some(key.clone())));
    if connect.instance.is_empty() || connect.instance.len() > MAX_INSTANCE {
        return refuse(ErrorCode::Protocol, format!("the instance id must have 1 to {MAX_INSTANCE} bytes"));
    }
    let Some(wanted) = &connect.subdomain else {
        let mut suggestions = (0..SUGGESTION_ROUNDS).flat_map(|_| key.suggestions().collect::<Vec<_>>());
        return match suggestions.find(|name| daemon.registry.find(name).is_none()) {
            Some(name) => Ok((key.clone(), name)),
            None => refuse(ErrorCode::NameTaken, "all names of this key are in use; name one yourself".to_owned()),
        };
    };
    let name = match Subdomain::parse(wanted) {
        Ok(name) => name,
        Err(error) => {
            return refuse(ErrorCode::NameForbidden, format!("{} cannot be a subdomain: {error}", quoted(wanted)));
        }
    };
    if !key.may_use(&name) {
        let message = format!("this key may not use the name \"{name}\"{CHOOSE_ANOTHER}");
        return refuse(ErrorCode::NameForbidden, message);
    }
    Ok((key.clone(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_precise_as_people_want_it() {
        for (seconds, said) in [(0, "0s"), (62, "1m 2s"), (3 * 3600 + 125, "3h 2m"), (90_000, "1day 1h")] {
            assert_eq!(rounded(Duration::from_secs(seconds)).to_string(), said);
        }
    }
}
