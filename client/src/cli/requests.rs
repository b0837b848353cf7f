//! The log of requests: one line a request at its end. WebSockets and streams have a line at their beginning as well.

use std::collections::HashMap;
use std::time::Duration;

use cok_host::figures::{bytes, duration};
use http::Method;
use parking_lot::Mutex;
use tracing::info;

use super::overview::Overview;
use crate::event::{Event, Lasting, TunnelHandle};
use crate::text::{path_text, quoted};

/// Logs requests.
#[derive(Debug)]
pub(super) struct RequestLog {
    /// Whether lines have queries.
    queries: bool,
    /// The requests under way, by their numbers.
    open: Mutex<HashMap<u64, Open>>,
}

/// A request under way.
#[derive(Debug)]
struct Open {
    method: Method,
    /// Its path, for a line.
    path: String,
    lasting: Option<Lasting>,
}

impl RequestLog {
    pub(super) fn new(queries: bool) -> Self {
        Self { queries, open: Mutex::default() }
    }

    /// Takes an event in; logs those of requests.
    pub(super) fn note(&self, event: &Event, overview: &Overview) {
        match event {
            Event::RequestBegan { request, method, path, query, .. } => {
                let path = match query.as_ref().filter(|_| self.queries) {
                    Some(query) => quoted(&path_text(&format!("{path}?{query}"))),
                    None => quoted(&path_text(path)),
                };
                self.open.lock().insert(*request, Open { method: method.clone(), path, lasting: None });
            }
            Event::RequestLasts { tunnel, request, what, status, after } => {
                let (method, path) = {
                    let mut open = self.open.lock();
                    let Some(Open { method, path, lasting }) = open.get_mut(request) else { return };
                    *lasting = Some(what.clone());
                    (method.clone(), path.clone())
                };
                let tunnel = overview.label(*tunnel);
                info!(
                    event = "stream_began",
                    tunnel,
                    request,
                    %method,
                    path,
                    status,
                    kind = %what,
                    duration_ms = after.as_millis() as u64,
                    "{method} {path} {status} {}: {what} begins",
                    duration(*after)
                );
            }
            Event::RequestEnded { tunnel, request, status, bytes, received, time, complete, failure } => {
                let Some(open) = self.open.lock().remove(request) else { return };
                let ended = Ended { status: *status, sent: *bytes, received: *received, time: *time };
                let failure = failure.as_deref().or((!complete).then_some("broken off"));
                log_end(&open, &ended, failure, (*tunnel, *request), overview);
            }
            _ => {}
        }
    }
}

struct Ended {
    status: Option<u16>,
    sent: u64,
    received: u64,
    time: Duration,
}

fn log_end(
    open: &Open,
    ended: &Ended,
    failure: Option<&str>,
    (tunnel, request): (TunnelHandle, u64),
    overview: &Overview,
) {
    let Open { method, path, lasting } = open;
    let tunnel = overview.label(tunnel);
    let (said, duration_ms) = (sentence(open, ended, failure), ended.time.as_millis() as u64);
    let Ended { status, sent, received, .. } = ended;
    match lasting {
        None => {
            info!(event = "request", tunnel, request, %method, path, status, duration_ms, sent, received, failure, "{said}");
        }
        Some(what) => {
            info!(event = "stream_ended", tunnel, request, %method, path, status, kind = %what, duration_ms, sent, received, failure, "{said}");
        }
    }
}

/// Says how a request ended.
fn sentence(open: &Open, ended: &Ended, failure: Option<&str>) -> String {
    let Open { method, path, lasting } = open;
    let status = ended.status.map_or_else(|| "failed".to_owned(), |status| status.to_string());
    let (time, sent) = (duration(ended.time), bytes(ended.sent));
    let what = match lasting {
        Some(what) => format!("{method} {path} {status}: {what} ended after {time}, {sent}"),
        None => format!("{method} {path} {status} {time} {sent}"),
    };
    let received = match ended.received {
        0 => String::new(),
        count => format!(", {} received", bytes(count)),
    };
    let failure = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
    format!("{what}{received}{failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_everything_about_a_request() {
        let mut open = Open { method: Method::PUT, path: "/a".to_owned(), lasting: None };
        let ended = |status, received| Ended { status, sent: 1234, received, time: Duration::from_millis(12) };
        for (status, received, failure, line) in [
            (Some(200), 0, None, "PUT /a 200 12 ms 1.2 kB"),
            (Some(200), 5, None, "PUT /a 200 12 ms 1.2 kB, 5 B received"),
            (Some(200), 0, Some("the visitor left"), "PUT /a 200 12 ms 1.2 kB: the visitor left"),
            (None, 0, Some("cannot connect"), "PUT /a failed 12 ms 1.2 kB: cannot connect"),
        ] {
            assert_eq!(sentence(&open, &ended(status, received), failure), line);
        }
        open.lasting = Some(Lasting::WebSocket);
        assert_eq!(
            sentence(&open, &ended(Some(101), 7), None),
            "PUT /a 101: WebSocket ended after 12 ms, 1.2 kB, 7 B received"
        );
    }
}
