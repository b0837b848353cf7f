//! Where tunnels connect: from a client's WebSocket upgrade, or its QUIC connection, to a session that serves a name.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use cok_proto::{Connect, ConnectAck, ErrorCode, ErrorMessage};
use cok_transport::{Config, Handshake, Transport, quic, ws};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::{debug, info};

use crate::admission::connections::Place;
use crate::admission::keys::KeyRecord;
use crate::app::Daemon;
use crate::edge::RequestBody;
use crate::edge::Stream;
use crate::edge::body::Body;
use crate::names::Subdomain;
use crate::tunnels::directory::{Claim, Owner, Registration};

/// The longest instance id that is kept; ours have 32 characters.
const MAX_INSTANCE: usize = 64;
/// How many names are tried for a client that wants none in particular.
const SUGGESTION_ROUNDS: usize = 4;

/// Answers a request at [`ws::PATH`]: an upgrade (RFC 6455, section 4.2), after which the session begins.
pub(crate) fn upgrade(daemon: &Arc<Daemon>, mut request: Request<RequestBody>, peer: IpAddr) -> Response<Body> {
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
    let Ok(place) = daemon.sessions.clone().try_acquire_owned() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the server has as many tunnels as it can take\n");
    };
    if daemon.shutdown.started() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the server is restarting\n");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let daemon = daemon.clone();
    daemon.tasks.clone().spawn(async move {
        let _place = place;
        // Apart, so that what only the beginning needs does not stay in memory for as long as the tunnel.
        if let Some(handshake) = Box::pin(begin(&daemon, upgraded, peer)).await {
            session(&daemon, handshake, peer).await;
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

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Takes a QUIC connection whose ALPN is a tunnel's, for as long as the session lasts. Its `place` is held until then.
pub(crate) async fn over_quic(daemon: &Arc<Daemon>, connection: quinn::Connection, place: Place) {
    let (_public_place, peer) = (place, connection.remote_address().ip().to_canonical());
    let turned_away = if daemon.shutdown.started() { Some("the server is restarting") } else { None };
    let session_place = daemon.sessions.clone().try_acquire_owned();
    let (Ok(_session_place), None) = (&session_place, turned_away) else {
        let why = turned_away.unwrap_or("the server has as many tunnels as it can take");
        return connection.close(ErrorCode::LimitReached.to_u32().into(), why.as_bytes());
    };
    let limit = daemon.config().limits.handshake_timeout;
    let handshake = Box::pin(quic::accept(connection, session_config(daemon), limit)).await;
    match handshake {
        Ok(handshake) => session(daemon, handshake, peer).await,
        Err(error) => info!(%peer, %error, "no session"),
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
async fn begin(daemon: &Daemon, upgraded: OnUpgrade, peer: IpAddr) -> Option<Box<dyn Handshake>> {
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
    handshake.inspect_err(|error| info!(%peer, %error, "no session")).ok()
}

/// Grants or refuses a session, and keeps its name until it ends.
async fn session(daemon: &Arc<Daemon>, handshake: Box<dyn Handshake>, peer: IpAddr) {
    let connect = handshake.connect().clone();
    let (key, name) = match authorize(daemon, &connect) {
        Ok(authorized) => authorized,
        Err(refusal) => {
            info!(%peer, code = %refusal.code, "tunnel refused");
            return handshake.refuse(&refusal);
        }
    };
    let id = format!("{:032x}", fastrand::u128(..));
    let owner = Owner { key: key.name.clone(), instance: connect.instance.clone() };
    let Some(_permit) = daemon.tunnels_of_keys.take(&key, &name) else {
        return handshake.refuse(&ErrorMessage {
            code: ErrorCode::LimitReached,
            message: format!("the key has its {} tunnels already", key.max_tunnels),
            retryable: false,
        });
    };
    if let Err(refusal) = daemon.registry.may_claim(&name, &owner, connect.replaces.as_deref()) {
        info!(%peer, %name, code = %refusal.code, "tunnel refused");
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
        Err(refusal) => return transport.close(refusal),
    };
    info!(%peer, %name, key = %key.name, session = %id, version = %connect.version, transport = transport.name(), "tunnel online");
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
    info!(%peer, %name, session = %id, %reason, "tunnel offline");
}

/// Has visitors wait while the client gives no sign of life.
async fn note_silence(transport: &dyn Transport, registration: &Registration, name: &Subdomain) -> Infallible {
    let Some(mut silence) = transport.silence() else { return std::future::pending().await };
    while silence.changed().await.is_ok() {
        let silent = *silence.borrow_and_update();
        registration.set_silent(silent);
        if silent {
            info!(%name, "tunnel silent");
        } else {
            info!(%name, "tunnel heard again");
        }
    }
    std::future::pending().await
}

/// Who asks, and for which name.
fn authorize(daemon: &Daemon, connect: &Connect) -> Result<(Arc<KeyRecord>, Subdomain), ErrorMessage> {
    let refuse = |code, message: String| ErrorMessage { code, message, retryable: false };
    let Some(key) = daemon.keys.authenticate(&connect.key, SystemTime::now()) else {
        let message = "the API key is unknown or has expired; ask the server's operator for a new one";
        return Err(refuse(ErrorCode::Unauthorized, message.to_owned()));
    };
    if connect.instance.is_empty() || connect.instance.len() > MAX_INSTANCE {
        let message = format!("the instance id must have 1 to {MAX_INSTANCE} bytes");
        return Err(refuse(ErrorCode::Protocol, message));
    }
    let Some(wanted) = &connect.subdomain else {
        let mut suggestions = (0..SUGGESTION_ROUNDS).flat_map(|_| key.suggestions().collect::<Vec<_>>());
        return match suggestions.find(|name| daemon.registry.find(name).is_none()) {
            Some(name) => Ok((key, name)),
            None => Err(refuse(ErrorCode::NameTaken, "all names of this key are in use; name one yourself".to_owned())),
        };
    };
    let name = Subdomain::parse(wanted)
        .map_err(|error| refuse(ErrorCode::NameForbidden, format!("\"{wanted}\" cannot be a subdomain: {error}")))?;
    if !key.may_use(&name) {
        let message = format!("this key may not use the name \"{name}\"; choose another --subdomain");
        return Err(refuse(ErrorCode::NameForbidden, message));
    }
    Ok((key, name))
}
