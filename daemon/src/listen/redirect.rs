//! The redirect from plain HTTP to HTTPS.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Listen;
use super::arrivals::enter;
use super::tcp::accept_or;
use crate::edge::{Route, route};
use crate::names::PublicAddress;
use crate::own_answers::mark;

/// The longest head of a request, in bytes. Browsers send cookies here as well.
const LONGEST_HEAD: usize = 32 * 1024;

/// Redirects plain HTTP to HTTPS at `address`. Runs until it is dropped.
pub(crate) async fn serve_http(listen: Arc<Listen>, listener: TcpListener, address: PublicAddress) {
    let connections = listen.admission.connections.clone();
    let connected = |mut stream, peer| {
        let Some(entry) = enter(&listen, peer) else { return };
        listen.metrics.arrivals.connections.inc();
        let (listen, visitor, address) = (listen.clone(), listen.drain.visitor(), address.clone());
        tokio::spawn(async move {
            let _visitor = visitor;
            let limit = listen.config().header_timeout;
            let admitted = timeout(limit, entry.admit(&listen, &mut stream, peer)).await;
            let Ok(Some((permit, peer))) = admitted else { return };
            let service = service_fn(|request: Request<Incoming>| {
                let response = redirect(&address, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            // A redirected visitor needs this connection no more.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limit)
                .max_buf_size(LONGEST_HEAD)
                .max_header_size(LONGEST_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let result = tokio::select! {
                result = connection => result,
                // The head has half of it, and the answer the rest.
                () = sleep(limit * 2) => Ok(()),
                () = listen.drain.first_request() => Ok(()),
                () = permit.member().is_shed() => Ok(()),
            };
            if let Err(error) = result {
                debug!(%peer, %error, "connection ended");
            }
        });
    };
    accept_or(listener, move || connections.free_descriptors(), connected).await;
}

/// The redirect for a request. 308 keeps the method and the body (RFC 9110, section 15.4.9). Only our own names are
/// redirected.
fn redirect(address: &PublicAddress, request: &Request<Incoming>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    // A permanent redirect may be kept, as those of other servers are.
    mark(response.headers_mut());
    response.headers_mut().remove(CACHE_CONTROL);
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = request.uri().authority().cloned().or(named) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let port = address.suffix();
    if !matches!(route(&address.domain, authority.host()), Route::Foreign)
        && let Ok(location) = HeaderValue::try_from(format!("https://{}{port}{target}", authority.host()))
    {
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
