//! A visitor's connection over HTTP/1.1, from one request to the next.
//!
//! The HTTP library holds two buffers and much state for each connection, 20 KiB and more. A connection on which nothing
//! happens does without the library. The library is set up when the first complete head has come, and taken down once the
//! connection is quiet. The limits go on meanwhile.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite as _;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::body::Body;
use super::drive::{Connection, Driven, drive};
use super::head_timer::HeadTimer;
use super::http1::{Io, Judged, Verdicts, judged};
use super::lifecycle::{Lifecycle, Protocol};
use super::request::RequestBody;
use super::service::respond;
use super::unread::Timed;
use super::visitor::Visitor;

/// What one connection reads ahead and gathers for writing. The longest head fits, and a slow upload holds no more than this.
const BUFFER: usize = 64 * 1024;

/// Serves a connection to its end. What it keeps stands in boxes, so that no future around another has room for it twice.
pub(super) fn serve_http1(
    visitor: Arc<Visitor>,
    stream: Timed,
    fresh: TaskTrackerToken,
) -> Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> {
    let max_header_bytes = visitor.edge.config().max_header_bytes as usize;
    let head_timeout = visitor.edge.exchanges.config().head_timeout;
    let verdicts = Verdicts::new();
    let io = judged(stream, visitor.flushes.clone(), max_header_bytes, head_timeout, verdicts.clone());
    Box::pin(async move {
        let served = Box::pin(serve(&visitor, io, verdicts, fresh));
        visitor.end.run_until_cancelled(served).await.unwrap_or(Ok(()))
    })
}

async fn serve(
    visitor: &Arc<Visitor>,
    mut io: Box<Io>,
    verdicts: Arc<Verdicts>,
    fresh: TaskTrackerToken,
) -> hyper::Result<()> {
    let (max_header_bytes, header_timeout) = {
        let config = visitor.edge.config();
        (config.max_header_bytes as usize, config.header_timeout)
    };
    let service = |request: Request<Incoming>| {
        let (visitor, judged) = (visitor.clone(), Judged::next(&verdicts));
        let request = Box::new(request.map(|body| RequestBody::hyper(body, judged.seen.doubt.clone())));
        // Boxed: the library keeps room for this future from one request to the next.
        Box::pin(async move { Ok::<_, Infallible>(respond(&visitor, request, Some(judged)).await) })
    };
    let timer = HeadTimer::new(header_timeout);
    let mut builder = http1::Builder::new();
    builder
        .timer(timer.clone())
        .header_read_timeout(header_timeout)
        .max_header_size(max_header_bytes)
        .max_buf_size(BUFFER);
    let is_quiet = || timer.is_quiet() && visitor.is_answered() && visitor.flushes.is_flushed();
    let mut lifecycle = Lifecycle::new(visitor, Protocol::Http1, fresh);
    loop {
        match wait(&mut io, &timer, &mut lifecycle).await {
            Waited::Request => {}
            Waited::End => {
                // One try: a visitor that takes nothing must not keep the connection.
                let _as_far_as_it_goes =
                    poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_shutdown(cx).is_ready())).await;
                return Ok(());
            }
            Waited::Broken => return Ok(()),
        }
        let connection = builder.serve_connection(TokioIo::new(io), service_fn(service)).with_upgrades();
        let mut connection = Box::pin(connection);
        if drive(&mut connection, &mut lifecycle, is_quiet).await? == Driven::Over {
            return Ok(());
        }
        let Some(parts) = Pin::into_inner(connection).into_parts() else { return Ok(()) };
        io = parts.io.into_inner();
        io.put_back(&parts.read_buf);
    }
}

impl<S> Connection for http1::UpgradeableConnection<TokioIo<Box<Io>>, S>
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What has come without the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// A head, or what takes its place.
    Request,
    /// The end: the visitor has ended the connection, its time is over, or its lifecycle ends it.
    End,
    /// An error. The connection is only dropped.
    Broken,
}

/// Waits for a request on a connection without the library.
async fn wait(io: &mut Io, timer: &HeadTimer, lifecycle: &mut Lifecycle) -> Waited {
    poll_fn(|cx| {
        match io.poll_request(cx) {
            Poll::Ready(Ok(true)) => return Poll::Ready(Waited::Request),
            Poll::Ready(Ok(false)) => return Poll::Ready(Waited::End),
            Poll::Ready(Err(error)) => {
                debug!(%error, "a connection broke between requests");
                return Poll::Ready(Waited::Broken);
            }
            Poll::Pending => {}
        }
        if timer.poll_due(cx).is_ready() || lifecycle.poll(cx).is_ready() {
            return Poll::Ready(Waited::End);
        }
        Poll::Pending
    })
    .await
}
