//! Keys over the admin API, in JSON, at these paths and beneath `/api/v1`:
//!
//! | request | does |
//! |---|---|
//! | `GET /keys` | lists all |
//! | `POST /keys` | makes one, and shows it once |
//! | `GET /keys/<id or name>` | shows one |
//! | `PATCH /keys/<id or name>` | changes what it allows |
//! | `DELETE /keys/<id or name>` | revokes it |
//! | `DELETE /keys/<id or name>/record` | removes it from the list, if it was revoked or has expired |
//! | `POST /keys/<id or name>/rotate` | gives it a new secret, and shows that once |

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::{Admin, not_allowed};
use crate::admission::wire::{Changes, KeyView, NewKey, Rotation};
use crate::admission::{KeyBook, KeyError};

/// The path of all keys. Those of single keys begin with it.
pub(crate) const KEYS: &str = "/keys";

/// What follows the path of a key that gets a new secret.
const ROTATE: &str = "rotate";
/// What follows the path of a key for its record in the store.
const RECORD: &str = "record";
/// The longest request body in bytes: a key with some hundred patterns.
const LONGEST: usize = 64 * 1024;
/// How long a request body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The path of a key.
pub(crate) fn path_of(key: &str) -> String {
    let mut path = format!("{KEYS}/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(path, "%{byte:02X}");
        }
    }
    path
}

/// The path that gives a key a new secret.
pub(crate) fn rotation_of(key: &str) -> String {
    format!("{}/{ROTATE}", path_of(key))
}

/// The path of a key's record in the store.
pub(crate) fn record_of(key: &str) -> String {
    format!("{}/{RECORD}", path_of(key))
}

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    All,
    One(String),
    Rotation(String),
    Record(String),
}

impl Asked {
    /// `None` if the path is about something else.
    pub(super) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(KEYS)?;
        if rest.is_empty() || rest == "/" {
            return Some(Self::All);
        }
        match rest.strip_prefix('/')?.split_once('/') {
            None => decoded(rest.strip_prefix('/')?).map(Self::One),
            Some((key, ROTATE)) => decoded(key).map(Self::Rotation),
            Some((key, RECORD)) => decoded(key).map(Self::Record),
            Some(_) => None,
        }
    }
}

/// A segment of a path without its percent encoding.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

pub(super) async fn answer(admin: &Admin, asked: &Asked, request: Request<Incoming>) -> Response<String> {
    let table = &admin.admission.keys;
    let book = KeyBook { store: &*admin.store, configured: table.configured(), table: Some(table) };
    let method = request.method().clone();
    match (asked, &method) {
        (Asked::All, &Method::GET) => json(StatusCode::OK, book.list().await),
        (Asked::All, &Method::POST) => {
            let made = match read::<Changes>(request).await {
                Ok(new) => book.create(&new).await,
                Err(error) => Err(error),
            };
            json(StatusCode::CREATED, made.inspect(|made| log_new(made, "made")))
        }
        (Asked::One(key), &Method::GET) => json(StatusCode::OK, book.show(key).await),
        (Asked::One(key), &Method::PATCH) => {
            let changed = match read::<Changes>(request).await {
                Ok(changes) => book.edit(key, &changes).await,
                Err(error) => Err(error),
            };
            json(StatusCode::OK, changed.inspect(|key| log(key, "changed")))
        }
        (Asked::One(key), &Method::DELETE) => {
            json(StatusCode::OK, book.revoke(key).await.inspect(|key| log(key, "revoked")))
        }
        (Asked::Rotation(key), &Method::POST) => {
            let rotated = match read::<Rotation>(request).await {
                Ok(rotation) => book.rotate(key, rotation).await,
                Err(error) => Err(error),
            };
            json(StatusCode::OK, rotated.inspect(|key| log_new(key, "rotated")))
        }
        (Asked::Record(key), &Method::DELETE) => {
            json(StatusCode::OK, book.delete(key).await.inspect(|key| log(key, "deleted")))
        }
        (Asked::All, _) => not_allowed("GET, POST"),
        (Asked::One(_), _) => not_allowed("GET, PATCH, DELETE"),
        (Asked::Rotation(_), _) => not_allowed("POST"),
        (Asked::Record(_), _) => not_allowed("DELETE"),
    }
}

fn log(key: &KeyView, done: &'static str) {
    let (id, name) = (&key.id, &key.name);
    info!(event = "key_changed", id, name, done, "key {id} ({name:?}) {done}");
}

fn log_new(new: &NewKey, done: &'static str) {
    log(&new.key, done);
}

/// Reads a request body. An empty one has only defaults.
async fn read<T: DeserializeOwned + Default>(request: Request<Incoming>) -> Result<T, KeyError> {
    let invalid = |message: String| KeyError::Invalid { message };
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), LONGEST).collect()).await;
    let body = body.map_err(|_| invalid("the request's body takes too long".to_owned()))?;
    let body = body.map_err(|error| invalid(format!("the request's body: {error}")))?.to_bytes();
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| invalid(format!("the request's body: {error}")))
}

fn json<T: Serialize>(status: StatusCode, answer: Result<T, KeyError>) -> Response<String> {
    let (status, body) = match answer {
        Ok(value) => (status, serde_json::to_string(&value)),
        Err(error) => (status_of(&error), with_message(&error)),
    };
    let (status, body) = match body {
        Ok(body) => (status, body + "\n"),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The error for programs, with its message for people.
fn with_message(error: &KeyError) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Said<'a> {
        error: &'a KeyError,
        message: String,
    }
    serde_json::to_string(&Said { error, message: error.to_string() })
}

fn status_of(error: &KeyError) -> StatusCode {
    match error {
        KeyError::NotFound { .. } => StatusCode::NOT_FOUND,
        KeyError::Ambiguous { .. }
        | KeyError::Configured { .. }
        | KeyError::Revoked { .. }
        | KeyError::Live { .. }
        | KeyError::NameTaken { .. } => StatusCode::CONFLICT,
        KeyError::Invalid { .. } => StatusCode::BAD_REQUEST,
        KeyError::Failed { .. } => StatusCode::SERVICE_UNAVAILABLE,
        KeyError::Unknown { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_any_key() {
        for key in ["abcdefghij01", "a laptop", "a/b?c%", "ü"] {
            assert_eq!(Asked::of(&path_of(key)), Some(Asked::One(key.to_owned())));
            assert_eq!(Asked::of(&rotation_of(key)), Some(Asked::Rotation(key.to_owned())));
            assert_eq!(Asked::of(&record_of(key)), Some(Asked::Record(key.to_owned())));
        }
        assert_eq!(Asked::of("/keys"), Some(Asked::All));
        for other in
            ["/key", "/keysx", "/keys/a/b", "/keys/a/rotate/b", "/keys/%", "/keys/%f", "/keys/%ff", "/keys/%zz"]
        {
            assert_eq!(Asked::of(other), None, "{other}");
        }
    }
}
