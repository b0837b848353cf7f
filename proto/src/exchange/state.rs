//! The states of an exchange's two directions, and which steps lead from one to the next.
//!
//! Both transports use them. A reset is not a state of a direction: it ends both, and the exchange's owner keeps it.

use super::MAX_INTERIM_HEADS;
use crate::error::ProtocolError;

/// The direction towards the peer.
///
/// ```text
///  Head ──final head──► Body ──last part queued──► Finished ──last part sent──► Ended
///    └───────────────────┴─── the peer wants no more ──┴─────────────────────► Stopped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// Client: the final head has not been handed over.
    Head {
        /// Interim heads so far.
        interim: u8,
    },
    /// Body bytes and the end may be handed over.
    Body,
    /// Everything was handed over; some of it still waits to go out.
    Finished,
    /// The peer was sent everything.
    Ended,
    /// Daemon: the peer wants no more of the body, though the response goes on.
    Stopped,
}

/// The verdict on a part that the sender hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// It is queued.
    Queue,
    /// It is dropped: nothing more is sent, or it is a hint beyond the limit.
    Drop,
    /// The sender broke the order of parts. The exchange ends with LOCAL_BROKEN, so that the session goes on.
    Misuse,
}

impl SendState {
    /// Client: before its response.
    pub const fn before_response() -> Self {
        Self::Head { interim: 0 }
    }

    /// Daemon: behind its request. With `end`, the request has no body.
    pub const fn after_request(end: bool) -> Self {
        if end { Self::Finished } else { Self::Body }
    }

    /// Client: a response head is handed over. Interim heads beyond [`MAX_INTERIM_HEADS`] are dropped.
    pub fn head(&mut self, interim: bool, end: bool) -> Handed {
        match self {
            Self::Head { interim: count } if interim => {
                if *count == MAX_INTERIM_HEADS {
                    return Handed::Drop;
                }
                *count += 1;
                Handed::Queue
            }
            Self::Head { .. } => {
                *self = Self::after_request(end);
                Handed::Queue
            }
            Self::Body => Handed::Misuse,
            Self::Finished | Self::Ended | Self::Stopped => Handed::Drop,
        }
    }

    /// Body bytes or trailers are handed over; with `end`, nothing follows.
    pub fn body(&mut self, end: bool) -> Handed {
        match self {
            Self::Head { .. } => Handed::Misuse,
            Self::Body => {
                *self = Self::after_request(end);
                Handed::Queue
            }
            Self::Finished | Self::Ended | Self::Stopped => Handed::Drop,
        }
    }

    /// The last part has gone out.
    pub fn end(&mut self) {
        if *self == Self::Finished {
            *self = Self::Ended;
        }
    }

    /// Daemon: the peer wants no more.
    pub fn stop(&mut self) {
        *self = Self::Stopped;
    }

    /// Whether the sender may leave without abandoning the exchange.
    pub fn may_leave(self) -> bool {
        matches!(self, Self::Finished | Self::Ended | Self::Stopped)
    }

    /// Whether nothing more goes out.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Stopped)
    }
}

/// The direction from the peer.
///
/// ```text
///  Head ──request or final head──► Body ──END or Trailers──► Ended
///                                    └─ reader left ─► Unwanted ┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// The request or the response's final head has not come.
    Head {
        /// Interim heads so far.
        interim: u8,
    },
    /// Body bytes and the end may come.
    Body,
    /// Client: the reader has left. The rest of the request is dropped and earns no credit.
    Unwanted,
    /// The peer has sent its last part, or we have sent NO_ERROR.
    Ended,
}

impl RecvState {
    /// Before the first head.
    pub(crate) const fn before_head() -> Self {
        Self::Head { interim: 0 }
    }

    /// Client: behind the request. With `end`, the request has no body.
    pub(crate) const fn after_request(end: bool) -> Self {
        if end { Self::Ended } else { Self::Body }
    }

    /// Client: a request came.
    pub(crate) fn request(&mut self, end: bool) -> Result<(), ProtocolError> {
        if !matches!(self, Self::Head { .. }) {
            return Err(ProtocolError::Unexpected { kind: "HTTPRequest", why: "it came already" });
        }
        *self = Self::after_request(end);
        Ok(())
    }

    /// Daemon: a response head came.
    pub(crate) fn response(&mut self, interim: bool, end: bool) -> Result<(), ProtocolError> {
        let unexpected = |why| Err(ProtocolError::Unexpected { kind: "HTTPResponse", why });
        match self {
            Self::Head { interim: count } if interim => {
                if end {
                    return unexpected("an interim head cannot end the exchange");
                }
                if *count == MAX_INTERIM_HEADS {
                    return unexpected("too many interim heads");
                }
                *count += 1;
            }
            Self::Head { .. } => *self = Self::after_request(end),
            Self::Body | Self::Unwanted | Self::Ended => return unexpected("the final head came already"),
        }
        Ok(())
    }

    /// Whether a Data or Trailers frame may come now.
    pub(crate) fn check_body(self, kind: &'static str) -> Result<(), ProtocolError> {
        match self {
            Self::Head { .. } => Err(ProtocolError::Unexpected { kind, why: "before the final head" }),
            Self::Body | Self::Unwanted => Ok(()),
            Self::Ended => Err(ProtocolError::Unexpected { kind, why: "after the end of its direction" }),
        }
    }

    /// The last part came, or we send NO_ERROR.
    pub(crate) fn end(&mut self) {
        *self = Self::Ended;
    }

    /// Client: the reader leaves.
    pub(crate) fn leave(&mut self) {
        if *self != Self::Ended {
            *self = Self::Unwanted;
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(self) -> bool {
        self == Self::Ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_sent_in_order() {
        let mut state = SendState::before_response();
        assert_eq!(state.body(true), Handed::Misuse);
        for _ in 0..MAX_INTERIM_HEADS {
            assert_eq!(state.head(true, false), Handed::Queue);
        }
        assert_eq!(state.head(true, false), Handed::Drop, "hints beyond the limit");
        assert_eq!(state.head(false, false), Handed::Queue);
        assert_eq!(state.head(true, false), Handed::Misuse);
        state.end();
        assert_eq!(state, SendState::Body, "the end was not handed over");
        assert_eq!(state.body(false), Handed::Queue);
        assert!(!state.may_leave());
        assert_eq!(state.body(true), Handed::Queue);
        assert!(state.may_leave() && !state.is_over());
        assert_eq!((state.body(true), state.head(false, true)), (Handed::Drop, Handed::Drop));
        state.end();
        assert!(state.is_over());
    }

    #[test]
    fn a_stopped_upload_takes_nothing() {
        for mut state in [SendState::after_request(false), SendState::after_request(true), SendState::Ended] {
            state.stop();
            assert!(state.is_over() && state.may_leave());
            assert_eq!(state.body(true), Handed::Drop);
        }
    }

    #[test]
    fn a_response_is_received_in_order() {
        let mut state = RecvState::before_head();
        assert!(state.check_body("Data").is_err());
        assert!(state.response(true, true).is_err());
        for _ in 0..MAX_INTERIM_HEADS {
            state.response(true, false).unwrap();
        }
        assert!(state.response(true, false).is_err());
        state.response(false, false).unwrap();
        assert!(state.response(false, false).is_err());
        state.check_body("Data").unwrap();
        state.end();
        assert!(state.check_body("Data").is_err() && state.is_over());
        state.leave();
        assert_eq!(state, RecvState::Ended);
    }

    #[test]
    fn a_request_comes_once() {
        let mut state = RecvState::before_head();
        state.request(false).unwrap();
        assert!(state.request(false).is_err());
        state.leave();
        state.check_body("Trailers").unwrap();
        assert!(!state.is_over());
    }
}
