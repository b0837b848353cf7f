//! What is logged, over the admin API, in JSON: `GET /log-level` shows it, `POST /log-level` changes it until the next start,
//! or for a while.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cok_client::logging::{filters, set_filter};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Admin, not_allowed};
use crate::observe::text;

/// The path of the log level.
pub(crate) const LOG_LEVEL: &str = "/log-level";

/// The longest request body in bytes.
const LONGEST: usize = 4096;
/// How long a request body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time for a change that ends by itself.
const LONGEST_CHANGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a POST changes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The filter. `None` for the one that the daemon began with.
    pub(crate) filter: Option<String>,
    /// After how many seconds the filter of the beginning counts again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) for_seconds: Option<u64>,
}

/// What is logged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogLevel {
    /// The filter.
    pub(crate) filter: String,
    /// The filter that the daemon began with.
    pub(crate) default: String,
    /// When that one counts again, in RFC 3339. `None` if it does not by itself.
    pub(crate) until: Option<String>,
}

/// Brings the filter of the beginning back in time.
#[derive(Debug, Default)]
pub(crate) struct Timer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many changes there were. An older change must not end a newer one.
    changes: u64,
    until: Option<SystemTime>,
}

pub(super) async fn answer(admin: &Admin, request: Request<Incoming>) -> Response<String> {
    match *request.method() {
        Method::GET | Method::HEAD => show(&admin.log_level),
        Method::POST => {
            let changed = match read(request).await {
                Ok(change) => admin.log_level.change(&change),
                Err(error) => Err(error),
            };
            match changed {
                Ok(()) => show(&admin.log_level),
                Err(why) => refuse(StatusCode::BAD_REQUEST, &why),
            }
        }
        _ => not_allowed("GET, HEAD, POST"),
    }
}

impl Timer {
    /// Changes the filter.
    fn change(self: &Arc<Self>, change: &Change) -> Result<(), String> {
        let time = change.for_seconds.map(Duration::from_secs);
        if time.is_some_and(|time| time.is_zero() || time > LONGEST_CHANGE) {
            return Err("a change may last for 1 s to 7 days".to_owned());
        }
        if time.is_some() && change.filter.is_none() {
            return Err("the filter of the beginning needs no time".to_owned());
        }
        let mut state = self.0.lock();
        set_filter(change.filter.as_deref()).map_err(|error| error.to_string())?;
        state.changes += 1;
        state.until = time.map(|time| SystemTime::now() + time);
        let (timer, number) = (self.clone(), state.changes);
        drop(state);
        log(change.filter.as_deref(), time);
        if let Some(time) = time {
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                timer.end(number);
            });
        }
        Ok(())
    }

    /// Ends a change, unless there was another one since.
    fn end(&self, number: u64) {
        let mut state = self.0.lock();
        if state.changes == number && set_filter(None).is_ok() {
            state.until = None;
            drop(state);
            log(None, None);
        }
    }
}

fn log(filter: Option<&str>, time: Option<Duration>) {
    let filter = filter.unwrap_or("default");
    let while_it_lasts = time.map(|time| format!(", for {}", humantime::format_duration(time))).unwrap_or_default();
    info!(event = "log_level", filter, "what is logged: {filter}{while_it_lasts}");
}

fn show(timer: &Timer) -> Response<String> {
    let until = timer.0.lock().until.map(|until| humantime::format_rfc3339_seconds(until).to_string());
    let shown = filters().map_err(|error| error.to_string());
    let shown = shown.and_then(|(filter, default)| {
        serde_json::to_string(&LogLevel { filter, default, until }).map_err(|error| error.to_string())
    });
    match shown {
        Ok(json) => {
            let mut response = text(json + "\n");
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(why) => refuse(StatusCode::CONFLICT, &why),
    }
}

fn refuse(status: StatusCode, why: &str) -> Response<String> {
    let mut response = text(format!("{why}\n"));
    *response.status_mut() = status;
    response
}

/// Reads what to change.
async fn read(request: Request<Incoming>) -> Result<Change, String> {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), LONGEST).collect()).await;
    let body = body.map_err(|_| "the request's body takes too long".to_owned())?;
    let body = body.map_err(|error| format!("the request's body: {error}"))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("the request's body: {error}"))
}
