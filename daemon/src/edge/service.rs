//! One request: whose it is, and who answers it.

use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use http::header::{ALT_SVC, CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::{Answer, Body};
use super::forward::forward;
use super::linger::linger;
use super::page::{Problem, page};
use super::request::RequestBody;
use super::upgrade::Upgrade;
use crate::admin;
use crate::daemon::Daemon;
use crate::places::Place;
use crate::router::{Route, route};
use crate::tunnels;

/// A connection's other side.
#[derive(Debug)]
pub struct Visitor {
    /// The daemon that it talks to.
    pub daemon: Arc<Daemon>,
    peer: Peer,
    /// How many requests have come.
    requests: AtomicU64,
    /// How many of them are answered to the end.
    answered: AtomicU64,
    /// That it has asked to leave HTTP/1.1, and has no answer or has left.
    upgrading: AtomicBool,
    /// Its place among the public connections.
    _place: Place,
    /// That it is waited for, also while it is no longer HTTP.
    _token: TaskTrackerToken,
}

/// Where a visitor is.
#[derive(Debug)]
pub enum Peer {
    /// At one address for as long as its connection lasts.
    Fixed(IpAddr),
    /// Wherever its QUIC connection has migrated to.
    Moving(quinn::Connection),
}

impl Visitor {
    /// The other side of a fresh connection.
    pub fn new(daemon: Arc<Daemon>, peer: Peer, place: Place) -> Self {
        let (requests, answered, token) = (AtomicU64::new(0), AtomicU64::new(0), daemon.visitors.token());
        let upgrading = AtomicBool::new(false);
        Self { daemon, peer, requests, answered, upgrading, _place: place, _token: token }
    }

    /// Its address now.
    pub fn address(&self) -> IpAddr {
        match &self.peer {
            Peer::Fixed(address) => *address,
            Peer::Moving(connection) => connection.remote_address().ip().to_canonical(),
        }
    }

    /// Whether a request has come.
    pub fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether it is about to leave HTTP/1.1, as far as one can know.
    pub fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Relaxed)
    }

    /// Resolves if no request comes in the time that a head may take, or that a daemon that stops has: the connection is
    /// silent, and what has not even begun to speak HTTP/2 can't be told to finish.
    pub async fn never_asked(&self) {
        let limit = self.daemon.config().limits.header_timeout;
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            () = self.daemon.shutdown.first_request() => {}
        }
        if self.has_asked() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once nothing has been under way for as long as an idle connection may last.
    pub async fn idle(&self) {
        let mut before = None;
        loop {
            let (requests, answered) = (self.requests.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed));
            if before == Some(requests) && requests == answered {
                return;
            }
            before = Some(requests);
            let limit = self.daemon.config().limits.header_timeout;
            tokio::time::sleep(limit).await;
        }
    }

    /// Counts a request that is over; without a status, its visitor left before there was an answer.
    pub(super) fn answered(&self, status: Option<StatusCode>, began: Instant) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(status) = status {
            self.daemon.metrics.answered(status, began);
        }
    }

    /// Answers one request, and counts it.
    pub async fn respond(self: &Arc<Self>, request: Request<RequestBody>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let running = self.daemon.running.ordinary();
        let mut answer = Answer { visitor: self.clone(), began: Instant::now(), status: None, running };
        let (version, is_head) = (request.version(), *request.method() == Method::HEAD);
        // Over HTTP/1.1 it is the connection's only request as long as it has no answer.
        let upgrades = version == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
        if upgrades {
            self.upgrading.store(true, Ordering::Relaxed);
        }
        let mut response = self.answer(request).await;
        if upgrades && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.upgrading.store(false, Ordering::Relaxed);
        }
        if is_head {
            drop_body(&mut response);
        }
        if version != Version::HTTP_3
            && let Some(alternative) = self.daemon.alt_svc()
        {
            response.headers_mut().insert(ALT_SVC, alternative.clone());
        }
        answer.status = Some(response.status());
        response.map(|body| body.counted(answer))
    }

    async fn answer(self: &Arc<Self>, request: Request<RequestBody>) -> Response<Body> {
        let Some(authority) = authority(&request) else { return refuse(Problem::BadRequest, request) };
        match route(&self.daemon.domain, authority.host()) {
            Route::Foreign => refuse(Problem::Misdirected, request),
            Route::Unusable => refuse(Problem::UnknownName, request),
            Route::Base => self.answer_on_base(request),
            Route::Tunnel(name) => {
                let Some(tunnel) = self.daemon.registry.find(&name) else {
                    return refuse(Problem::UnknownName, request);
                };
                match Upgrade::of(&request) {
                    Ok(upgrade) => forward(self, &tunnel, request, authority, upgrade).await,
                    Err(problem) => refuse(problem, request),
                }
            }
        }
    }

    /// The daemon itself: tunnels connect here, and health checks ask.
    fn answer_on_base(&self, request: Request<RequestBody>) -> Response<Body> {
        let path = request.uri().path();
        if path == cok_transport::ws::PATH {
            return tunnels::upgrade(&self.daemon, request, self.address());
        }
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(response) = admin::health(&self.daemon, path, admin::Asker::Public)
        {
            return response;
        }
        refuse(Problem::NoPage, request)
    }
}

/// Leaves of a response to HEAD what belongs to it (RFC 9110, section 9.3.2): over HTTP/2 the edge's library would send
/// the body.
fn drop_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0)
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::empty();
}

/// The page for a problem, to a visitor whose body nobody wants.
fn refuse(problem: Problem, request: Request<RequestBody>) -> Response<Body> {
    let response = page(problem, request.headers());
    if !request.headers().contains_key(EXPECT) {
        linger(request.into_body());
    }
    response
}

/// The authority that a request is for (RFC 9112, section 3.2; RFC 9113, section 8.3.1); `None` if there is none, or
/// more than one.
fn authority(request: &Request<RequestBody>) -> Option<Authority> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return None;
    }
    // An absolute target, and HTTP/2's :authority, stand above Host.
    let authority = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::from_str(host.to_str().ok()?).ok()?,
        (None, None) => return None,
    };
    (!authority.as_str().contains('@') && !authority.host().is_empty()).then_some(authority)
}
