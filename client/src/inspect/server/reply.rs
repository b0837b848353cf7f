//! The inspector's responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

/// A response of the inspector.
pub(super) type Reply = Response<ReplyBody>;

/// Its body.
#[derive(Debug)]
pub(super) enum ReplyBody {
    /// `None` once it was taken.
    Whole(Option<Bytes>),
    /// It ends when the sender leaves.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(receiver) => receiver.poll_recv(cx).map(|bytes| Some(Ok(Frame::data(bytes?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// What keeps a browser from making more of a response than it is. It holds captured bytes of anyone.
const FIXED: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
];

/// A response with a body of this type.
pub(super) fn reply(status: StatusCode, kind: &'static str, body: ReplyBody) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    for (name, value) in FIXED {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response of bytes.
pub(super) fn bytes(kind: &'static str, bytes: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, kind, ReplyBody::Whole(Some(bytes.into())))
}

/// A response of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => reply(status, "application/json", ReplyBody::Whole(Some(text.into()))),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A response that says what is wrong.
pub(super) fn failure(status: StatusCode, why: &str) -> Reply {
    let text = json!({ "error": why }).to_string();
    reply(status, "application/json", ReplyBody::Whole(Some(text.into())))
}
