//! Serves the files of a folder, for GET and HEAD: ranges, conditional requests, index pages and listings.
//!
//! No path leads out of the folder, be it by `..`, by encoding or by a symbolic link: cap-std opens each path beneath the
//! folder (openat2 on Linux). Names that begin with a dot are not served either, nor is a link to one. Each request
//! opens the folder again, so a build may replace it.

mod body;
mod conditions;
mod listing;
mod place;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tower_service::Service;
use tracing::debug;

use self::body::FileBody;
use self::conditions::{Outcome, Version};
use self::place::{Found, OpenFile};
use crate::service::{Body, BoxError, LocalService};

/// The files of one folder.
#[derive(Clone, Debug)]
struct Folder(Arc<Path>);

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the folder {}: {why}", folder.display())]
pub struct InvalidFolder {
    folder: PathBuf,
    why: String,
}

impl LocalService {
    /// The files of a folder, for GET and HEAD. Nothing outside of it is served, and no name that begins with a dot.
    pub fn folder(path: &Path) -> Result<Self, InvalidFolder> {
        let folder = Folder::new(path)?;
        let path = folder.0.clone();
        Ok(Self::new(folder).of_folder(path))
    }
}

impl Service<Request<Body>> for Folder {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let folder = self.clone();
        Box::pin(async move { folder.answer(request).await })
    }
}

impl Folder {
    /// A folder that is there.
    fn new(folder: &Path) -> Result<Self, InvalidFolder> {
        let invalid = |why: String| InvalidFolder { folder: folder.to_owned(), why };
        // The program may change its working directory.
        let path = std::path::absolute(folder).map_err(|error| invalid(error.to_string()))?;
        match std::fs::read_dir(&path) {
            Ok(_) => Ok(Self(path.into())),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(invalid("it is no folder; to serve one file, name its folder".to_owned()))
            }
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    /// Answers a request. Fails if the folder or a file in it cannot be read at this time.
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "This address has files, which can only be read.\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        let (folder, path) = (self.0.clone(), request.uri().path().to_owned());
        let found = tokio::task::spawn_blocking(move || place::find(&folder, &path)).await?;
        let mut response = match found.map_err(|error| format!("cannot read in {}: {error}", self.0.display()))? {
            Found::File(file) => send(file, request.headers(), is_head).await?,
            Found::Listing(page) => listed(page),
            Found::Folder => to_folder(request.uri()),
            Found::Nothing(why) => {
                debug!(path = request.uri().path(), "no such file: {why}");
                text(StatusCode::NOT_FOUND, "There is no such file here.\n")
            }
        };
        // Files change while somebody works on them, so browsers ask each time. The answer is then mostly a short 304.
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(if is_head { without_body(response) } else { response })
    }
}

/// Answers with a file, with a range of it, or with what the request's conditions ask for.
async fn send(file: OpenFile, asked: &HeaderMap, is_head: bool) -> io::Result<Response<Body>> {
    let version = Version::of(&file.metadata, SystemTime::now());
    let length = file.metadata.len();
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(tag) = version.tag() {
        headers.insert(ETAG, tag);
    }
    if let Some(date) = version.date() {
        headers.insert(LAST_MODIFIED, date);
    }
    let range = match conditions::judge(asked, &version, length, is_head) {
        Outcome::Whole => 0..length,
        Outcome::Part(range) => {
            let part = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            headers.insert(CONTENT_RANGE, value(part)?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
        Outcome::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Outcome::Failed => return Ok(text(StatusCode::PRECONDITION_FAILED, "The file has changed.\n")),
        Outcome::Unsatisfiable => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "The file has no such range.\n");
            response.headers_mut().insert(CONTENT_RANGE, value(format!("bytes */{length}"))?);
            return Ok(response);
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, value(file.kind())?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if !is_head {
        *response.body_mut() = Body::new(FileBody::open(file.file, range).await?);
    }
    Ok(response)
}

/// Sends the visitor to the same address with a slash, so that relative links work. It is relative itself: a proxy before
/// the daemon may have another name.
fn to_folder(uri: &http::Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = text(StatusCode::TEMPORARY_REDIRECT, "This is a folder.\n");
    if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn listed(page: String) -> Response<Body> {
    let mut response = with_text(StatusCode::OK, "text/html; charset=utf-8", page);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(listing::POLICY));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    with_text(status, "text/plain; charset=utf-8", text)
}

fn with_text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let text = text.into();
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    *response.body_mut() = Body::new(Full::new(text));
    response
}

fn without_body(mut response: Response<Body>) -> Response<Body> {
    *response.body_mut() = empty();
    response
}

fn empty() -> Body {
    Body::new(Empty::new())
}

fn value(text: impl TryInto<HeaderValue, Error = http::header::InvalidHeaderValue>) -> io::Result<HeaderValue> {
    text.try_into().map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
