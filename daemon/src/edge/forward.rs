//! A request's way into its tunnel and the response's way back: waiting for a tunnel that is away, trying again what
//! may be tried again, and pumping bodies.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use cok_http::is_event_stream;
use cok_proto::{RequestHead, ResetCode, ResponseHead, Scheme};
use cok_transport::{Exchange, ExchangeError, OpenError, Received, RecvHalf};
use http::header::{ACCEPT, ALT_SVC, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::body::{Body, Upload};
use super::grpc::is_grpc;
use super::headers::{join_cookies, set_forwarded, strip_hop_by_hop};
use super::http3;
use super::linger::linger;
use super::page::{Problem, page};
use super::request::RequestBody;
use super::service::Visitor;
use super::upgrade::{Upgrade, splice};
use crate::registry::{Live, Presence, Tunnel};

/// How often one request is sent at the most. Each time a session has ended under it, so more would not help.
const MAX_ATTEMPTS: usize = 5;

/// Sends a request into its tunnel and returns the response.
pub(super) async fn forward(
    visitor: &Arc<Visitor>,
    tunnel: &Arc<Tunnel>,
    mut request: Request<RequestBody>,
    authority: Authority,
    upgrade: Upgrade,
) -> Response<Body> {
    let on_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let interim = body.interim();
    let version = parts.version;
    let accept: HeaderMap = parts.headers.get(ACCEPT).map(|accept| (ACCEPT, accept.clone())).into_iter().collect();
    let head = Arc::new(prepare(visitor, parts, authority, &upgrade));
    let body = (!body.is_end_stream() && !upgrade.is_some()).then_some(body);
    match exchange(visitor, tunnel, head, body, interim, upgrade, on_upgrade).await {
        Ok(mut response) => {
            // Over HTTP/1.1 a visitor would not see the trailers, and take the body for whole.
            if version >= Version::HTTP_2 && is_grpc(response.headers()) {
                response.body_mut().speaks_grpc(visitor.daemon.shutdown.watch_last());
            }
            response
        }
        Err(problem) => page(problem, &accept),
    }
}

/// Makes the head that goes into the tunnel.
fn prepare(visitor: &Visitor, parts: http::request::Parts, authority: Authority, upgrade: &Upgrade) -> RequestHead {
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    if matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        join_cookies(&mut headers);
    }
    headers.remove(HOST);
    let address = visitor.address();
    let trusted = visitor.daemon.config().trusted_proxies.iter().any(|network| network.contains(&address));
    set_forwarded(&mut headers, address, trusted, &authority);
    upgrade.prepare(&mut headers);
    let target = parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let method = if upgrade.is_some() { Method::GET } else { parts.method };
    RequestHead { method, target, scheme: Scheme::Https, authority, headers }
}

/// Sends the request until an answer comes or nothing is left to try.
async fn exchange(
    visitor: &Arc<Visitor>,
    tunnel: &Arc<Tunnel>,
    head: Arc<RequestHead>,
    mut body: Option<RequestBody>,
    interim: Option<Arc<http3::Exchange>>,
    upgrade: Upgrade,
    on_upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Problem> {
    let mut lost: Option<Arc<Live>> = None;
    let mut last = Problem::Offline;
    let expects = head.headers.contains_key(EXPECT);
    for _ in 0..MAX_ATTEMPTS {
        let live = match find_live(visitor, tunnel, lost.as_deref()).await {
            Ok(live) => live,
            Err(problem) => {
                give_up(body, expects);
                return Err(problem);
            }
        };
        let end = body.is_none() && on_upgrade.is_none();
        let Exchange { send, mut recv } = match live.transport.open(head.clone(), end) {
            Ok(exchange) => exchange,
            Err(OpenError::Unavailable) => {
                lost = Some(live);
                continue;
            }
            Err(error) => {
                give_up(body, expects);
                let saturated = error == OpenError::Saturated;
                return Err(if saturated { Problem::Busy } else { Problem::HeadTooLarge });
            }
        };
        if let Some(on_upgrade) = on_upgrade {
            // Nothing of an upgrade is ever sent twice: its service may have begun to speak.
            let answered = answer(&mut recv, &mut None, false, None).await.map_err(problem)?;
            return respond_to_upgrade(visitor, answered, &upgrade, on_upgrade, send, recv);
        }
        let mut upload = body.take().map(|body| Upload::new(body, send));
        match answer(&mut recv, &mut upload, expects, interim.as_deref()).await {
            Ok(answered) => {
                let declined = answered.declined;
                let mut response = respond(visitor, answered, recv, &head.method);
                match upload {
                    // Nobody reads it any more, but letting go of it would abandon the exchange.
                    Some(upload) if declined => response.body_mut().keep(upload),
                    // What is left goes on by itself; it ends with the exchange.
                    Some(mut upload) => {
                        tokio::spawn(async move {
                            poll_fn(|cx| upload.poll(cx)).await;
                            linger(upload.into_rest());
                        });
                    }
                    None => {}
                }
                return Ok(response);
            }
            Err(error) => {
                let unread = end || upload.as_ref().is_some_and(Upload::is_unread);
                body = upload.map(Upload::into_rest);
                let repeatable = match error {
                    ExchangeError::Reset(ResetCode::Unprocessed) => true,
                    ExchangeError::SessionLost => head.method.is_idempotent(),
                    ExchangeError::Reset(_) => false,
                };
                if !(repeatable && unread) {
                    give_up(body, expects);
                    return Err(problem(error));
                }
                debug!(method = %head.method, %error, "the request is sent again");
                last = problem(error);
                lost = matches!(error, ExchangeError::SessionLost).then_some(live);
            }
        }
    }
    give_up(body, expects);
    Err(last)
}

/// The daemon answers by itself; what the visitor still sends is not wanted.
fn give_up(body: Option<RequestBody>, expects: bool) {
    if let Some(body) = body.filter(|_| !expects) {
        linger(body);
    }
}

/// The session to use; waits for one while the tunnel may still come back. `lost` is one that takes no more.
async fn find_live(visitor: &Visitor, tunnel: &Arc<Tunnel>, lost: Option<&Live>) -> Result<Arc<Live>, Problem> {
    let usable = |live: &Arc<Live>| lost.is_none_or(|lost| lost.session != live.session);
    if let Some(live) = tunnel.live().filter(usable) {
        return Ok(live);
    }
    let (most, grace) = {
        let limits = &visitor.daemon.config().limits;
        (limits.max_held, limits.reconnect_grace)
    };
    let _held = tunnel.hold(most).ok_or(Problem::Busy)?;
    let mut presence: watch::Receiver<Presence> = tunnel.presence();
    let noticed = Instant::now();
    loop {
        let since = match &*presence.borrow_and_update() {
            Presence::Online(live) if usable(live) => return Ok(live.clone()),
            Presence::Online(_) => noticed,
            Presence::Silent(_, since) | Presence::Away(since) => *since,
        };
        tokio::select! {
            () = visitor.daemon.shutdown.wait() => return Err(Problem::ShuttingDown),
            () = tokio::time::sleep_until(since + grace) => return Err(Problem::Offline),
            changed = presence.changed() => changed.map_err(|_| Problem::Offline)?,
        }
    }
}

/// Waits for the final head and meanwhile carries the body on. If the visitor `expects` a 100, its body stays unread
/// until the service has sent one (RFC 9110, section 10.1.1); reading it makes the edge send the visitor its 100. Where
/// interim heads can reach the visitor, they go to `interim`.
async fn answer(
    recv: &mut Box<dyn RecvHalf>,
    upload: &mut Option<Upload>,
    expects: bool,
    interim: Option<&http3::Exchange>,
) -> Result<Answered, ExchangeError> {
    let mut held_back = expects;
    poll_fn(|cx| {
        loop {
            if !held_back
                && let Some(going) = upload
                && going.poll(cx).is_ready()
                && let Some(done) = upload.take()
            {
                linger(done.into_rest());
            }
            match recv.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Received::Head { head, .. })) if head.is_interim() => {
                    let continues = head.status == StatusCode::CONTINUE;
                    if continues {
                        held_back = false;
                    }
                    // Over HTTP/1.1 and HTTP/2 the edge's library can send no others than 100, and does so by itself.
                    if let Some(interim) = interim.filter(|_| expects || !continues) {
                        interim.send(head);
                    }
                }
                Poll::Ready(Ok(Received::Head { head, end })) => {
                    return Poll::Ready(Ok(Answered { head, end, declined: held_back }));
                }
                // The multiplexer lets nothing come before the final head.
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(ExchangeError::Reset(ResetCode::LocalBroken))),
            }
        }
    })
    .await
}

/// A final head.
struct Answered {
    head: ResponseHead,
    /// No body follows.
    end: bool,
    /// The service has decided without the body that the visitor held back: it is not wanted.
    declined: bool,
}

/// The response for the visitor.
fn respond(visitor: &Visitor, answered: Answered, recv: Box<dyn RecvHalf>, method: &Method) -> Response<Body> {
    let ResponseHead { status, mut headers } = answered.head;
    strip_hop_by_hop(&mut headers);
    // The service's is about another address than ours (RFC 7838, section 3).
    headers.remove(ALT_SVC);
    let body = if answered.end {
        Body::empty()
    } else {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            None if is_event_stream(&headers) => Body::events(recv, visitor.daemon.shutdown.watch_time()),
            _ => Body::tunnel(recv, length.filter(|_| *method != Method::HEAD)),
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What a visitor gets who asked to leave HTTP: raw bytes from here on, or an ordinary response.
fn respond_to_upgrade(
    visitor: &Arc<Visitor>,
    mut answered: Answered,
    upgrade: &Upgrade,
    on_upgrade: OnUpgrade,
    mut send: Box<dyn cok_transport::SendHalf>,
    recv: Box<dyn RecvHalf>,
) -> Result<Response<Body>, Problem> {
    if answered.head.status != StatusCode::SWITCHING_PROTOCOLS {
        send.send_data(Bytes::new(), true);
        return Ok(respond(visitor, answered, recv, &Method::GET));
    }
    let protocol: Option<HeaderValue> = answered.head.headers.get(UPGRADE).cloned();
    strip_hop_by_hop(&mut answered.head.headers);
    let response = upgrade.complete(answered.head.headers, protocol).ok_or(Problem::ServiceBroke)?;
    let (visitor, running) = (visitor.clone(), visitor.daemon.running.lasting());
    let time = upgrade.is_websocket().then(|| visitor.daemon.shutdown.watch_time());
    tokio::spawn(async move {
        splice(on_upgrade, send, recv, time).await;
        drop((visitor, running));
    });
    Ok(response)
}

fn problem(error: ExchangeError) -> Problem {
    match error {
        ExchangeError::Reset(ResetCode::LocalRefused) => Problem::ServiceAbsent,
        ExchangeError::Reset(ResetCode::LocalTimeout) => Problem::ServiceSlow,
        ExchangeError::Reset(_) => Problem::ServiceBroke,
        ExchangeError::SessionLost => Problem::Offline,
    }
}
