//! How clients connect: by a WebSocket upgrade or over QUIC, up to the handshake of a session.

use std::net::IpAddr;
use std::sync::Arc;

use cok_proto::{ErrorCode, ErrorMessage};
use cok_transport::{Config, Handshake, HandshakeError, quic, ws};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::origin::Origin;
use super::{Tunnels, serve};
use crate::admission::ConnectionPermit;
use crate::drain::Phase;
use crate::host::tcp_queue::progress;
use crate::observe::{Greeting, Limit};
use crate::own_answers::mark;

/// The answer to a client when the session limit is reached.
const FULL: &str = "the server has as many tunnels as it can take";
/// The answer to a client while the daemon stops.
const RESTARTING: &str = "the server is restarting";

/// Takes the connection of a tunnel out of what has served HTTP on it, with bytes that were read too early. `None` if it is
/// another kind of connection.
pub(crate) type Unwrap = fn(Upgraded) -> Option<(TlsStream<TcpStream>, Vec<u8>)>;

impl Tunnels {
    /// Answers a request at [`ws::PATH`]: an upgrade (RFC 6455, section 4.2), after which the session begins.
    pub(crate) fn upgrade<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        peer: IpAddr,
        unwrap: Unwrap,
    ) -> Response<String> {
        let headers = request.headers();
        let is = |name, wanted: &str| {
            let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        let upgrades = *request.method() == Method::GET && is(UPGRADE, "websocket") && is(CONNECTION, "upgrade");
        if !upgrades || !is(SEC_WEBSOCKET_PROTOCOL, ws::SUBPROTOCOL) {
            let what = "tunnels connect here, by WebSocket with the subprotocol cok.v1";
            return plain(StatusCode::UPGRADE_REQUIRED, what);
        }
        let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
            return plain(StatusCode::BAD_REQUEST, "sec-websocket-key is missing");
        };
        let accept = ws::accept_key(key.as_bytes());
        let origin = Origin { peer, transport: "ws" };
        let Ok(permit) = self.sessions.clone().try_acquire_owned() else {
            self.metrics.refusals.beyond(Limit::Sessions);
            self.refused(origin, &full(), None, None);
            return plain(StatusCode::SERVICE_UNAVAILABLE, FULL);
        };
        if self.drain.phase() >= Phase::GoingAway {
            return plain(StatusCode::SERVICE_UNAVAILABLE, RESTARTING);
        }
        let upgraded = hyper::upgrade::on(request);
        let tunnels = self.clone();
        self.drain.tasks.spawn(async move {
            let _permit = permit;
            // Boxed, so that the state of the handshake does not stay in memory as long as the tunnel.
            if let Some(handshake) = Box::pin(tunnels.begin(upgraded, unwrap, origin)).await {
                serve::serve(&tunnels, handshake, origin).await;
            }
        });
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(ws::SUBPROTOCOL));
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }

    /// Serves a QUIC connection with a tunnel's ALPN until its session ends. Holds its permit that long.
    pub(crate) async fn over_quic(self: &Arc<Self>, connection: quinn::Connection, permit: ConnectionPermit) {
        // A tunnel is never idle.
        let _busy = permit.member().keep();
        let (_public_permit, peer) = (permit, connection.remote_address().ip().to_canonical());
        let origin = Origin { peer, transport: "quic" };
        if self.drain.phase() >= Phase::GoingAway {
            return connection.close(ErrorCode::LimitReached.to_u32().into(), RESTARTING.as_bytes());
        }
        let Ok(_permit) = self.sessions.clone().try_acquire_owned() else {
            self.metrics.refusals.beyond(Limit::Sessions);
            self.refused(origin, &full(), None, None);
            return connection.close(ErrorCode::LimitReached.to_u32().into(), FULL.as_bytes());
        };
        let limit = self.config().handshake_timeout;
        match Box::pin(quic::accept(connection, self.session_config(), limit)).await {
            Ok(handshake) => serve::serve(self, handshake, origin).await,
            Err(error) => self.unfinished(origin, &error),
        }
    }

    /// Takes the connection over from HTTP and waits for the client's Connect.
    async fn begin(&self, upgraded: OnUpgrade, unwrap: Unwrap, origin: Origin) -> Option<Box<dyn Handshake>> {
        let peer = origin.peer;
        let gone = |error: &hyper::Error| debug!(%peer, %error, "a client left before its upgrade: {error}");
        let upgraded = upgraded.await.inspect_err(gone).ok()?;
        // Unwraps the connection, so that no HTTP state stays in memory.
        let (stream, read) = unwrap(upgraded)?;
        let limit = self.config().handshake_timeout;
        let handshake =
            ws::accept(stream, read, |stream| progress(stream.get_ref().0), self.session_config(), limit).await;
        handshake.inspect_err(|error| self.unfinished(origin, error)).ok()
    }

    /// Counts and logs a connection that ended before its client had an answer.
    fn unfinished(&self, origin: Origin, error: &HandshakeError) {
        self.metrics.sessions.greeted(origin.transport, Greeting::Unfinished);
        origin.unfinished(error);
    }

    fn session_config(&self) -> Config {
        let config = self.config();
        Config {
            initial_window: config.initial_window,
            max_exchanges: config.max_exchanges,
            budget: self.windows.clone(),
        }
    }
}

fn full() -> ErrorMessage {
    ErrorMessage { code: ErrorCode::LimitReached, message: FULL.to_owned(), retryable: true }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(format!("{text}\n"));
    *response.status_mut() = status;
    mark(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
