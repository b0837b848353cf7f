//! An HTTP/1.1 connection to the service, with its driver and what is known of its last exchange.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONNECTION, HeaderMap, HeaderName};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::pool::{Permit, Starvation};
use super::shared_wire::SharedWire;
use super::shortcut::{self, Whole};
use super::wire::{Ending, Io, Shared, Wire};
use crate::proxy::alarm::Alarm;
use crate::proxy::body::RequestBody;
use crate::proxy::respond::Interim;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// The read buffer of a connection. The longest head that the tunnel carries fits.
const BUFFER: usize = 80 * 1024;
/// How long before the service's own limit an idle connection is retired, so that no request meets its end.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// How many requests of a connection go straight to the library after one that the shortcut had to hand over. Handing over
/// costs a twentieth of an exchange, and like responses often follow each other.
const PAUSE: u8 = 8;

/// Who carries an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Library,
    Shortcut,
    /// The library has taken over from the shortcut.
    HandedOver,
}

/// What has become of a request that the shortcut sent.
#[derive(Debug)]
pub(crate) enum Shortcut {
    /// Its whole response is here.
    Whole(Whole),
    /// The library goes on: the response is not a common one.
    HandedOver,
    /// The service closed the connection and sent nothing.
    Closed,
}

/// A connection and its driver.
pub(crate) struct Connection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    driver: Box<http1::Connection<TokioIo<SharedWire>, RequestBody>>,
    /// The stream under the driver.
    wire: Arc<Mutex<Wire>>,
    /// Holds what the shortcut reads.
    read: BytesMut,
    /// Who carries its last exchange.
    carrier: Carrier,
    /// How many requests are left that go straight to the library.
    pause: u8,
    shared: Arc<Shared>,
    /// The driver has ended: the connection is closed, or upgraded.
    ended: bool,
    /// The service has sent bytes that belong to no response.
    pub(super) is_spoiled: bool,
    /// Interim responses that the service has sent.
    pub(crate) interim: Arc<Interim>,
    /// It has carried a request before.
    pub(crate) reused: bool,
    /// Its last response has no body by rule, whatever the service sends after the head.
    pub(crate) is_bodiless: bool,
    /// How long the service took until its last response began.
    pub(crate) took: Duration,
    /// From the last byte of its last request to the first byte of the response; `None` if the response came first.
    pub(crate) first_byte: Option<Duration>,
    /// When the service may close it, if it has said so.
    pub(super) expires: Option<Instant>,
    /// Counts it as busy. `None` while it is idle or lasts.
    pub(super) permit: Option<Permit>,
    /// Gives up idle connections for a fresh one.
    pub(crate) starvation: Option<Starvation>,
    /// The timer of its requests.
    pub(crate) alarm: Alarm,
}

impl Connection {
    /// Starts HTTP/1.1 on a fresh byte stream.
    pub(super) async fn open(io: Io, ending: Ending) -> io::Result<Self> {
        let (wire, shared) = Wire::http1(io, ending);
        let wire = Arc::new(Mutex::new(wire));
        let mut builder = http1::Builder::new();
        // RFC 9112, section 5.1: a proxy removes white space before a colon.
        builder.max_buf_size(BUFFER).allow_spaces_after_header_name_in_responses(true);
        let (sender, driver) =
            builder.handshake(TokioIo::new(SharedWire(wire.clone()))).await.map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver: Box::new(driver),
            wire,
            read: BytesMut::new(),
            carrier: Carrier::Library,
            pause: 0,
            shared,
            ended: false,
            is_spoiled: false,
            interim: Arc::default(),
            reused: false,
            is_bodiless: false,
            took: Duration::ZERO,
            first_byte: None,
            expires: None,
            permit: None,
            starvation: None,
            alarm: Alarm::default(),
        })
    }

    /// Lets the connection read and write. Ready once it has ended. The response or its body reports the reason.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended
            && let Poll::Ready(result) = self.driver.poll_without_shutdown(cx)
        {
            self.ended = true;
            self.is_spoiled = result.is_err_and(|error| is_unasked(&error));
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Makes a request ready for [`poll_shortcut`](Self::poll_shortcut) and returns true, if it is a common one without a body
    /// and the connection has proved itself.
    pub(crate) fn prepare_shortcut<B>(&mut self, message: &http::Request<B>) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        self.reused && self.shared.put_head(|head| shortcut::put_head(message, head))
    }

    /// Sends the prepared request from its byte `sent` on, and reads its response.
    pub(crate) fn poll_shortcut(&mut self, cx: &mut Context<'_>, sent: &mut usize) -> Poll<Shortcut> {
        let mut wire = self.wire.lock();
        ready!(wire.poll_send_head(cx, sent));
        self.read.reserve(shortcut::MOST);
        if !matches!(ready!(poll_read_buf(Pin::new(&mut *wire), cx, &mut self.read)), Ok(1..)) {
            return Poll::Ready(Shortcut::Closed);
        }
        let read = self.read.split().freeze();
        Poll::Ready(if let Some(whole) = shortcut::whole(&read) {
            self.carrier = Carrier::Shortcut;
            Shortcut::Whole(whole)
        } else {
            wire.hand_over(read);
            (self.carrier, self.pause) = (Carrier::HandedOver, PAUSE);
            Shortcut::HandedOver
        })
    }

    /// Sends `target`, if there is one, in place of the next request's own.
    pub(crate) fn replace_target(&self, target: Option<Bytes>) {
        self.shared.replace_target(target);
    }

    /// Keeps the next request's fields, if `are_kept`, in case that it must be sent again. The shortcut always keeps them.
    pub(crate) fn keep_fields(&self, are_kept: bool) {
        if self.carrier == Carrier::Library {
            self.shared.keep_head(are_kept);
        }
    }

    /// The fields that were kept. `None` if no request has been written.
    pub(crate) fn kept_fields(&self) -> Option<HeaderMap> {
        self.shared.kept_fields()
    }

    /// Heeds the service's own limit for idle connections.
    pub(crate) fn heed_keep_alive(&mut self, headers: &HeaderMap) {
        let kept = keep_alive(headers);
        self.expires = kept.map(|kept| Instant::now() + kept.saturating_sub(KEEP_ALIVE_MARGIN.min(kept / 2)));
    }

    /// The exchange lasts until a peer ends it, so it no longer counts as busy.
    pub(crate) fn lasts(&mut self) {
        self.permit = None;
    }

    /// After an upgrade: the bare byte stream, and the bytes already read from it.
    pub(crate) fn into_io(self) -> (Io, Bytes) {
        let io = self.wire.lock().take_io();
        (io, self.driver.into_parts().read_buf)
    }

    /// The response has ended. Returns whether another request can be sent.
    pub(super) fn rest(&mut self) -> bool {
        self.shared.rest();
        if std::mem::replace(&mut self.carrier, Carrier::Library) == Carrier::Shortcut {
            return self.is_at_rest();
        }
        // The end of an upload may go out only now. What the service then sends may be for it, and not for another request.
        self.is_ready() && !self.shared.is_asked()
    }

    /// Whether another request can be sent at this moment.
    pub(super) fn is_usable(&mut self) -> bool {
        self.shared.probe(true);
        let usable = self.sender.is_ready() && self.is_at_rest();
        self.shared.probe(false);
        usable && self.expires.is_none_or(|expires| Instant::now() < expires)
    }

    /// Whether the service neither has sent anything since the last response, nor has closed the connection.
    fn is_at_rest(&mut self) -> bool {
        if self.ended || self.shared.is_broken() {
            return false;
        }
        let mut byte = [0];
        let mut wire = self.wire.lock();
        match Pin::new(&mut *wire).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                self.is_spoiled = result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData);
                false
            }
        }
    }

    fn is_ready(&mut self) -> bool {
        let is_open = self.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        is_open && self.sender.is_ready() && !self.shared.is_broken()
    }
}

/// Whether a response leaves its connection open (RFC 9112, section 9.3).
pub(crate) fn keeps_open(version: Version, headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let closes = values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"));
    version == Version::HTTP_11 && !closes
}

/// Whether a connection ended because the service sent bytes that belong to no response.
fn is_unasked(error: &hyper::Error) -> bool {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() || error.is_user() {
        return false;
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_none_or(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

/// The seconds of `Keep-Alive: timeout=N`.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let parameters = headers.get_all(&KEEP_ALIVE).iter().filter_map(|value| value.to_str().ok());
    let timeout = parameters.flat_map(|value| value.split(',')).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().trim_matches('"').parse::<u32>().ok())?
    });
    timeout.map(|seconds| Duration::from_secs(seconds.into()))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("reused", &self.reused).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_idle_connections_is_read() {
        let read = |value: &'static str| {
            keep_alive(&HeaderMap::from_iter([(
                http::HeaderName::from_static("keep-alive"),
                http::HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(read("timeout=5"), Some(Duration::from_secs(5)));
        assert_eq!(read("max=100, Timeout = \"7\""), Some(Duration::from_secs(7)));
        assert_eq!(read("max=100"), None);
        assert_eq!(read("timeout=soon"), None);
        assert_eq!(keep_alive(&HeaderMap::new()), None);
    }
}
