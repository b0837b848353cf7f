//! Everything about one request but its bodies.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cok_proto::head::decode_trailers;
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use http::HeaderMap;
use serde::Serialize;

use super::summary::{Summary, milliseconds, text_of};
use crate::inspect::live::{Reset, Side};
use crate::inspect::secrets::Secrets;
use crate::inspect::shared::Shared;
use crate::inspect::store::{Answer, Cut, Entry};

/// A request and its response.
#[derive(Debug, Serialize)]
pub(in crate::inspect) struct Detail {
    #[serde(flatten)]
    summary: Summary,
    request: Direction,
    /// The heads before the final one.
    interim: Vec<ShownHead>,
    response: Option<Response>,
    timings: Timings,
    reset: Option<ShownReset>,
}

/// A direction.
#[derive(Debug, Serialize)]
struct Direction {
    fields: Vec<Field>,
    trailers: Vec<Field>,
    /// The bytes of the body, as they passed.
    size: u64,
    /// How many of them were captured.
    captured: u64,
    /// Why the rest was not: `limit`, `disk` or `behind`.
    cut: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Response {
    status: u16,
    reason: String,
    #[serde(flatten)]
    direction: Direction,
}

/// An interim response.
#[derive(Debug, Serialize)]
struct ShownHead {
    status: u16,
    fields: Vec<Field>,
    after_ms: f64,
}

/// A field of a head.
#[derive(Debug, Serialize)]
struct Field {
    name: String,
    value: String,
    /// The value in Base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// The value is hidden.
    masked: bool,
}

/// Where the time went, in milliseconds. All are null until they are known.
#[derive(Debug, Serialize)]
struct Timings {
    /// Until the service had the request.
    #[serde(rename = "request_ms")]
    request: Option<f64>,
    /// What the service took for the first byte of its response.
    #[serde(rename = "service_ms")]
    service: Option<f64>,
    /// From there to the end of the response.
    #[serde(rename = "response_ms")]
    response: Option<f64>,
}

/// Why it broke off.
#[derive(Debug, Serialize)]
struct ShownReset {
    /// `visitor`, `service` or `session`.
    by: &'static str,
    code: Option<u32>,
    reason: String,
}

impl Detail {
    /// Everything about an entry.
    pub(in crate::inspect) fn new(shared: &Shared, entry: &Entry, shown: Secrets) -> Self {
        let live = &entry.live;
        let summary = Summary::new(&entry.glance(), &shared.tunnels.labels(), shown);
        let request = RequestHead::decode(live.head.clone()).map(|head| head.headers).unwrap_or_default();
        let response = entry.answer.as_ref().and_then(|answer| ResponseHead::decode(answer.head.clone()).ok());
        let interim = |answer: &Answer| {
            let head = ResponseHead::decode(answer.head.clone()).ok()?;
            let after_ms = milliseconds(answer.after);
            Some(ShownHead { status: head.status.as_u16(), fields: fields(&head.headers, shown), after_ms })
        };
        let service = response.as_ref().and_then(|head| head.first_byte);
        let head_after = entry.answer.as_ref().map(|answer| answer.after);
        let ended = entry.ended();
        Self {
            request: direction(entry, Side::Request, &request, shown),
            interim: entry.interim.iter().filter_map(interim).collect(),
            timings: Timings {
                request: head_after.zip(service).map(|(head, service)| milliseconds(head.saturating_sub(service))),
                service: service.map(milliseconds),
                response: head_after.zip(ended).map(|(head, ended)| milliseconds(ended.after.saturating_sub(head))),
            },
            response: response.map(|head| Response {
                status: head.status.as_u16(),
                reason: text_of(&head.reason),
                direction: direction(entry, Side::Response, &head.headers, shown),
            }),
            reset: ended.and_then(|ended| ended.reset).map(|reset| {
                let (by, code) = match reset {
                    Reset::Visitor(code) => ("visitor", Some(ResetCode::to_u32(code))),
                    Reset::Service(code) => ("service", Some(code.to_u32())),
                    Reset::Session => ("session", None),
                };
                ShownReset { by, code, reason: summary.failure.clone().unwrap_or_else(|| reset.to_string()) }
            }),
            summary,
        }
    }
}

fn direction(entry: &Entry, side: Side, head: &HeaderMap, shown: Secrets) -> Direction {
    let part = entry.part(side);
    let trailers = part.trailers.clone().and_then(|trailers| decode_trailers(trailers).ok()).unwrap_or_default();
    Direction {
        fields: fields(head, shown),
        trailers: fields(&trailers, shown),
        size: entry.live.bytes(side).load(Ordering::Relaxed),
        captured: part.captured(),
        cut: entry.cut(side).map(Cut::name),
    }
}

fn fields(fields: &HeaderMap, shown: Secrets) -> Vec<Field> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let visible = shown.field(name.as_str(), value.as_bytes());
        Field {
            name: name.as_str().to_owned(),
            base64: std::str::from_utf8(&visible).is_err().then(|| STANDARD.encode(&visible)),
            value: text_of(&visible),
            masked: *visible != *value.as_bytes(),
        }
    };
    fields.iter().map(field).collect()
}
