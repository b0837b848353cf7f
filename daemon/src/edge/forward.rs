//! Sends a request into its tunnel: one attempt after the other, until there is a response. `retry` chooses the session,
//! `respond` makes the response.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use cok_http::hop_by_hop::strip_request;
use cok_proto::{RequestHead, ResetCode, Scheme, Target};
use cok_transport::{ExchangeError, ExchangeHalves, OpenError, Received, RecvHalf};
use http::header::{EXPECT, HOST};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::body::{Body, Upload};
use super::context::Context;
use super::headers::{join_cookies, set_forwarded};
use super::interim::InterimHeads;
use super::linger::linger;
use super::pages::{Problem, page};
use super::request::RequestBody;
use super::respond::{FinalHead, respond, respond_to_upgrade};
use super::retry::{MAX_ATTEMPTS, find_live, may_repeat, settle};
use super::upgrade::Upgrade;
use super::visitor::Visitor;
use crate::tunnels::{Live, Tunnel};

/// Sends a request into its tunnel and returns the response.
pub(super) async fn forward(
    context: &mut Context,
    tunnel: &Arc<Tunnel>,
    mut request: Request<RequestBody>,
    authority: Authority,
    upgrade: Upgrade,
) -> Response<Body> {
    let on_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let (interim, version) = (body.interim(), parts.version);
    let head = Arc::new(prepare(&context.visitor, parts, authority, &upgrade));
    let body = (!body.is_end_stream() && !upgrade.is_some()).then_some(body);
    let outgoing = Outgoing { head: head.clone(), version, body, interim };
    let result = match on_upgrade {
        Some(on_upgrade) => send_upgrade(context, tunnel, outgoing, &upgrade, on_upgrade).await,
        None => send(context, tunnel, outgoing).await,
    };
    result.unwrap_or_else(|problem| page(problem, &head.headers))
}

/// A request that is about to be sent.
struct Outgoing {
    head: Arc<RequestHead>,
    /// The visitor's version of HTTP.
    version: Version,
    body: Option<RequestBody>,
    /// Where interim heads go, if the visitor can get any.
    interim: Option<Arc<InterimHeads>>,
}

/// Makes the head that goes into the tunnel.
fn prepare(visitor: &Visitor, parts: http::request::Parts, authority: Authority, upgrade: &Upgrade) -> RequestHead {
    let mut headers = parts.headers;
    strip_request(&mut headers);
    if matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        join_cookies(&mut headers);
    }
    headers.remove(HOST);
    let address = visitor.address();
    let trusted = visitor.edge.config().trusted_proxies.iter().any(|network| network.contains(&address));
    set_forwarded(&mut headers, address, trusted, &authority);
    upgrade.prepare(&mut headers);
    let target = parts.uri.into_parts().path_and_query.map_or_else(Target::root, Target::from);
    let method = if upgrade.is_some() { Method::GET } else { parts.method };
    RequestHead { method, target, scheme: Scheme::Https, authority, headers }
}

/// Sends an upgrade. It is sent again only while no session has taken it: after that its service may have begun to speak.
async fn send_upgrade(
    context: &mut Context,
    tunnel: &Arc<Tunnel>,
    request: Outgoing,
    upgrade: &Upgrade,
    on_upgrade: OnUpgrade,
) -> Result<Response<Body>, Problem> {
    let mut lost: Option<Arc<Live>> = None;
    for _ in 0..MAX_ATTEMPTS {
        let live = find_live(&context.visitor, tunnel, lost.as_deref()).await?;
        let ExchangeHalves { send, mut recv } = match live.open(request.head.clone(), true) {
            Ok(exchange) => exchange,
            Err(OpenError::Unavailable | OpenError::Unbound) => {
                lost = Some(live);
                continue;
            }
            Err(error) => return Err(not_opened(error)),
        };
        let answered = answer(&mut recv, &mut None, false, None).await.map_err(problem)?;
        return respond_to_upgrade(context, answered, upgrade, on_upgrade, send, recv, request.version);
    }
    Err(Problem::Offline)
}

/// Sends the request until a response comes or nothing is left to try.
async fn send(context: &mut Context, tunnel: &Arc<Tunnel>, request: Outgoing) -> Result<Response<Body>, Problem> {
    let Outgoing { head, version, mut body, interim } = request;
    let mut lost: Option<Arc<Live>> = None;
    let mut last = Problem::Offline;
    let expects = head.headers.contains_key(EXPECT);
    for _ in 0..MAX_ATTEMPTS {
        let live = match find_live(&context.visitor, tunnel, lost.as_deref()).await {
            Ok(live) => live,
            Err(problem) => {
                give_up(body, expects);
                return Err(problem);
            }
        };
        let end = body.is_none();
        let ExchangeHalves { send, mut recv } = match live.open(head.clone(), end) {
            Ok(exchange) => exchange,
            Err(OpenError::Unavailable | OpenError::Unbound) => {
                lost = Some(live);
                continue;
            }
            Err(error) => {
                give_up(body, expects);
                return Err(not_opened(error));
            }
        };
        let mut upload = body.take().map(|body| Upload::new(body, send));
        match answer(&mut recv, &mut upload, expects, interim.as_deref()).await {
            Ok(answered) => {
                let declined = answered.declined;
                let mut response = respond(context, answered, recv, &head.method, version);
                match upload {
                    // The upload is no longer read, but dropping it would abandon the exchange.
                    Some(upload) if declined => response.body_mut().keep(upload),
                    // The rest of the upload continues in a task and ends with the exchange.
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
                if !(unread && may_repeat(&head.method, error)) {
                    give_up(body, expects);
                    return Err(problem(error));
                }
                debug!(method = %head.method, %error, "the request is sent again");
                last = problem(error);
                if error == ExchangeError::SessionLost {
                    lost = Some(live);
                } else {
                    settle(tunnel, &live).await;
                }
            }
        }
    }
    give_up(body, expects);
    Err(last)
}

fn not_opened(error: OpenError) -> Problem {
    if error == OpenError::Saturated { Problem::Busy } else { Problem::HeadTooLarge }
}

/// Drops the rest of the body, because the daemon answers by itself.
fn give_up(body: Option<RequestBody>, expects: bool) {
    if let Some(body) = body.filter(|_| !expects) {
        linger(body);
    }
}

/// Waits for the final head and sends the body meanwhile. If the visitor `expects` a 100, its body stays unread until the
/// service has sent one (RFC 9110, section 10.1.1). Reading the body makes the edge send the 100. Interim heads go to
/// `interim`, if they can reach the visitor.
async fn answer(
    recv: &mut Box<dyn RecvHalf>,
    upload: &mut Option<Upload>,
    expects: bool,
    interim: Option<&InterimHeads>,
) -> Result<FinalHead, ExchangeError> {
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
                    return Poll::Ready(Ok(FinalHead { head, end, declined: held_back }));
                }
                // The multiplexer lets nothing come before the final head.
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(ExchangeError::Reset(ResetCode::LocalBroken))),
            }
        }
    })
    .await
}

fn problem(error: ExchangeError) -> Problem {
    match error {
        ExchangeError::Reset(ResetCode::LocalRefused) => Problem::ServiceAbsent,
        ExchangeError::Reset(ResetCode::LocalTimeout) => Problem::ServiceSlow,
        ExchangeError::Reset(_) => Problem::ServiceBroke,
        ExchangeError::SessionLost => Problem::Offline,
    }
}
