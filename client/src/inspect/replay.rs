//! Repeats a captured request to the service, as it was or edited. It goes through the proxy like any other exchange, but its
//! halves are in memory.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::head::{HeadTooLarge, decode_trailers};
use cok_proto::{RequestHead, ResetCode, ResponseHead, Target};
use cok_transport::{ExchangeError, ExchangeHalves, Incoming, Received, RecvHalf, SendHalf};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

use super::live::Side;
use super::secrets::unmasked_target;
use super::shared::Shared;
use super::store::Entry;
use crate::exchange::Origin;

/// The longest that a replay may take, such as one of an event stream.
const LONGEST: Duration = Duration::from_secs(300);
/// The most replays at once.
const MOST: usize = 32;
/// The replays under way.
static REPLAYS: Semaphore = Semaphore::const_new(MOST);

/// What to change about a request. What is absent stays as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    method: Option<String>,
    /// Path and query.
    target: Option<String>,
    fields: Option<Vec<EditedField>>,
    /// The body as text.
    body: Option<String>,
    /// The body as Base64, in place of text.
    body_base64: Option<String>,
}

/// A field of an edited request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EditedField {
    name: String,
    /// Its value.
    value: Option<String>,
    /// In place of a value: the place of the field in the original request whose value it has.
    original: Option<usize>,
}

/// Why a request is not repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReplay {
    #[error("a WebSocket or another upgrade cannot be repeated")]
    Upgrade,
    #[error("the body of the request was not captured whole, so it cannot be repeated as it was")]
    NotWhole,
    #[error("its tunnel is closed")]
    Closed,
    #[error("{0} replays are under way already", MOST)]
    TooMany,
    #[error("{0}")]
    Invalid(String),
    #[error("the captured request cannot be read: {0}")]
    Unreadable(String),
}

impl NoReplay {
    /// Whether the edit is wrong, rather than the state of things.
    pub(super) fn is_mistake(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }
}

/// A request that is ready to be repeated.
#[derive(Debug)]
pub(super) struct Replay {
    of: u64,
    head: RequestHead,
    body: Bytes,
    trailers: Option<HeaderMap>,
    end: bool,
}

impl Replay {
    /// Makes it from a captured request. This may wait for the disk.
    pub(super) fn new(shared: &Shared, entry: &Entry, edit: Edit) -> Result<Self, NoReplay> {
        let unreadable = |error: &dyn ToString| NoReplay::Unreadable(error.to_string());
        let live = &entry.live;
        let mut head = RequestHead::decode(live.head.clone()).map_err(|error| unreadable(&error))?;
        if head.is_upgrade() {
            return Err(NoReplay::Upgrade);
        }
        let new_body = edit.new_body()?;
        let is_edited = new_body.is_some();
        if new_body.is_none() && !entry.is_whole(Side::Request) {
            return Err(NoReplay::NotWhole);
        }
        edit.apply(&mut head)?;
        let (body, end) = if let Some(body) = new_body {
            let end = body.is_empty();
            (body, end)
        } else {
            let body = entry.request.read(&shared.store.spool, usize::MAX).map_err(|error| unreadable(&error))?;
            (body, live.is_bodiless)
        };
        if head.headers.contains_key(CONTENT_LENGTH) || (is_edited && !end) {
            // In the place of the old one, so that nothing else changes.
            head.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let trailers = entry.request.trailers.clone().map(decode_trailers).transpose();
        Ok(Self { of: live.id, head, body, trailers: trailers.map_err(|error| unreadable(&error))?, end })
    }

    /// Sends it to the service of its tunnel. Returns its number at once.
    pub(super) fn send(self, shared: &Shared, entry: &Entry) -> Result<u64, NoReplay> {
        let exchanges = shared.tunnels.exchanges(entry.live.tunnel).ok_or(NoReplay::Closed)?;
        let permit = REPLAYS.try_acquire().map_err(|_| NoReplay::TooMany)?;
        let (id, of) = (shared.load.number(), self.of);
        // Its timer is one of the traffic's runtime.
        let _traffic = shared.runtime.enter();
        let exchange = ExchangeHalves {
            send: Box::new(Unread { limit: Box::pin(sleep(LONGEST)) }),
            recv: Box::new(Recorded { body: Some(self.body), trailers: self.trailers }),
        };
        let incoming = Incoming { tunnel: 0, head: self.head, end: self.end, exchange };
        let exchange = exchanges(incoming, Origin::Replay { id, of }).ok_or(NoReplay::Closed)?;
        tokio::spawn(async move {
            exchange.await;
            drop(permit);
        });
        Ok(id)
    }
}

impl Edit {
    fn new_body(&self) -> Result<Option<Bytes>, NoReplay> {
        use base64::Engine as _;
        match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => Err(NoReplay::Invalid("body and body_base64 exclude each other".to_owned())),
            (Some(text), None) => Ok(Some(Bytes::from(text.clone()))),
            (None, Some(text)) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                bytes
                    .map(|bytes| Some(bytes.into()))
                    .map_err(|_| NoReplay::Invalid("body_base64 is not Base64".to_owned()))
            }
            (None, None) => Ok(None),
        }
    }

    fn apply(self, head: &mut RequestHead) -> Result<(), NoReplay> {
        let invalid = |what: &str, text: &str| NoReplay::Invalid(format!("{text:?} is no {what}"));
        if let Some(method) = &self.method {
            head.method = Method::from_bytes(method.as_bytes()).map_err(|_| invalid("method", method))?;
        }
        if let Some(target) = &self.target {
            let target = unmasked_target(target.as_bytes(), head.target.as_bytes());
            head.target = Target::from_bytes(target.into()).map_err(|_| {
                invalid("path that begins with / and has no space or #", self.target.as_deref().unwrap_or(""))
            })?;
        }
        let Some(fields) = self.fields else { return Ok(()) };
        let original: Vec<HeaderValue> = head.headers.iter().map(|(_, value)| value.clone()).collect();
        let mut edited = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name =
                HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid("name of a field", &field.name))?;
            let value = match (&field.value, field.original) {
                (Some(value), None) => {
                    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid("value of a field", value))?
                }
                (None, Some(place)) => original
                    .get(place)
                    .cloned()
                    .ok_or_else(|| NoReplay::Invalid(format!("the original request has no field at place {place}")))?,
                _ => return Err(NoReplay::Invalid(format!("the field {name} needs a value or an original, not both"))),
            };
            if HOP_BY_HOP.contains(&name.as_str()) {
                return Err(NoReplay::Invalid(format!("the field {name} is the connection's, and cannot be set")));
            }
            edited.try_append(name, value).map_err(|_| NoReplay::Invalid("there are too many fields".to_owned()))?;
        }
        head.headers = edited;
        if head.encoded_len().is_err() {
            return Err(NoReplay::Invalid("the head is too large".to_owned()));
        }
        Ok(())
    }
}

/// Fields that the client sets by itself (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// The request's half of a replay.
#[derive(Debug)]
struct Recorded {
    /// `None` once it was read.
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl RecvHalf for Recorded {
    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let has_trailers = self.trailers.is_some();
        let received = match (self.body.take(), self.trailers.take()) {
            (Some(data), trailers) => {
                self.trailers = trailers;
                Received::Data { data, end: !has_trailers }
            }
            (None, Some(trailers)) => Received::Trailers(trailers),
            // It is not asked behind the end.
            (None, None) => Received::Data { data: Bytes::new(), end: true },
        };
        Poll::Ready(Ok(received))
    }

    fn reset(&mut self, _code: ResetCode) {}
}

/// The response's half of a replay. Only the capture around it looks at the response.
#[derive(Debug)]
struct Unread {
    limit: Pin<Box<Sleep>>,
}

impl SendHalf for Unread {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        match self.poll_broken(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        self.limit.as_mut().poll(cx).map(|()| ExchangeError::Reset(ResetCode::Cancelled))
    }

    fn send_response(&mut self, _head: ResponseHead, _end: bool) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn send_data(&mut self, _data: Bytes, _end: bool) {}

    fn send_trailers(&mut self, _fields: HeaderMap) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn break_off(&mut self, _code: ResetCode) {}

    fn reset(&mut self, _code: ResetCode) {}
}
