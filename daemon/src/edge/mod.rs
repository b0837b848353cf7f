//! The public HTTPS side over TCP: one connection after its TLS handshake, HTTP/1.1 or HTTP/2 as ALPN chose, requests
//! handed to `service`. `http3` is the same over QUIC.
//!
//! The protocol's own builder is used, not one that guesses: guessing waits without limit for a silent connection.

pub(crate) mod body;
mod forward;
mod grpc;
mod headers;
pub(crate) mod http3;
mod linger;
mod lingering_close;
mod pages;
mod request;
pub(crate) mod route;
mod service;
mod upgrade;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use self::lingering_close::LastBytes;
use crate::admission::connections::Place;
use crate::app::Daemon;
use crate::drain::phase::FIRST_REQUEST;

pub(crate) use self::request::RequestBody;
pub(crate) use self::service::{Peer, Visitor};

/// HTTP/1.1: what one connection reads ahead and gathers for writing. The longest head fits, and a slow upload holds no
/// more than this.
const H1_BUFFER: usize = 64 * 1024;
/// HTTP/2: streams at once on one connection.
const H2_STREAMS: u32 = 250;
/// HTTP/2: how much of a request's body may be under way.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2: the same for a connection; above the stream's, or one upload would starve the others.
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// HTTP/2: how much of a response may wait in one stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2: how often an idle visitor is asked whether it still exists, and how long it may take to answer.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A visitor's connection, or a tunnel's before its upgrade.
pub(crate) type Stream = TlsStream<TcpStream>;

/// Serves one connection to its end. It holds its `place` for as long as anything of it is left, and is `fresh` until the
/// first request.
pub(crate) async fn serve(
    daemon: Arc<Daemon>,
    stream: Stream,
    peer: SocketAddr,
    place: Place,
    fresh: TaskTrackerToken,
) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let visitor = Arc::new(Visitor::new(daemon.clone(), Peer::Fixed(peer.ip().to_canonical()), place));
    let service = service_fn(|request: Request<Incoming>| {
        let visitor = visitor.clone();
        async move { Ok::<_, std::convert::Infallible>(visitor.respond(request.map(RequestBody::from)).await) }
    });
    let (max_header_bytes, header_timeout) = {
        let limits = &daemon.config().limits;
        (limits.max_header_bytes, limits.header_timeout)
    };
    let result = if http2 {
        let io = LastBytes::new(stream, visitor.clone());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BUFFER)
            .max_header_list_size(max_header_bytes)
            .keep_alive_interval(H2_PING.0)
            .keep_alive_timeout(H2_PING.1)
            .enable_connect_protocol();
        tokio::select! {
            result = until_done(builder.serve_connection(TokioIo::new(io), service), &visitor, true, fresh) => result,
            () = visitor.never_asked() => Ok(()),
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_header_size(max_header_bytes as usize)
            .max_buf_size(H1_BUFFER);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        until_done(connection, &visitor, false, fresh).await
    };
    if let Err(error) = result {
        debug!(%peer, %error, "visitor's connection ended");
    }
}

/// A connection that can be told to finish what it has begun.
trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Connection for http1::UpgradeableConnection<TokioIo<Stream>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = body::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<LastBytes>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = body::Body>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves a connection to its end; told to finish when the daemon stops, or over HTTP/2 when its visitor has asked for
/// nothing for a while. HTTP/1.1 has a time-out of its own for that; but it has no way to say of a fresh connection that
/// it won't be served, so there the first request is waited for.
async fn until_done(
    connection: impl Connection,
    visitor: &Visitor,
    http2: bool,
    fresh: TaskTrackerToken,
) -> hyper::Result<()> {
    let mut fresh = Some(fresh);
    let mut connection = pin!(connection);
    let mut shutdown = visitor.daemon.shutdown.watch();
    let mut idle = http2.then(|| Box::pin(visitor.idle()));
    let mut first: Option<Pin<Box<Sleep>>> = None;
    let (mut finish, mut given_up) = (false, false);
    poll_fn(|cx| {
        if let Poll::Ready(()) = shutdown.poll(cx) {
            if http2 || visitor.has_asked() {
                finish = true;
            } else {
                first = Some(Box::pin(tokio::time::sleep(FIRST_REQUEST)));
            }
        }
        if let Some(waiting) = &mut idle
            && waiting.as_mut().poll(cx).is_ready()
        {
            (idle, finish) = (None, true);
        }
        let done = connection.as_mut().poll(cx);
        if visitor.has_asked() {
            fresh = None;
        }
        if let Some(waiting) = &mut first
            && (visitor.has_asked() || waiting.as_mut().poll(cx).is_ready())
        {
            (first, finish, given_up) = (None, true, !visitor.has_asked());
        }
        // Told to finish, the library adds `close` to a 101, where some clients allow for nothing beside `upgrade`.
        if done.is_pending() && finish && !visitor.is_upgrading() {
            finish = false;
            connection.as_mut().finish();
            let done = connection.as_mut().poll(cx);
            // In the middle of a head the library waits on for its end, and with it all who wait for the next daemon.
            return if given_up && done.is_pending() { Poll::Ready(Ok(())) } else { done };
        }
        done
    })
    .await
}
