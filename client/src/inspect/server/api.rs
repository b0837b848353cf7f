//! The inspector's interface, as `client/INSPECTOR.md` describes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_DISPOSITION, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::query::Query;
use super::reply::{self, Reply, failure};
use super::state::State;
use super::{archive, events, guard, page};
use crate::inspect::live::Side;
use crate::inspect::replay::{Edit, NoReplay, Replay};
use crate::inspect::shared::Shared;
use crate::inspect::store::Entry;
use crate::inspect::view::{Detail, MessagePage, ShownBody, Summary, curl, matches, plain};

/// The longest body of a request: an edit with a body of 16 MiB in Base64.
const MAX_EDIT: usize = 24 * 1024 * 1024;
/// The most bytes of a body without its content codings.
const MAX_DECODED: usize = 64 * 1024 * 1024;
/// The most time for the body of a request.
const EDIT_LIMIT: Duration = Duration::from_secs(30);
/// How long a viewer may wait for the end of a replay.
const WAIT_LIMIT: Duration = Duration::from_secs(330);

/// Answers a request.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    if let Err((status, why)) = guard::check_host(request.headers(), shared.address) {
        return failure(status, why);
    }
    let path = request.uri().path().to_owned();
    let Some(path) = path.strip_prefix("/api/v1/") else {
        return match (path.as_str(), request.method()) {
            ("/", &Method::GET | &Method::HEAD) => page::page(),
            ("/", _) => not_allowed("GET, HEAD"),
            _ => failure(StatusCode::NOT_FOUND, "there is no such page"),
        };
    };
    if let Err((status, why)) = guard::check_caller(request.headers(), shared.address, &shared.token) {
        return failure(status, why);
    }
    let query = match Query::parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
    };
    if request.method() == Method::GET {
        shared.load.settled().await;
    }
    let parts: Vec<&str> = path.split('/').collect();
    match (parts.as_slice(), request.method().as_str()) {
        (["state"], "GET") => reply::json(StatusCode::OK, &State::new(&shared)),
        (["events"], "GET") => events::follow(shared, query),
        (["har"], "GET") => archive::archive(shared, query, None),
        (["requests"], "GET") => blocking(move || list(&shared, &query)).await,
        (["requests"], "DELETE") => {
            shared.store.clear();
            reply::json(StatusCode::OK, &State::new(&shared))
        }
        (["state" | "events" | "har"], _) => not_allowed("GET"),
        (["requests"], _) => not_allowed("GET, DELETE"),
        (["requests", id, rest @ ..], method) => {
            let Some(entry) = id.parse().ok().and_then(|id| shared.store.find(id)) else {
                return failure(StatusCode::NOT_FOUND, "there is no such request, or it is not kept any more");
            };
            match (rest, method) {
                (["replay"], "POST") => replay(shared, entry, query, request).await,
                (["replay"], _) => not_allowed("POST"),
                (["har"], "GET") => archive::archive(shared, query, Some(entry.id())),
                (_, "GET") => {
                    let part = rest.join("/");
                    blocking(move || one(&shared, &entry, &part, &query)).await
                }
                _ => not_allowed("GET"),
            }
        }
        _ => failure(StatusCode::NOT_FOUND, "there is no such resource"),
    }
}

/// Answers on a thread that may wait for the disk.
async fn blocking(answer: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    spawn_blocking(answer).await.unwrap_or_else(|_| broken())
}

fn broken() -> Reply {
    failure(StatusCode::INTERNAL_SERVER_ERROR, "the inspector failed; please report this")
}

fn not_allowed(methods: &'static str) -> Reply {
    let mut reply = failure(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this resource");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    reply
}

/// The requests that meet the query's conditions, newest first.
fn list(shared: &Shared, query: &Query) -> Reply {
    let labels = shared.tunnels.labels();
    let state = State::new(shared);
    let before = query.before.unwrap_or(u64::MAX);
    let glances = shared.store.select(0, |entry| (entry.id() < before).then(|| entry.glance()));
    let meant = glances.iter().filter_map(|glance| matches(shared, &query.filter, glance, &labels, query.secrets));
    let mut lines: Vec<Summary> = meant.take(query.limit + 1).collect();
    let more = lines.len() > query.limit;
    lines.truncate(query.limit);
    reply::json(StatusCode::OK, &json!({ "requests": lines, "more": more, "state": state }))
}

/// One request, or a part of it.
fn one(shared: &Shared, entry: &Entry, part: &str, query: &Query) -> Reply {
    match part {
        "" => reply::json(StatusCode::OK, &Detail::new(shared, entry, query.secrets)),
        "messages" => reply::json(StatusCode::OK, &MessagePage::new(entry, query.after, query.limit)),
        "request/body" => body(shared, entry, Side::Request, query),
        "response/body" => body(shared, entry, Side::Response, query),
        "curl" => match curl(shared, entry, query.secrets) {
            Ok(Ok(line)) => reply::bytes("text/plain; charset=utf-8", line),
            Ok(Err(why)) => failure(StatusCode::CONFLICT, &why.to_string()),
            Err(error) => unreadable(&error),
        },
        "request/shown" => shown(shared, entry, Side::Request, query),
        "response/shown" => shown(shared, entry, Side::Response, query),
        _ => failure(StatusCode::NOT_FOUND, "there is no such part of a request"),
    }
}

/// A body as it passed, or without its content codings.
fn body(shared: &Shared, entry: &Entry, side: Side, query: &Query) -> Reply {
    if !query.decoded {
        return entry
            .part(side)
            .read(&shared.store.spool, usize::MAX)
            .map_or_else(|error| unreadable(&error), download);
    }
    match plain(shared, entry, side, &entry.fields(side), MAX_DECODED) {
        Ok(body) if body.is_coded => {
            let why = body.trouble.map(|trouble| trouble.to_string()).unwrap_or_default();
            failure(StatusCode::CONFLICT, &format!("the body cannot be decoded: {why}"))
        }
        Ok(body) => download(body.bytes.into()),
        Err(error) => unreadable(&error),
    }
}

/// A body as people read it.
fn shown(shared: &Shared, entry: &Entry, side: Side, query: &Query) -> Reply {
    match ShownBody::new(shared, entry, side, query.secrets) {
        Ok(shown) => reply::json(StatusCode::OK, &shown),
        Err(error) => unreadable(&error),
    }
}

fn unreadable(error: &std::io::Error) -> Reply {
    failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the body cannot be read: {error}"))
}

/// Bytes that a browser saves and never shows.
fn download(bytes: Bytes) -> Reply {
    let mut reply = reply::bytes("application/octet-stream", bytes);
    reply.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    reply
}

/// Repeats a request. Its number is known at once; with `wait`, the answer is its line in the list once it has ended.
async fn replay(shared: Arc<Shared>, entry: Entry, query: Query, request: Request<Incoming>) -> Reply {
    let body = match timeout(EDIT_LIMIT, Limited::new(request.into_body(), MAX_EDIT).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return failure(StatusCode::PAYLOAD_TOO_LARGE, "the edit is too long");
        }
        Ok(Err(_)) | Err(_) => return failure(StatusCode::BAD_REQUEST, "the edit did not come whole"),
    };
    let edit = if body.is_empty() { Ok(Edit::default()) } else { serde_json::from_slice(&body) };
    let edit = match edit {
        Ok(edit) => edit,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("the edit is not understood: {error}")),
    };
    let viewed = shared.clone();
    let sent = spawn_blocking(move || Replay::new(&viewed, &entry, edit)?.send(&viewed, &entry)).await;
    let id = match sent {
        Ok(Ok(id)) => id,
        Ok(Err(why)) => return failure(status_of(&why), &why.to_string()),
        Err(_) => return broken(),
    };
    if query.waits {
        let _late = timeout(WAIT_LIMIT, ended(&shared, id)).await;
        if let Some(entry) = shared.store.find(id) {
            let line = Summary::new(&entry.glance(), &shared.tunnels.labels(), query.secrets);
            return reply::json(StatusCode::OK, &line);
        }
    }
    reply::json(StatusCode::ACCEPTED, &json!({ "id": id }))
}

fn status_of(why: &NoReplay) -> StatusCode {
    if why.is_mistake() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CONFLICT }
}

/// Waits until a replay has ended and was recorded.
async fn ended(shared: &Shared, id: u64) {
    let mut changes = shared.store.follow();
    loop {
        changes.borrow_and_update();
        if shared.store.find(id).is_some_and(|entry| entry.ended().is_some()) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
