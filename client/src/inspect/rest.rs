//! The body of a request that the service did not read, such as one that is down. It is captured too, so that the request can
//! be repeated once the service is up.
//!
//! What has come already is taken at once. A short body may still be on its way: it follows its head within a moment. The
//! failure is passed on behind it, which the visitor hardly notices, since it is still sending.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use cok_proto::ResetCode;
use cok_proto::message::DEFAULT_WINDOW;
use cok_transport::{ExchangeError, Received, RecvHalf, SendHalf};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::capture::Copy;
use super::live::Side;

/// The longest body that a failure waits for: what the daemon may send before anything is read.
const LONGEST: u64 = DEFAULT_WINDOW as u64;
/// The longest that a failure waits.
const LIMIT: Duration = Duration::from_millis(250);

/// What both halves answer once this side has broken off.
pub(super) const BROKEN_OFF: ExchangeError = ExchangeError::Reset(ResetCode::Cancelled);

/// Reads and copies the request's direction.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) recv: Box<dyn RecvHalf>,
    pub(super) copy: Copy,
    /// Nothing follows, or what follows cannot be read.
    pub(super) is_over: bool,
    /// The length that the head announces, unless the body does not follow by itself.
    pub(super) announced: Option<u64>,
}

impl Reader {
    /// Polls for the next part, and copies it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let received = ready!(self.recv.poll_recv(cx));
        match &received {
            Ok(Received::Data { data, end }) => {
                self.copy.data(data);
                self.is_over = *end;
                if *end || self.announced.is_some_and(|length| length == self.count()) {
                    self.copy.live.is_request_complete.store(true, Ordering::Relaxed);
                }
            }
            Ok(Received::Trailers(fields)) => {
                self.copy.trailers(fields);
                self.copy.live.is_request_complete.store(true, Ordering::Relaxed);
                self.is_over = true;
            }
            Ok(Received::Head { .. }) => {}
            Err(_) => self.is_over = true,
        }
        Poll::Ready(received)
    }

    fn count(&self) -> u64 {
        self.copy.live.bytes(Side::Request).load(Ordering::Relaxed)
    }

    /// Whether a short body is not there yet.
    fn is_due(&self) -> bool {
        !self.is_over && self.announced.is_some_and(|length| length <= LONGEST && self.count() < length)
    }

    /// Takes what has come. Returns whether a short body is still to come.
    fn take_present(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        while self.is_due() {
            if self.poll(&mut cx).is_pending() {
                return true;
            }
        }
        false
    }

    /// Breaks the exchange off once the body has come, or after the limit.
    pub(super) async fn read_before(mut self, mut send: Box<dyn SendHalf>, code: ResetCode) {
        let read = async { while self.is_due() && std::future::poll_fn(|cx| self.poll(cx)).await.is_ok() {} };
        let _late = timeout(LIMIT, read).await;
        send.break_off(code);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.copy.end_request();
    }
}

/// Where the request's half leaves what was not read, until it is known how the exchange ends.
#[derive(Debug, Default)]
pub(super) struct Rest(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// The request is read, and has no answer.
    #[default]
    Read,
    /// It is not read any more, and has no answer. Some of a short body is to come.
    Left(Reader),
    /// It is answered. The service may refuse the rest.
    Answered,
}

impl Rest {
    /// Notes that the request's half is not read any more.
    pub(super) fn left(self: &Arc<Self>, mut reader: Reader) {
        let mut state = self.0.lock();
        if matches!(*state, State::Read) && reader.take_present() {
            *state = State::Left(reader);
        }
    }

    /// Notes that there is an answer, or a failure. Returns what was left before.
    pub(super) fn answered(&self) -> Option<Reader> {
        match std::mem::replace(&mut *self.0.lock(), State::Answered) {
            State::Left(reader) => Some(reader),
            State::Read | State::Answered => None,
        }
    }
}
