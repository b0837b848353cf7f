//! A line of the list.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cok_proto::{RequestHead, ResponseHead};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::event::TunnelHandle;
use crate::inspect::live::Side;
use crate::inspect::secrets::Secrets;
use crate::inspect::store::Glance;

/// A request in the list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Its number, by which it is named.
    pub(crate) id: u64,
    /// The tunnel's name in the file, if it has one.
    pub(crate) tunnel: Option<String>,
    /// The public host that was asked for.
    pub(crate) authority: String,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// `open`, `complete` or `failed`.
    pub(crate) state: String,
    /// The status of the response, if there is one.
    pub(crate) status: Option<u16>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
    /// `request`, or what it carries in messages.
    pub(crate) kind: String,
    /// When it began, as in RFC 3339.
    pub(crate) began: String,
    /// How long it took, or takes so far.
    pub(crate) duration_ms: f64,
    /// Until the head of the response.
    pub(crate) head_ms: Option<f64>,
    /// What the service took of that, from the end of the request.
    pub(crate) service_ms: Option<f64>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// The protocol between client and service.
    pub(crate) protocol: Option<String>,
    /// The trace that it belongs to.
    pub(crate) trace_id: Option<String>,
    /// The request that it repeats.
    pub(crate) replay_of: Option<u64>,
    /// How many messages came from the visitor and from the service.
    pub(crate) messages_from_visitor: u64,
    pub(crate) messages_from_service: u64,
    /// Some of it was not captured.
    pub(crate) incomplete: bool,
}

impl Summary {
    /// The line of an exchange. `labels` are the names of the tunnels.
    pub(in crate::inspect) fn new(glance: &Glance, labels: &HashMap<TunnelHandle, String>, shown: Secrets) -> Self {
        let live = &glance.live;
        let request = RequestHead::decode(live.head.clone()).ok();
        let response = glance.answer.as_ref().and_then(|answer| ResponseHead::decode(answer.head.clone()).ok());
        let ended = glance.ended;
        let failure = live.failure.get().cloned().or_else(|| ended?.reset.map(|reset| reset.to_string()));
        let (authority, method, target, trace_id) = match &request {
            Some(head) => (
                head.authority.to_string(),
                head.method.to_string(),
                text_of(&shown.target(head.target.as_bytes())),
                trace_id(&head.headers),
            ),
            None => (String::new(), String::new(), String::new(), None),
        };
        Self {
            id: live.id,
            tunnel: labels.get(&live.tunnel).cloned(),
            authority,
            method,
            target,
            state: match ended {
                None => "open",
                Some(ended) if ended.is_complete => "complete",
                Some(_) => "failed",
            }
            .to_owned(),
            status: response.as_ref().map(|head| head.status.as_u16()),
            failure: failure.filter(|_| ended.is_some_and(|ended| !ended.is_complete)),
            kind: glance.kind.map_or("request", |kind| kind.name()).to_owned(),
            began: humantime::format_rfc3339_millis(live.began_at).to_string(),
            duration_ms: milliseconds(ended.map_or_else(|| live.began.elapsed(), |ended| ended.after)),
            head_ms: glance.answer.as_ref().map(|answer| milliseconds(answer.after)),
            service_ms: response.and_then(|head| head.first_byte).map(milliseconds),
            request_bytes: live.bytes(Side::Request).load(Ordering::Relaxed),
            response_bytes: live.bytes(Side::Response).load(Ordering::Relaxed),
            protocol: live.protocol().map(str::to_owned),
            trace_id,
            replay_of: live.replay_of,
            messages_from_visitor: glance.messages_from_visitor,
            messages_from_service: glance.messages_from_service,
            incomplete: glance.is_cut,
        }
    }
}

/// Bytes as text. What is not UTF-8 becomes U+FFFD.
pub(super) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A time with microseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The trace in a `traceparent` field (W3C Trace Context, section 3.2).
pub(super) fn trace_id(fields: &HeaderMap) -> Option<String> {
    let text = fields.get("traceparent")?.to_str().ok()?;
    let id = text.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}
