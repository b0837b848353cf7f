//! Observes exchanges: reports them to those who watch the client, and finds services that refuse the visitors' host. It
//! wraps the halves of an exchange, so the proxy's own code does not know of it. Unwatched exchanges are not wrapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use cok_http::is_event_stream;
use cok_http::websocket::is_websocket;
use cok_proto::head::HeadTooLarge;
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, ExchangeHalves, Received, RecvHalf, SendHalf};
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tracing::warn;

use super::blocked_host::{BlockedHost, Suspect};
use crate::event::{Event, Lasting, TunnelHandle};
use crate::events::Hub;
use crate::exchange::{Origin, Spoken};
#[cfg(feature = "inspect")]
use crate::inspect::{Captured, Tap};
use crate::text::quoted;

/// Stands in for what captures an exchange where there is no inspector. There is never one.
#[cfg(not(feature = "inspect"))]
#[derive(Debug)]
enum Captured {}

#[cfg(not(feature = "inspect"))]
impl Captured {
    fn failed(&self, _why: String) {
        match *self {}
    }

    fn speaks(&self, _protocol: Spoken) {
        match *self {}
    }
}

/// The tunnel whose exchanges are observed.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Where events go.
    hub: Arc<Hub>,
    /// The tunnel.
    tunnel: TunnelHandle,
    /// Captures exchanges for the inspector, if there is one.
    #[cfg(feature = "inspect")]
    tap: Option<Tap>,
}

/// An exchange on its way through the proxy, observed or not.
pub(super) struct Observed {
    pub(super) halves: ExchangeHalves,
    reason: Reason,
}

/// What both halves of an observed exchange, and the proxy, note of it.
#[derive(Debug, Default)]
struct Note {
    /// The bytes of the request's body.
    received: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Observed {
    /// Splits off the part that takes what only the proxy knows.
    pub(super) fn parts(self) -> (ExchangeHalves, Reason) {
        (self.halves, self.reason)
    }
}

/// Takes what only the proxy knows of an exchange, above all the reason why it failed. The reason must come before the end of
/// the response's half.
#[derive(Default)]
pub(super) struct Reason {
    /// What is noted for events; `None` if there are none.
    note: Option<Arc<Note>>,
    /// The same for the inspector.
    captured: Option<Captured>,
}

impl Reason {
    /// Notes why the exchange failed.
    pub(super) fn is(&self, why: impl Fn() -> String) {
        if let Some(note) = &self.note {
            *note.failure.lock() = Some(why());
        }
        if let Some(captured) = &self.captured {
            captured.failed(why());
        }
    }

    /// Notes the protocol that the service is asked in.
    pub(super) fn speaks(&self, protocol: Spoken) {
        if let Some(captured) = &self.captured {
            captured.speaks(protocol);
        }
    }
}

impl Watch {
    /// Reports the exchanges of a tunnel, and captures none.
    pub(crate) fn new(hub: Arc<Hub>, tunnel: TunnelHandle) -> Self {
        Self {
            hub,
            tunnel,
            #[cfg(feature = "inspect")]
            tap: None,
        }
    }

    /// Captures them as well.
    #[cfg(feature = "inspect")]
    pub(crate) fn tapped(self, tap: Tap) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// Captures an exchange for the inspector, if there is one, and observes it. `end` says that the request has no body.
    pub(super) fn begin(
        &self,
        (head, end): (&RequestHead, bool),
        halves: ExchangeHalves,
        origin: Origin,
        host: &Arc<BlockedHost>,
    ) -> Observed {
        let (halves, captured) = self.capture((head, end), halves, origin);
        let mut observed = self.observe(head, halves, host);
        observed.reason.captured = captured;
        observed
    }

    #[cfg(feature = "inspect")]
    fn capture(
        &self,
        (head, end): (&RequestHead, bool),
        halves: ExchangeHalves,
        origin: Origin,
    ) -> (ExchangeHalves, Option<Captured>) {
        let Some(tap) = &self.tap else { return (halves, None) };
        tap.begin(head, end, halves, origin)
    }

    /// There is no inspector.
    #[cfg(not(feature = "inspect"))]
    fn capture(
        &self,
        _request: (&RequestHead, bool),
        halves: ExchangeHalves,
        _origin: Origin,
    ) -> (ExchangeHalves, Option<Captured>) {
        (halves, None)
    }

    /// Reports the beginning of an exchange, and its end once the response's half is dropped. Leaves the halves alone if they
    /// are unwatched, and the service is known to take the visitors' host.
    fn observe(&self, head: &RequestHead, halves: ExchangeHalves, host: &Arc<BlockedHost>) -> Observed {
        let (is_watched, is_suspect) = (self.hub.is_watched(), host.is_suspect());
        if !is_watched && !is_suspect {
            return Observed { halves, reason: Reason::default() };
        }
        let request = self.hub.number();
        if is_watched {
            let target = head.target.to_text();
            let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
            self.hub.publish_request(&Event::RequestBegan {
                tunnel: self.tunnel,
                request,
                method: head.method.clone(),
                path: path.to_owned(),
                query: query.map(str::to_owned),
            });
        }
        let note = Arc::<Note>::default();
        let ExchangeHalves { send, recv } = halves;
        let suspect = is_suspect.then(|| Suspect::new(host.clone()));
        let send = Watched {
            send,
            watch: self.clone(),
            note: note.clone(),
            request,
            is_reported: is_watched,
            began: Instant::now(),
            status: None,
            bytes: 0,
            complete: false,
            suspect,
            authority: is_suspect.then(|| head.authority.as_str().to_owned()),
        };
        let recv = Counted { recv, note: note.clone() };
        let reason = Reason { note: Some(note), ..Reason::default() };
        Observed { halves: ExchangeHalves { send: Box::new(send), recv: Box::new(recv) }, reason }
    }
}

/// The response's half.
#[derive(Debug)]
struct Watched {
    send: Box<dyn SendHalf>,
    watch: Watch,
    note: Arc<Note>,
    request: u64,
    /// Its beginning was reported, so the rest is as well.
    is_reported: bool,
    began: Instant,
    status: Option<u16>,
    bytes: u64,
    complete: bool,
    suspect: Option<Suspect>,
    /// The host that the visitor asked for, if the service may refuse it.
    authority: Option<String>,
}

impl Watched {
    /// Reports an exchange that lasts until one side ends it.
    fn report_lasting(&self, status: StatusCode, headers: &HeaderMap, end: bool) {
        let what = if status == StatusCode::SWITCHING_PROTOCOLS {
            let protocol = headers.get(UPGRADE).map_or(&b""[..], HeaderValue::as_bytes);
            if is_websocket(protocol) {
                Lasting::WebSocket
            } else {
                Lasting::Upgrade(quoted(&String::from_utf8_lossy(protocol)))
            }
        } else if !end && is_event_stream(headers) && !headers.contains_key(CONTENT_LENGTH) {
            Lasting::EventStream
        } else {
            return;
        };
        self.watch.hub.publish_request(&Event::RequestLasts {
            tunnel: self.watch.tunnel,
            request: self.request,
            what,
            status: status.as_u16(),
            after: self.began.elapsed(),
        });
    }
}

impl SendHalf for Watched {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        self.send.poll_ready(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        self.send.poll_broken(cx)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let (status, is_interim) = (head.status, head.is_interim());
        if !is_interim && self.is_reported {
            // Before the head goes out, so that the beginning of a stream comes before what its visitor does with it.
            self.report_lasting(status, &head.headers, end);
        }
        self.send.send_response(head, end)?;
        if is_interim {
            return Ok(());
        }
        (self.status, self.complete) = (Some(status.as_u16()), end);
        if let Some(suspect) = &mut self.suspect {
            suspect.answered(status);
        }
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.bytes += data.len() as u64;
        self.complete |= end;
        if let Some(suspect) = &mut self.suspect {
            suspect.said(&data);
        }
        self.send.send_data(data, end);
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.send.send_trailers(fields)?;
        self.complete = true;
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.complete = false;
        self.send.break_off(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.complete = false;
        self.send.reset(code);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Watch { hub, tunnel, .. } = &self.watch;
        if let (Some(by), Some(host)) = (self.suspect.take().and_then(Suspect::blocked_by), self.authority.take()) {
            let host = quoted(&host);
            warn!(
                event = "blocked_host",
                host,
                "{by} refuses requests for the host {host}: start the client with --host-header rewrite, or allow the host there"
            );
            hub.publish(&Event::BlockedHost { tunnel: *tunnel, by, host });
        }
        if !self.is_reported {
            return;
        }
        hub.publish_request(&Event::RequestEnded {
            tunnel: *tunnel,
            request: self.request,
            status: self.status,
            bytes: self.bytes,
            received: self.note.received.load(Ordering::Relaxed),
            time: self.began.elapsed(),
            complete: self.complete,
            failure: self.note.failure.lock().take(),
        });
    }
}

/// The request's half.
#[derive(Debug)]
struct Counted {
    recv: Box<dyn RecvHalf>,
    note: Arc<Note>,
}

impl RecvHalf for Counted {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let received = ready!(self.recv.poll_recv(cx));
        if let Ok(Received::Data { data, .. }) = &received {
            self.note.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(received)
    }

    fn reset(&mut self, code: ResetCode) {
        self.recv.reset(code);
    }

    fn charge_to(&mut self, holding: Arc<cok_transport::Holding>) {
        self.recv.charge_to(holding);
    }
}
