//! Sends a request into its tunnel: one attempt after the other, until there is a response. `retry` chooses the session,
//! `respond` makes the response.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_http::expects_continue;
use cok_http::hop_by_hop::strip_request;
use cok_proto::{RequestHead, ResetCode, ResponseHead, Scheme, Target};
use cok_transport::{ExchangeError, ExchangeHalves, OpenError, Received, RecvHalf};
use http::header::{EXPECT, HOST, HeaderMap};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::access::admit;
use super::body::Body;
use super::claims::is_dropped;
use super::context::Context;
use super::grpc::is_grpc;
use super::headers::{add_via, is_loop, join_cookies, mark_loop, set_forwarded};
use super::interim::InterimHeads;
use super::known::Known;
use super::linger::linger;
use super::pace;
use super::pages::{Problem, Reader, page};
use super::proxied::is_trusted;
use super::request::RequestBody;
use super::respond::{FinalHead, respond, respond_to_upgrade};
use super::response_judge::{Content, judge_final, judge_interim};
use super::retry::{MAX_ATTEMPTS, find_live, may_repeat, settle};
use super::upgrade::{Sending, Upgrade};
use super::upload::Upload;
use super::visitor::Visitor;
use crate::exchanges::{End, Exchange, Full, Leash};
use crate::observe::Limit;
use crate::tunnels::{Live, Tunnel};

/// How long a service may take to send a 100 before its visitor's body goes on (RFC 9110, section 10.1.1). Many services send
/// none; curl waits for the same time.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// How long the place of an exchange that is given up takes to become free: first, and in all by this factor.
const ROOM_AFTER: Duration = Duration::from_millis(1);
const ROOM_WAITS: u32 = 1000;

/// Sends a request into its tunnel and returns the response. `target` replaces the one in the request, if the HTTP library
/// could not take it.
pub(super) async fn forward(
    context: &mut Context,
    tunnel: &Arc<Tunnel>,
    mut request: Box<Request<RequestBody>>,
    known: &Known,
    target: Option<Bytes>,
) -> Response<Body> {
    context.begin_trace(request.headers());
    if is_loop(request.headers(), &known.authority) {
        let response = page(Problem::Loop, reader(&request, known));
        let held_back = expects_continue(request.headers());
        give_up(Some(request.into_body()), held_back);
        return response;
    }
    let exchange = match enter(context, tunnel, &mut request) {
        Ok(exchange) => exchange,
        Err(problem) => {
            let response = page(problem, reader(&request, known));
            let held_back = expects_continue(request.headers());
            give_up(Some(request.into_body()), held_back);
            return response;
        }
    };
    let upgrade = Upgrade::of(&request);
    let on_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut *request));
    let (parts, body) = request.into_parts();
    let (interim, version) = (body.interim(), parts.version);
    let target = target.and_then(|bytes| Target::from_bytes(bytes).ok());
    let mut head = prepare(&context.visitor, parts, known, target, &upgrade);
    context.write_trace(&mut head.headers);
    let head = Arc::new(head);
    // An extended CONNECT has raw bytes where others have a body.
    let body = (!body.is_end_stream() && !upgrade.is_connect()).then_some(body);
    let outgoing = Outgoing { head: head.clone(), version, body, interim };
    let result = match on_upgrade {
        Some(on_upgrade) => send_upgrade(context, tunnel, outgoing, &upgrade, on_upgrade).await,
        None => send(context, tunnel, outgoing).await,
    };
    result.unwrap_or_else(|problem| {
        let problem = match exchange.ended() {
            Some(End::Stalled) => Problem::UploadSlow,
            Some(End::Evicted) => Problem::Busy,
            None => problem,
        };
        let hidden = problem == Problem::Offline && context.visitor.edge.config().hide_names;
        page(if hidden { Problem::UnknownName } else { problem }, Reader::of(&head))
    })
}

fn reader<'a, B>(request: &'a Request<B>, known: &'a Known) -> Reader<'a> {
    Reader::new(request.method(), request.headers(), Some(&known.authority))
}

/// The longest body in bytes that the edge's library and the tunnel's queue hold of an upload that the tunnel does not take.
fn upload_room(version: Version) -> usize {
    const KIB: usize = 1024;
    match version {
        Version::HTTP_3 => 1024 * KIB,
        Version::HTTP_2 => 320 * KIB,
        _ => 128 * KIB,
    }
}

/// A place in the tunnel for a request that has just come.
fn enter(
    context: &mut Context,
    tunnel: &Arc<Tunnel>,
    request: &mut Request<RequestBody>,
) -> Result<Arc<Exchange>, Problem> {
    let visitor = &context.visitor;
    let leash = request.extensions_mut().remove::<Leash>();
    let leash = leash.unwrap_or_else(|| Leash::of_connection(&visitor.end));
    // A proxy that does not say whom it saw carries many visitors.
    let (address, has_share) = (context.address.unwrap_or_else(|| visitor.address()), context.address.is_some());
    let (version, exchanges) = (request.version(), &visitor.edge.exchanges);
    let (places, most) = (tunnel.places(exchanges), visitor.edge.tunnels.max_exchanges());
    let entered = exchanges.enter(places, address, (most, has_share), leash, upload_room(version));
    let exchange = entered.map_err(|full| {
        let share = full == Full::Share;
        visitor.edge.observers.metrics.refusals.beyond(if share { Limit::VisitorShare } else { Limit::Buffered });
        if share { Problem::Share } else { Problem::Busy }
    })?;
    if version >= Version::HTTP_2 && is_grpc(request.headers()) {
        exchange.set_long_lived();
    }
    context.exchange = Some(exchange.clone());
    context.set_routed();
    Ok(exchange)
}

/// Opens the exchange in the tunnel. A full tunnel gives up an exchange that stands still.
async fn open(
    context: &mut Context,
    live: &Arc<Live>,
    head: &Arc<RequestHead>,
    end: bool,
) -> Result<ExchangeHalves, OpenError> {
    let key = context.key.of(live).clone();
    let renamed = context.renamed(head);
    let head = renamed.as_ref().unwrap_or(head);
    let Some(exchange) = &context.exchange else { return pace::open(context, live, &key, head.clone(), end) };
    if !exchange.count_for(live.key_use(&context.visitor.edge.exchanges, &key), key.limits.exchanges) {
        return Err(OpenError::Saturated);
    }
    let mut wait = ROOM_AFTER;
    loop {
        match pace::open(context, live, &key, head.clone(), end) {
            Err(OpenError::Saturated) if wait < ROOM_AFTER * ROOM_WAITS => {
                if wait == ROOM_AFTER && !exchange.make_room() {
                    return Err(OpenError::Saturated);
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            opened => return opened.map(|halves| exchange.attach(halves)),
        }
    }
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
fn prepare(
    visitor: &Visitor,
    parts: http::request::Parts,
    known: &Known,
    target: Option<Target>,
    upgrade: &Upgrade,
) -> RequestHead {
    let mut headers = parts.headers;
    let config = visitor.edge.config();
    let trusted = is_trusted(known.peer, &config.trusted_proxies);
    strip_request(&mut headers, |name| {
        // An expectation has no meaning over HTTP/1.0 (RFC 9110, section 10.1.1). The authority takes the place of Host.
        *name == HOST || (*name == EXPECT && parts.version == Version::HTTP_10) || is_dropped(name, trusted)
    });
    if matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        join_cookies(&mut headers);
    }
    set_forwarded(&mut headers, known, &config.trusted_proxies);
    mark_loop(&mut headers, known);
    if config.via {
        add_via(&mut headers, parts.version, visitor.edge.domain.as_str());
    }
    upgrade.prepare(&mut headers);
    let target =
        target.unwrap_or_else(|| parts.uri.into_parts().path_and_query.map_or_else(Target::root, Target::from));
    let method = if upgrade.is_connect() { Method::GET } else { parts.method };
    RequestHead { method, target, scheme: Scheme::Https, authority: known.authority.clone(), headers }
}

/// Sends an upgrade. It is sent again only while no session has taken it: after that its service may have begun to speak.
async fn send_upgrade(
    context: &mut Context,
    tunnel: &Arc<Tunnel>,
    request: Outgoing,
    upgrade: &Upgrade,
    on_upgrade: OnUpgrade,
) -> Result<Response<Body>, Problem> {
    let Outgoing { head, version, body, .. } = request;
    let mut lost: Option<Arc<Live>> = None;
    for _ in 0..MAX_ATTEMPTS {
        let live = match find_live(&context.visitor, tunnel, lost.as_deref()).await {
            Ok(live) => live,
            Err(problem) => {
                give_up(body, false);
                return Err(problem);
            }
        };
        let admitted = match admit(&context.visitor, &head, &live) {
            Ok(head) => head,
            Err(response) => {
                give_up(body, false);
                return Ok(*response);
            }
        };
        let ExchangeHalves { send, mut recv } = match open(context, &live, &admitted, body.is_none()).await {
            Ok(exchange) => exchange,
            Err(OpenError::Unavailable | OpenError::Unbound) => {
                lost = Some(live);
                continue;
            }
            Err(error) => {
                give_up(body, false);
                return Err(not_opened(context, error));
            }
        };
        context.set_sent(&live);
        let mut sending = Sending::new(body, send);
        let answered = {
            // The body is not the answer's business here: what sends it is still needed behind it.
            let mut no_upload = Uploading::default();
            let asked = Asked { method: &head.method, upgrade: true, interim: None };
            let mut answer = pin!(answer(&mut recv, &mut no_upload, &asked));
            poll_fn(|cx| {
                sending.poll(cx);
                answer.as_mut().poll(cx)
            })
            .await
        };
        return match answered {
            Ok(answered) if answered.head.is_switch() => {
                respond_to_upgrade(context, answered, upgrade, on_upgrade, sending.into_send(), recv, version)
            }
            Ok(answered) => {
                let response = respond(context, answered, recv, version);
                sending.decline();
                Ok(response)
            }
            Err(error) => {
                context.set_failed(error);
                sending.give_up();
                Err(problem(error))
            }
        };
    }
    give_up(body, false);
    Err(Problem::Offline)
}

/// Sends the request until a response comes or nothing is left to try.
async fn send(context: &mut Context, tunnel: &Arc<Tunnel>, request: Outgoing) -> Result<Response<Body>, Problem> {
    let Outgoing { head, version, mut body, interim } = request;
    let mut lost: Option<Arc<Live>> = None;
    let mut last = Problem::Offline;
    let held_back = body.is_some() && expects_continue(&head.headers);
    let mut uploading = Uploading { held_back, ..Uploading::default() };
    let asked = Asked { method: &head.method, upgrade: false, interim: interim.as_deref() };
    for _ in 0..MAX_ATTEMPTS {
        let live = match find_live(&context.visitor, tunnel, lost.as_deref()).await {
            Ok(live) => live,
            Err(problem) => {
                give_up(body, uploading.held_back);
                return Err(problem);
            }
        };
        let admitted = match admit(&context.visitor, &head, &live) {
            Ok(head) => head,
            Err(response) => {
                give_up(body, uploading.held_back);
                return Ok(*response);
            }
        };
        let end = body.is_none();
        let ExchangeHalves { send, mut recv } = match open(context, &live, &admitted, end).await {
            Ok(exchange) => exchange,
            Err(OpenError::Unavailable | OpenError::Unbound) => {
                lost = Some(live);
                continue;
            }
            Err(error) => {
                give_up(body, uploading.held_back);
                return Err(not_opened(context, error));
            }
        };
        context.set_sent(&live);
        uploading.upload = body.take().map(|body| Upload::new(body, send));
        match answer(&mut recv, &mut uploading, &asked).await {
            Ok(answered) => {
                let declined = answered.declined;
                let mut response = respond(context, answered, recv, version);
                match uploading.upload {
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
                // The client breaks off in turn, which says nothing of its service.
                if uploading.is_broken {
                    return Err(Problem::UploadBroken);
                }
                context.set_failed(error);
                let upload = uploading.upload.take();
                let unread = end || upload.as_ref().is_some_and(Upload::is_unread);
                body = upload.map(Upload::into_rest);
                if !(unread && may_repeat(&head.method, error)) {
                    give_up(body, uploading.held_back);
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
    give_up(body, uploading.held_back);
    Err(last)
}

fn not_opened(context: &Context, error: OpenError) -> Problem {
    if error != OpenError::Saturated {
        return Problem::HeadTooLarge;
    }
    context.visitor.edge.observers.metrics.refusals.beyond(Limit::Exchanges);
    Problem::Busy
}

/// Drops the rest of the body, because the daemon answers by itself.
fn give_up(body: Option<RequestBody>, held_back: bool) {
    if let Some(body) = body.filter(|_| !held_back) {
        linger(body);
    }
}

/// What decides which responses are valid, and which of them reach the visitor.
struct Asked<'a> {
    method: &'a Method,
    upgrade: bool,
    /// Where interim heads go, if they can reach the visitor.
    interim: Option<&'a InterimHeads>,
}

/// A request's body on its way, if there is one.
#[derive(Debug, Default)]
struct Uploading {
    upload: Option<Upload>,
    /// Its visitor may wait for a 100.
    held_back: bool,
    /// The visitor broke it off.
    is_broken: bool,
}

/// Waits for the final head and sends the body meanwhile. A body is held back while its visitor may wait for a 100. It stays
/// unread until the service has sent one or has been silent for a while. Reading it makes the edge's library send the 100.
async fn answer(
    recv: &mut Box<dyn RecvHalf>,
    uploading: &mut Uploading,
    asked: &Asked<'_>,
) -> Result<FinalHead, ExchangeError> {
    let Uploading { upload, held_back, is_broken } = uploading;
    let mut patience = pin!(held_back.then(|| tokio::time::sleep(CONTINUE_AFTER)));
    let mut without_body: Option<FinalHead> = None;
    poll_fn(|cx| {
        if *held_back
            && without_body.is_none()
            && patience.as_mut().as_pin_mut().is_some_and(|patience| patience.poll(cx).is_ready())
        {
            *held_back = false;
            if let Some(interim) = asked.interim {
                interim.send(ResponseHead::new(StatusCode::CONTINUE, HeaderMap::new()));
            }
        }
        loop {
            if !*held_back
                && let Some(going) = upload
                && going.poll(cx).is_ready()
                && let Some(done) = upload.take()
            {
                *is_broken = done.is_broken();
                linger(done.into_rest());
            }
            match ready!(recv.poll_recv(cx))? {
                Received::Head { mut head, .. } if head.is_interim() => {
                    let continues = head.status == StatusCode::CONTINUE;
                    // A 100 is for a visitor that still waits. Over HTTP/1.1 and HTTP/2 the edge's library can send no other
                    // interim head, and sends the 100 by itself.
                    if let Some(interim) = asked.interim.filter(|_| *held_back || !continues) {
                        judge_interim(&mut head);
                        interim.send(head);
                    }
                    if continues {
                        *held_back = false;
                    }
                }
                Received::Head { mut head, end } => {
                    let content = judge_final(&mut head, asked.method, asked.upgrade).map_err(broken)?;
                    let answered = FinalHead { head, content, end, declined: *held_back };
                    if end && let Content::Sized(_) = content {
                        return Poll::Ready(Err(broken("less body than its content-length")));
                    }
                    if end || content != Content::None {
                        return Poll::Ready(Ok(answered));
                    }
                    // The head would be a whole response, so it waits for the end.
                    without_body = Some(answered);
                }
                // The multiplexer lets nothing come before the final head.
                Received::Data { data, .. } if without_body.is_none() || !data.is_empty() => {
                    return Poll::Ready(Err(broken("a body where there is none")));
                }
                Received::Data { end: false, .. } => {}
                Received::Data { .. } | Received::Trailers(_) => {
                    let answered = without_body.take().map(|answered| FinalHead { end: true, ..answered });
                    return Poll::Ready(answered.ok_or_else(|| broken("trailers before a head")));
                }
            }
        }
    })
    .await
}

/// A client broke a rule of HTTP.
fn broken(violation: impl std::fmt::Display) -> ExchangeError {
    debug!(%violation, "a client broke a rule of HTTP");
    ExchangeError::Reset(ResetCode::LocalBroken)
}

fn problem(error: ExchangeError) -> Problem {
    match error {
        ExchangeError::Reset(ResetCode::LocalRefused) => Problem::ServiceAbsent,
        ExchangeError::Reset(ResetCode::LocalTimeout) => Problem::ServiceSlow,
        ExchangeError::Reset(ResetCode::LocalUnresolved) => Problem::ServiceUnresolved,
        ExchangeError::Reset(ResetCode::LocalUntrusted) => Problem::ServiceUntrusted,
        ExchangeError::Reset(ResetCode::LocalMismatch) => Problem::ServiceMismatch,
        ExchangeError::Reset(ResetCode::LocalInvalid) => Problem::ServiceInvalid,
        ExchangeError::Reset(ResetCode::TooLarge) => Problem::ResponseTooLarge,
        ExchangeError::Reset(_) => Problem::ServiceBroke,
        ExchangeError::SessionLost => Problem::Offline,
    }
}
