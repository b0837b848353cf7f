//! The request in the form that the local service gets.

use bytes::Bytes;
use cok_proto::RequestHead;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, Scheme};
use http::{Uri, Version};

use super::body::RequestBody;
use crate::options::HostHeader;

/// A request that is ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) message: http::Request<RequestBody>,
    /// It is idempotent and has no body, so it may be sent twice (RFC 9110, section 9.2.2).
    pub(super) repeatable: bool,
    /// The target, if it is not UTF-8 and so cannot stand in the message.
    pub(super) target: Option<Bytes>,
}

impl Request {
    /// Makes it from a head. The target stays in origin form, byte for byte. `host` chooses Host, and `own_host` is the
    /// local service's own.
    pub(super) fn new(head: RequestHead, body: RequestBody, own_host: &HeaderValue, host: &HostHeader) -> Self {
        let RequestHead { method, target, scheme: _, authority, mut headers } = head;
        let host = match host {
            HostHeader::Preserve => HeaderValue::from_str(authority.as_str()).ok(),
            HostHeader::Rewrite => Some(own_host.clone()),
            HostHeader::Value(value) => Some(value.clone()),
        };
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        let repeatable = method.is_idempotent() && body.is_empty();
        let mut message = http::Request::new(body);
        *message.method_mut() = method;
        *message.headers_mut() = headers;
        let target = match target.path_and_query() {
            Some(target) => {
                *message.uri_mut() = Uri::from(target.clone());
                None
            }
            None => Some(Bytes::copy_from_slice(target.as_bytes())),
        };
        Self { message, repeatable, target }
    }

    /// The request without its fields, if it may be sent twice. The connection keeps those as bytes. A copy of them for each
    /// request costs far more, and hardly ever is one sent again.
    pub(super) fn without_fields(&self) -> Option<Self> {
        self.repeatable.then(|| {
            let mut message = http::Request::new(RequestBody::empty());
            *message.method_mut() = self.message.method().clone();
            *message.uri_mut() = self.message.uri().clone();
            Self { message, repeatable: true, target: self.target.clone() }
        })
    }

    /// The form for HTTP/1.1: a body of unknown length is chunked, whatever the method.
    pub(super) fn into_http1(self) -> http::Request<RequestBody> {
        let mut message = self.message;
        if !message.body().is_empty() && !message.headers().contains_key(CONTENT_LENGTH) {
            message.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        message
    }

    /// The form for HTTP/2: scheme and authority in the URI, no Host (RFC 9113, section 8.3.1).
    pub(super) fn http2_head(&self, scheme: Scheme) -> http::Request<()> {
        let mut headers = self.message.headers().clone();
        let host = headers.remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
        parts.path_and_query = self.message.uri().path_and_query().cloned();
        let mut head = http::Request::new(());
        *head.method_mut() = self.message.method().clone();
        *head.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = headers;
        head
    }
}
