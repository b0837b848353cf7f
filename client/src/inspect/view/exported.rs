//! Requests in the forms of other tools: a curl line, and an HTTP archive.

use std::io;

use cok_proto::head::decode_trailers;
use cok_proto::{RequestHead, ResponseHead};
use http::HeaderMap;

use crate::inspect::export::{self, Exchange, Field, Half, NoCurl, Passed, Request, Response, Timings};
use crate::inspect::live::Side;
use crate::inspect::secrets::Secrets;
use crate::inspect::shared::Shared;
use crate::inspect::store::Entry;

/// The curl line of a request. This may wait for the disk.
pub(in crate::inspect) fn curl(shared: &Shared, entry: &Entry, secrets: Secrets) -> io::Result<Result<String, NoCurl>> {
    with_exchange(shared, entry, |exchange| export::curl(&exchange.request, secrets))
}

/// An entry of an archive, as JSON. This may wait for the disk.
pub(in crate::inspect) fn har_entry(shared: &Shared, entry: &Entry, secrets: Secrets) -> io::Result<String> {
    with_exchange(shared, entry, |exchange| export::entry(exchange, secrets).to_string())
}

/// Hands an entry over in the form that is exported.
fn with_exchange<T>(shared: &Shared, entry: &Entry, export: impl FnOnce(&Exchange<'_>) -> T) -> io::Result<T> {
    let live = &entry.live;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let request = RequestHead::decode(live.head.clone()).map_err(invalid)?;
    let answer = entry.answer.as_ref();
    let response = answer.map(|answer| ResponseHead::decode(answer.head.clone())).transpose().map_err(invalid)?;
    let [asked, answered] = [Side::Request, Side::Response].map(|side| Content::new(shared, entry, side));
    let (asked, answered) = (asked?, answered?);
    let (tunnel, trace) = (shared.tunnels.labels().remove(&live.tunnel), super::summary::trace_id(&request.headers));
    let ended = entry.ended();
    let total = ended.map_or_else(|| live.began.elapsed(), |ended| ended.after);
    let service = response.as_ref().and_then(|head| head.first_byte);
    let messages: Vec<_> = entry.messages.latest.iter().collect();
    let messages: Vec<_> = messages
        .iter()
        .map(|passed| Passed {
            is_from_visitor: passed.side == Side::Request,
            at: live.began_at + passed.after,
            message: &passed.message,
        })
        .collect();
    let origin = format!("{}://{}", request.scheme.as_str(), request.authority);
    let failure = ended
        .and_then(|ended| ended.reset)
        .map(|reset| live.failure.get().cloned().unwrap_or_else(|| reset.to_string()));
    Ok(export(&Exchange {
        id: live.id,
        tunnel: tunnel.as_deref(),
        began: live.began_at,
        request: Request {
            method: request.method.as_str(),
            origin: &origin,
            target: request.target.as_bytes(),
            content: asked.half(&request.headers),
        },
        response: response.as_ref().map(|head| Response {
            status: head.status.as_u16(),
            reason: &head.reason,
            content: answered.half(&head.headers),
        }),
        timings: Timings {
            request: answer.zip(service).map(|(answer, service)| answer.after.saturating_sub(service)),
            service,
            response: answer.map(|answer| total.saturating_sub(answer.after)),
            total,
        },
        failure: failure.as_deref(),
        protocol: live.protocol(),
        trace_id: trace.as_deref(),
        replay_of: live.replay_of,
        messages: &messages,
    }))
}

/// What a direction carried behind its head.
struct Content {
    body: bytes::Bytes,
    trailers: HeaderMap,
    size: u64,
    is_whole: bool,
}

impl Content {
    fn new(shared: &Shared, entry: &Entry, side: Side) -> io::Result<Self> {
        let part = entry.part(side);
        Ok(Self {
            body: part.read(&shared.store.spool, usize::MAX)?,
            trailers: part.trailers.clone().and_then(|trailers| decode_trailers(trailers).ok()).unwrap_or_default(),
            size: entry.live.bytes(side).load(std::sync::atomic::Ordering::Relaxed),
            is_whole: entry.is_whole(side),
        })
    }

    fn half<'a>(&'a self, head: &'a HeaderMap) -> Half<'a> {
        let fields = |fields: &'a HeaderMap| {
            fields.iter().map(|(name, value)| Field { name: name.as_str(), value: value.as_bytes() }).collect()
        };
        Half {
            fields: fields(head),
            trailers: fields(&self.trailers),
            body: &self.body,
            size: self.size,
            is_whole: self.is_whole,
        }
    }
}
