//! A service in this process: it takes the place of a local server behind a tunnel.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tower_service::Service;
use tracing::debug;

/// Any error of a service or of a body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The buffer of a pipe to the service, in each direction. Only upgrades go through one.
const PIPE: usize = 64 * 1024;

/// The body of a request, as a service gets it. Its parts come as the visitor sends them, and no faster than the service
/// reads.
#[derive(Debug)]
pub struct Body(UnsyncBoxBody<Bytes, BoxError>);

impl Body {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Where a request comes from. Every request to a service in this process has it in its extensions, unless the daemon
/// sent no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VisitorAddress(pub IpAddr);

impl VisitorAddress {
    /// The first address of X-Forwarded-For, which the daemon sets.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get("x-forwarded-for")?.to_str().ok()?;
        text.split(',').next()?.trim().parse().ok().map(Self)
    }
}

/// Why a service in this process gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("the service failed: {0}")]
    Failed(BoxError),
    #[error("the service panicked: {0}")]
    Panicked(String),
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// A service of any type.
trait Call: Send + Sync {
    fn call(&self, request: Request<Body>) -> Answer;
}

struct Tower<S>(S);

impl<S, B> Call for Tower<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> Answer {
        let mut service = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(Body::new))
        })
    }
}

/// A service in this process, such as an axum application.
#[derive(Clone)]
pub struct LocalService {
    call: Arc<dyn Call>,
    /// The folder whose files it serves, if it does that.
    folder: Option<Arc<Path>>,
}

impl LocalService {
    /// Any [`tower::Service`](Service) of HTTP requests. Each request gets a clone of it.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { call: Arc::new(Tower(service)), folder: None }
    }

    /// The same, as the service of the files in this folder.
    #[cfg(feature = "files")]
    pub(crate) fn of_folder(self, folder: Arc<Path>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Answers a request. A panic of the service becomes an error.
    pub(crate) async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, ServiceError> {
        if let Some(visitor) = VisitorAddress::of(request.headers()) {
            request.extensions_mut().insert(visitor);
        }
        let mut answer = contained(|| self.call.call(request))?;
        poll_fn(|cx| match contained(|| answer.as_mut().poll(cx)) {
            Ok(polled) => polled.map_err(ServiceError::Failed),
            Err(panicked) => Poll::Ready(Err(panicked)),
        })
        .await
    }

    /// An HTTP/1.1 connection to the service, for requests that leave HTTP.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(PIPE);
        let service = self.clone();
        tokio::spawn(async move {
            let serve = service_fn(move |request: Request<Incoming>| {
                let service = service.clone();
                async move { service.call(request.map(Body::new)).await }
            });
            let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(far), serve);
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a connection to the service in this process ended: {error}");
            }
        });
        near
    }
}

/// Runs code of the service. Its panic becomes an error.
pub(crate) fn contained<T>(code: impl FnOnce() -> T) -> Result<T, ServiceError> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| ServiceError::Panicked(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

impl fmt::Debug for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalService")
    }
}

/// For messages: what it is.
impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => write!(f, "the files in {}", folder.display()),
            None => f.write_str("the service in this process"),
        }
    }
}

/// Services are the same if they are clones, or serve the same folder.
impl PartialEq for LocalService {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.call, &other.call) || (self.folder.is_some() && self.folder == other.folder)
    }
}

impl Eq for LocalService {}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_visitor_is_the_first_address() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(text));
            VisitorAddress::of(&headers).map(|VisitorAddress(ip)| ip.to_string())
        };
        assert_eq!(of("2001:db8::1, 10.0.0.1").as_deref(), Some("2001:db8::1"));
        assert_eq!(of("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(of("somebody"), None);
        assert_eq!(VisitorAddress::of(&HeaderMap::new()), None);
    }
}
