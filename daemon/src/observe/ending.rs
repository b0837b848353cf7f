//! How a request ends. The names are stable: logs and metrics have them.

use cok_transport::ExchangeError;

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// The visitor's connection took the whole response.
    Complete,
    /// The visitor left before the end.
    VisitorLeft,
    /// The daemon refused it, for this reason. The visitor got an answer that says so.
    Refused(&'static str),
    /// The service or the way to it failed before a response, for this reason. The visitor got an answer that says so.
    Failed(&'static str),
    /// The response broke off, for this reason.
    Broken(&'static str),
    /// The daemon ended it because its visitor stood still.
    Stalled,
    /// The daemon ended it because others needed its place or its memory.
    Evicted,
    /// The daemon ended it because it stopped.
    Drained,
}

impl Ending {
    /// Of a response that broke off with this error.
    pub(crate) fn broken(error: ExchangeError) -> Self {
        Self::Broken(match error {
            ExchangeError::SessionLost => "session_lost",
            ExchangeError::Reset(code) => code.name(),
        })
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::VisitorLeft => "visitor_left",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Broken(_) => "broken",
            Self::Stalled => "stalled",
            Self::Evicted => "evicted",
            Self::Drained => "drained",
        }
    }

    /// Why, where the name does not say all: one of a fixed set of words.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Refused(reason) | Self::Failed(reason) | Self::Broken(reason) => Some(reason),
            _ => None,
        }
    }
}
