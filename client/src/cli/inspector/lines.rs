//! Requests as lines for people.

use std::time::Duration;

use cok_host::columns::columns;

use crate::inspect::Summary;
use crate::text::{path_text, quoted};
use cok_host::figures::{bytes, duration};

/// A table of requests with a heading.
pub(super) fn table(requests: &[Summary]) -> Vec<String> {
    let heading = ["ID", "TIME", "METHOD", "PATH", "STATUS", "DURATION", "SIZE", ""].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading).chain(requests.iter().map(cells)).collect();
    columns(&rows)
}

/// One request.
pub(super) fn line(request: &Summary) -> String {
    cells(request).join("  ").trim_end().to_owned()
}

fn cells(request: &Summary) -> [String; 8] {
    // The time of day in UTC, which the date stands before.
    let time = request.began.get(11..19).unwrap_or_default();
    let status = match (request.status, request.state.as_str()) {
        (Some(status), _) => status.to_string(),
        (None, state) => state.to_owned(),
    };
    let took = Duration::try_from_secs_f64(request.duration_ms / 1e3).unwrap_or_default();
    let took = if request.state == "open" { "open".to_owned() } else { duration(took) };
    [
        request.id.to_string(),
        time.to_owned(),
        quoted(&request.method),
        quoted(&path_text(&request.target)),
        status,
        took,
        bytes(request.response_bytes),
        remarks(request),
    ]
}

fn remarks(request: &Summary) -> String {
    let messages = request.messages_from_visitor + request.messages_from_service;
    let mut remarks = Vec::new();
    if request.kind != "request" {
        remarks.push(format!("{}, {messages} messages", request.kind.replace('_', " ")));
    }
    remarks.extend(request.replay_of.map(|of| format!("replay of {of}")));
    remarks.extend(request.failure.as_deref().map(quoted));
    if request.incomplete {
        remarks.push("not captured whole".to_owned());
    }
    remarks.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_whatever_it_holds() {
        let json = serde_json::json!({
            "id": 7, "tunnel": null, "authority": "demo.t", "method": "GET", "target": "/a\n\u{1b}[2J?x=1",
            "state": "failed", "status": null, "failure": "connection\nrefused", "kind": "request",
            "began": "2026-11-29T10:42:07.123Z", "duration_ms": 12.3, "head_ms": null, "service_ms": null,
            "request_bytes": 0, "response_bytes": 0, "protocol": null, "trace_id": null, "replay_of": 3,
            "messages_from_visitor": 0, "messages_from_service": 0, "incomplete": false,
        });
        let request: Summary = serde_json::from_value(json).unwrap();
        assert_eq!(
            line(&request),
            "7  10:42:07  GET  /a%0A%1B[2J?x=1  failed  12 ms  0 B  replay of 3; connection\\nrefused"
        );
        assert_eq!(table(&[request]).len(), 2);
    }
}
