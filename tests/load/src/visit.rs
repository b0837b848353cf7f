//! What became of a visit.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio_tungstenite::tungstenite;

/// One visit: its kind, when it was due, when it got a connection or began to open one, whether another request had that
/// connection before, and when it was answered or failed, and why. Times are those of the machine's monotonic clock, in
/// seconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Visit {
    pub(crate) kind: &'static str,
    pub(crate) due: f64,
    pub(crate) asked: Option<f64>,
    pub(crate) reused: bool,
    pub(crate) ended: Option<f64>,
    pub(crate) why: Option<Why>,
}

impl Visit {
    /// One that was due so long ago.
    pub(crate) fn due(kind: &'static str, behind: Duration) -> Self {
        Self { kind, due: now() - behind.as_secs_f64(), asked: None, reused: false, ended: None, why: None }
    }

    /// Its connection is there, or is about to be opened.
    pub(crate) fn asks(&mut self, reused: bool) {
        self.asked = Some(now());
        self.reused = reused;
    }

    pub(crate) fn ends(&mut self, with: Result<(), Why>) {
        self.ended = Some(now());
        self.why = with.err();
    }
}

/// The time by the machine's monotonic clock, in seconds.
fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Why a visit failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// Nobody listens.
    Refused(String),
    /// The connection broke off.
    BrokeOff(String),
    /// There is no answer, or no end of it.
    TimedOut,
    /// It was not answered as it had to be.
    Wrong(String),
}

impl Why {
    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(error.to_string()),
            // What rustls does not like.
            io::ErrorKind::InvalidData => Self::Wrong(error.to_string()),
            _ => Self::BrokeOff(format!("{error:?}")),
        }
    }
}

impl From<hyper::Error> for Why {
    fn from(error: hyper::Error) -> Self {
        let broke_off = error.is_incomplete_message()
            || error.is_closed()
            || error.is_canceled()
            || error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some();
        if broke_off { Self::BrokeOff(format!("{error:?}")) } else { Self::Wrong(format!("{error:?}")) }
    }
}

impl From<tungstenite::Error> for Why {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::error::ProtocolError::{HandshakeIncomplete, ResetWithoutClosingHandshake};
        match error {
            tungstenite::Error::Io(error) => error.into(),
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(HandshakeIncomplete | ResetWithoutClosingHandshake) => {
                Self::BrokeOff(format!("{error:?}"))
            }
            error => Self::Wrong(format!("{error:?}")),
        }
    }
}
