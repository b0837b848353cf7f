//! The result of a visit.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio_tungstenite::tungstenite;

/// One visit with its times and its result. `asked` is the time when it took or opened a connection, and `reused` is
/// true if that connection carried an earlier request. Times are seconds of the machine's monotonic clock.
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
    /// A visit that was due `behind` ago.
    pub(crate) fn due(kind: &'static str, behind: Duration) -> Self {
        Self { kind, due: now() - behind.as_secs_f64(), asked: None, reused: false, ended: None, why: None }
    }

    /// Notes that the visit takes or opens a connection.
    pub(crate) fn asks(&mut self, reused: bool) {
        self.asked = Some(now());
        self.reused = reused;
    }

    pub(crate) fn ends(&mut self, with: Result<(), Why>) {
        self.ended = Some(now());
        self.why = with.err();
    }
}

/// Returns the machine's monotonic time in seconds.
fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Why a visit failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// The address refuses connections.
    Refused(String),
    /// The connection broke off.
    BrokeOff(String),
    /// No complete response came in time.
    TimedOut,
    /// The response was not the expected one.
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
            // rustls reports a broken protocol this way.
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
