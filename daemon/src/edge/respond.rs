//! The response for the visitor, from the head and the body that come out of the tunnel.

use std::sync::Arc;

use cok_http::hop_by_hop::retain;
use cok_proto::ResponseHead;
use cok_transport::{RecvHalf, SendHalf};
use http::header::{ALT_SVC, CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;

use super::body::Body;
use super::context::Context;
use super::lifetime::Lifetime;
use super::pages::Problem;
use super::response_judge::Content;
use super::server_timing::add_server_timing;
use super::upgrade::{Upgrade, splice};

/// A final response head that the judge has passed.
pub(super) struct FinalHead {
    pub(super) head: ResponseHead,
    /// What follows.
    pub(super) content: Content,
    /// No body follows.
    pub(super) end: bool,
    /// The service has decided without the body that the visitor held back: it is not wanted.
    pub(super) declined: bool,
}

/// The response for a visitor over this version of HTTP.
pub(super) fn respond(
    context: &mut Context,
    answered: FinalHead,
    recv: Box<dyn RecvHalf>,
    version: Version,
) -> Response<Body> {
    context.set_first_byte(&answered.head);
    let ResponseHead { status, reason, mut headers, .. } = answered.head;
    // The service's Alt-Svc names another address than ours (RFC 7838, section 3). Upgrade stays over HTTP/1.1 only.
    retain(&mut headers, |name| *name != ALT_SVC && (*name != UPGRADE || version == Version::HTTP_11));
    if context.visitor.edge.config().server_timing
        && let Some(phases) = context.phases()
    {
        add_server_timing(&mut headers, &phases);
    }
    if headers.contains_key(UPGRADE) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let body = if answered.end {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        match length.filter(|_| status == StatusCode::NOT_MODIFIED && version < Version::HTTP_2) {
            Some(length) => Body::announced(length),
            None => Body::empty(),
        }
    } else {
        let lifetime = Lifetime::of_response(version, &headers);
        context.set_lifetime(lifetime);
        if version < Version::HTTP_2 && lifetime.may_pause() {
            context.visitor.set_pauses();
        }
        let (visitor, exchange) = (&context.visitor, context.exchange.clone());
        if let Some(exchange) = &exchange {
            exchange.set_answered();
        }
        let to = (version, visitor.flushes.clone());
        Body::tunnel(recv, answered.content, lifetime, &visitor.edge.drain, to, exchange)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if version < Version::HTTP_2
        && let Some(reason) = own_reason(status, &reason)
    {
        response.extensions_mut().insert(reason);
    }
    response
}

/// The reason phrase, if it differs from the usual one. A status without a usual one has at least an empty phrase.
fn own_reason(status: StatusCode, reason: &[u8]) -> Option<ReasonPhrase> {
    let usual = status.canonical_reason();
    let differs = usual.is_none_or(|usual| !reason.is_empty() && usual.as_bytes() != reason);
    differs.then(|| ReasonPhrase::try_from(reason).ok()).flatten()
}

/// The response to a visitor who asked to leave HTTP: raw bytes from here on, or an ordinary response.
pub(super) fn respond_to_upgrade(
    context: &mut Context,
    mut answered: FinalHead,
    upgrade: &Upgrade,
    on_upgrade: OnUpgrade,
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    version: Version,
) -> Result<Response<Body>, Problem> {
    if answered.head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(respond(context, answered, recv, version));
    }
    let protocol: Option<HeaderValue> = answered.head.headers.get(UPGRADE).cloned();
    retain(&mut answered.head.headers, |name| *name != UPGRADE);
    context.set_first_byte(&answered.head);
    let response = upgrade.complete(answered.head.headers, protocol).ok_or(Problem::ServiceBroke)?;
    let lifetime = Lifetime::of_upgrade(upgrade.is_websocket());
    context.set_lifetime(lifetime);
    let visitor = Arc::clone(&context.visitor);
    if version < Version::HTTP_2 {
        visitor.set_pauses();
    }
    let leash = context.exchange.as_ref().map(|exchange| {
        exchange.set_answered();
        exchange.leash().clone()
    });
    let (in_flight, farewell) = (lifetime.token(&visitor.edge.drain), lifetime.farewell(&visitor.edge.drain));
    let busy = visitor.keep();
    let mut recording = context.leave_http(response.status());
    tokio::spawn(async move {
        let splice = splice(on_upgrade, send, recv, farewell);
        let ended = match leash {
            Some(leash) => leash.hold(splice).await,
            None => Some(splice.await),
        };
        if let (Some(recording), Some(ending)) = (&mut recording, ended) {
            recording.set_ending(ending);
        }
        drop((recording, busy, visitor, in_flight));
    });
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unusual_reasons_are_set() {
        let own = |status: u16, reason: &[u8]| {
            own_reason(StatusCode::from_u16(status).unwrap(), reason).map(|reason| reason.as_bytes().to_vec())
        };
        assert_eq!(own(200, b"OK"), None);
        assert_eq!(own(200, b""), None);
        assert_eq!(own(200, b"Fine"), Some(b"Fine".to_vec()));
        assert_eq!(own(404, b"Nichts da \xe4"), Some(b"Nichts da \xe4".to_vec()));
        assert_eq!(own(799, b""), Some(Vec::new()));
        assert_eq!(own(799, b"a\nb"), None);
    }
}
