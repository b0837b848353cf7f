//! Visitors over TCP: one connection after its TLS handshake, HTTP/1.1 or HTTP/2 as ALPN chose. Requests go to `service`.
//!
//! The builder of the chosen protocol serves it, not one that guesses: guessing waits without limit for a silent
//! connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::Body;
use super::drive::{Connection, drive};
use super::http2::{Budgeted, Gathering};
use super::lifecycle::{Lifecycle, Protocol};
use super::lingering_close::LingeringClose;
use super::parts::Edge;
use super::persistent::serve_http1;
use super::request::RequestBody;
use super::service::respond;
use super::unread::{OwnAnswers, Timed};
use super::visitor::{Arrival, Peer, Visitor};
use crate::exchanges::Leashes;

/// HTTP/2: streams at once on one connection.
const H2_STREAMS: u32 = 250;
/// HTTP/2: how much of a request's body may be under way.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2: the same for a connection; above the stream's, or one upload would starve the others. A service that does not
/// read makes a connection hold as much.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2: how much of a response may wait in one stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2: how often an idle visitor is asked whether it still exists, and how long it may take to answer.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serves one connection to its end. It holds its permit for as long as anything of it is left. Each protocol has a box of
/// its own size, since an idle connection takes all of it.
pub(crate) fn serve(
    edge: Arc<Edge>,
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    arrival: Arrival,
) -> Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> {
    let Arrival { permit, present, fresh } = arrival;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let visitor = Visitor::new(edge, Peer::Fixed(peer.ip().to_canonical()), permit, present);
    let stream = Timed::new(stream, visitor.clone());
    if http2 { Box::pin(serve_http2(visitor, stream, fresh)) } else { serve_http1(visitor, stream, fresh) }
}

async fn serve_http2(visitor: Arc<Visitor>, stream: Timed, fresh: TaskTrackerToken) -> hyper::Result<()> {
    let (leashes, own) = (Leashes::default(), Arc::<OwnAnswers>::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (visitor, own, leash) = (visitor.clone(), own.clone(), leashes.next(&visitor.end));
        let mut request = request.map(|body| RequestBody::hyper(body, None));
        request.extensions_mut().insert(leash.clone());
        let request = Box::new(request);
        // Boxed: the library moves this future several times.
        Box::pin(async move {
            let response = respond(&visitor, request, None).await;
            Ok::<_, Infallible>(response.map(|body| body.watched(|| own.wait(leash))))
        })
    });
    let io = Budgeted::new(Gathering::new(LingeringClose::new(stream, visitor.clone())));
    let mut builder = http2::Builder::new(leashes.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(visitor.edge.config().max_header_bytes)
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .enable_connect_protocol();
    let mut lifecycle = Lifecycle::new(&visitor, Protocol::Http2, fresh);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        result = drive(&mut connection, &mut lifecycle, || false) => result.map(|_over| ()),
        () = visitor.never_asked() => Ok(()),
        () = own.watch(&visitor.edge.exchanges) => Ok(()),
        () = visitor.end.cancelled() => Ok(()),
    }
}

impl<S> Connection for http2::Connection<TokioIo<Budgeted<Gathering<LingeringClose>>>, S, Leashes>
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
