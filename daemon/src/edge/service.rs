//! One request: whose it is, and who answers it.

use std::sync::Arc;

use bytes::Bytes;
use cok_http::expects_continue;
use http::header::{ACCEPT, ALT_SVC, CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tracing::debug;

use super::body::Body;
use super::context::Context;
use super::forward::forward;
use super::http1::{Judged, unwrap};
use super::judge::judge;
use super::known::Known;
use super::limited::{admit_to_tunnel, admit_visitor, too_many};
use super::linger::linger;
use super::pages::{Problem, Reader, page};
use super::request::{Doubt, RequestBody};
use super::route::Route;
use super::visitor::Visitor;
use crate::admission::rates::{Exceeded, Whose};
use crate::observe::{Asker, Rate};

/// Answers one request, and counts it. Over HTTP/1.1, `judged` has what the layer under the library has seen of it. The request is
/// boxed, since each future on its way would move it and keep room for it.
pub(super) async fn respond(
    visitor: &Arc<Visitor>,
    request: Box<Request<RequestBody>>,
    judged: Option<Judged>,
) -> Response<Body> {
    let mut context = Context::new(visitor, &request);
    let (version, is_head) = (request.version(), *request.method() == Method::HEAD);
    // Over HTTP/1.1 it is the connection's only request as long as it has no response.
    let upgrades = version == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
    if upgrades {
        visitor.set_upgrading(true);
    }
    let mut response = answer_judged(&mut context, request, judged.as_ref()).await;
    let switches = version == Version::HTTP_11 && response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgrades {
        if !switches {
            visitor.set_upgrading(false);
        }
        if let Some(judged) = judged {
            judged.verdicts.decide(switches);
        }
    }
    if is_head {
        drop_body(&mut response);
    }
    if version != Version::HTTP_3
        && let Some(alternative) = &visitor.edge.alt_svc
    {
        response.headers_mut().insert(ALT_SVC, alternative.clone());
    }
    context.set_head_out(response.status());
    response.map(|body| body.with(context))
}

/// Answers a request, unless it breaks a rule. A fault that its body shows meanwhile is the answer as well.
async fn answer_judged(
    context: &mut Context,
    request: Box<Request<RequestBody>>,
    judged: Option<&Judged>,
) -> Response<Body> {
    let doubt = request.body().doubt();
    let fault = || doubt.as_ref().and_then(Doubt::fault);
    let asked = doubt.as_ref().map(|_| (request.method().clone(), request.headers().get(ACCEPT).cloned()));
    let found = judged.and_then(|judged| judged.seen.fault).or_else(fault);
    let judge_it = || judge(&request, context.visitor.latest().as_deref().map(|known| &known.authority));
    let response = match found.map_or_else(judge_it, Err) {
        Ok(authority) => {
            let known = context.visitor.knows(authority);
            let target = judged.and_then(|judged| judged.seen.target.clone());
            context.set_request(&request, target.as_ref());
            context.note(|record| record.authority = Some(known.authority.clone()));
            let response = answer(context, request, &known, target).await;
            match fault() {
                None => return response,
                Some(fault) => {
                    let (method, accept) = asked.unwrap_or_default();
                    let fields = accept.map(|accept| (ACCEPT, accept)).into_iter().collect();
                    (page(fault.problem(), Reader::new(&method, &fields, None)), fault)
                }
            }
        }
        Err(fault) => (refuse(fault.problem(), None, *request), fault),
    };
    let (mut response, fault) = response;
    debug!(?fault, "the request was refused");
    if let Some(judged) = judged.filter(|_| fault.ends_connection()) {
        judged.verdicts.end();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    context: &mut Context,
    request: Box<Request<RequestBody>>,
    known: &Known,
    target: Option<Bytes>,
) -> Response<Body> {
    let edge = context.visitor.edge.clone();
    // Tunnels connect at the base domain, and no visitor's rate keeps them out.
    if known.route != Route::Base
        && let Err(exceeded) = admit_visitor(context)
    {
        return refuse_for_now(context, exceeded, known, *request);
    }
    match &known.route {
        Route::Foreign => refuse(Problem::Misdirected, None, *request),
        Route::Unusable => refuse(Problem::UnknownName, Some(known), *request),
        Route::Base => answer_on_base(context, *request),
        Route::Tunnel(name) => {
            let hides = edge.config().hide_names;
            let found = edge.tunnels.find(name).filter(|tunnel| !hides || edge.tunnels.may_answer(tunnel));
            let Some(tunnel) = found else {
                return refuse(Problem::UnknownName, Some(known), *request);
            };
            context.set_tunnel(name);
            if let Err(exceeded) = admit_to_tunnel(context, (known, name), &tunnel) {
                return refuse_for_now(context, exceeded, known, *request);
            }
            forward(context, &tunnel, request, known, target).await
        }
    }
}

/// The daemon itself: tunnels connect here, and health checks ask.
fn answer_on_base(context: &mut Context, mut request: Request<RequestBody>) -> Response<Body> {
    let (visitor, path) = (context.visitor.clone(), request.uri().path());
    if path == cok_transport::ws::PATH {
        let response = visitor.edge.tunnels.upgrade(&mut request, visitor.address(), unwrap).map(Body::full);
        context.note(|record| record.is_session = response.status() == StatusCode::SWITCHING_PROTOCOLS);
        return response;
    }
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(response) = visitor.edge.health.answer(path, Asker::Public)
    {
        return response.map(Body::full);
    }
    refuse(Problem::NoPage, None, request)
}

/// Leaves of a response to HEAD what belongs to it (RFC 9110, section 9.3.2): over HTTP/2 the edge's library would send
/// the body.
fn drop_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0)
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.body_mut().clear();
}

/// The page for a problem, with the name of the tunnel if the request is for one. The visitor's body is read and dropped.
fn refuse(problem: Problem, tunnel: Option<&Known>, request: Request<RequestBody>) -> Response<Body> {
    let reader = Reader::new(request.method(), request.headers(), tunnel.map(|known| &known.authority));
    answer_without_body(page(problem, reader), request)
}

/// The answer to a request over a rate.
fn refuse_for_now(
    context: &Context,
    exceeded: Exceeded,
    known: &Known,
    request: Request<RequestBody>,
) -> Response<Body> {
    let rate = match exceeded.whose {
        Whose::Visitor => Rate::VisitorRequests,
        Whose::Tunnel => Rate::TunnelRequests,
        Whose::Key => Rate::KeyRequests,
    };
    context.visitor.edge.observers.metrics.refusals.over(rate);
    let tunnel = matches!(known.route, Route::Tunnel(_)).then_some(&known.authority);
    let reader = Reader::new(request.method(), request.headers(), tunnel);
    answer_without_body(too_many(exceeded, reader), request)
}

fn answer_without_body(response: Response<Body>, request: Request<RequestBody>) -> Response<Body> {
    if !expects_continue(request.headers()) {
        linger(request.into_body());
    }
    response
}
