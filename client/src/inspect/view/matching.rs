//! Whether a request meets the conditions of a filter.

use std::collections::HashMap;

use cok_proto::{RequestHead, ResponseHead};
use http::HeaderMap;

use super::Summary;
use crate::event::TunnelHandle;
use crate::inspect::filter::{Filter, Status};
use crate::inspect::live::Side;
use crate::inspect::secrets::Secrets;
use crate::inspect::shared::Shared;
use crate::inspect::store::{Entry, Glance};

/// The bytes of a body in which a text is searched.
const SEARCHED: usize = 256 * 1024;

/// The line of an exchange, if it meets the conditions. A text is searched in all of it, which may wait for the disk.
pub(in crate::inspect) fn matches(
    shared: &Shared,
    filter: &Filter,
    glance: &Glance,
    labels: &HashMap<TunnelHandle, String>,
    shown: Secrets,
) -> Option<Summary> {
    let line = Summary::new(glance, labels, shown);
    let path = line.target.split('?').next().unwrap_or_default();
    let is_meant = filter.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
        && (filter.methods.is_empty()
            || filter.methods.iter().any(|method| *method == line.method.to_ascii_uppercase()))
        && (filter.statuses.is_empty() || filter.statuses.iter().any(|status| has(&line, *status)))
        && filter.min.is_none_or(|min| line.duration_ms >= min.as_secs_f64() * 1e3)
        && filter.max.is_none_or(|max| line.duration_ms <= max.as_secs_f64() * 1e3)
        && filter.tunnel.as_ref().is_none_or(|tunnel| {
            line.tunnel.as_ref().is_some_and(|name| name == tunnel)
                || line.authority.to_ascii_lowercase().contains(tunnel.as_str())
        });
    if !is_meant {
        return None;
    }
    if let Some(text) = &filter.text
        && !has_text(shared, glance, &line, text)
    {
        return None;
    }
    Some(line)
}

fn has(line: &Summary, status: Status) -> bool {
    match status {
        Status::Code(code) => line.status == Some(code),
        Status::Class(class) => line.status.is_some_and(|status| status / 100 == class),
        Status::Open => line.state == "open",
        Status::Failed => line.state == "failed",
    }
}

/// Whether the text stands in a head, in the messages or in a body. `text` is in lower case.
fn has_text(shared: &Shared, glance: &Glance, line: &Summary, text: &str) -> bool {
    let has = |other: &str| other.to_lowercase().contains(text);
    let in_fields = |fields: &HeaderMap| {
        fields.iter().any(|(name, value)| has(name.as_str()) || has(&String::from_utf8_lossy(value.as_bytes())))
    };
    let request = RequestHead::decode(glance.live.head.clone()).ok();
    let response = glance.answer.as_ref().and_then(|answer| ResponseHead::decode(answer.head.clone()).ok());
    if has(&line.target)
        || has(&line.authority)
        || [&line.failure, &line.trace_id, &line.tunnel].into_iter().flatten().any(|part| has(part))
        || request.as_ref().is_some_and(|head| in_fields(&head.headers))
        || response.as_ref().is_some_and(|head| in_fields(&head.headers))
    {
        return true;
    }
    let Some(entry) = shared.store.find(glance.live.id) else { return false };
    let in_messages =
        |entry: &Entry| entry.messages.latest.iter().any(|passed| has(&String::from_utf8_lossy(&passed.message.bytes)));
    let in_body = |side, head: Option<&HeaderMap>| {
        let none = HeaderMap::new();
        let body = super::body::plain(shared, &entry, side, head.unwrap_or(&none), SEARCHED);
        body.is_ok_and(|body| has(&String::from_utf8_lossy(&body.bytes)))
    };
    in_messages(&entry)
        || in_body(Side::Request, request.as_ref().map(|head| &head.headers))
        || in_body(Side::Response, response.as_ref().map(|head| &head.headers))
}
