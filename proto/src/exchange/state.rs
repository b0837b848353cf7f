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
///
/// The request of an upgrade has two ends. Its body ends first. Raw bytes follow if the answer is a 101:
///
/// ```text
///  UpgradeBody ──last part queued──► UpgradeEnded ──101──► Body
///       └───────── any other final head ───┴─────────────► Body, Finished or Ended
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
    /// Daemon: the body of an upgrade's request may be handed over. The answer has not come.
    UpgradeBody,
    /// Daemon: the body of an upgrade's request was handed over, and the answer has not come.
    UpgradeEnded {
        /// The end has gone out.
        sent: bool,
    },
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
    pub const fn after_request(end: bool, upgrade: bool) -> Self {
        match (upgrade, end) {
            (true, false) => Self::UpgradeBody,
            (true, true) => Self::UpgradeEnded { sent: false },
            (false, _) => Self::after_head(end),
        }
    }

    const fn after_head(end: bool) -> Self {
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
                *self = Self::after_head(end);
                Handed::Queue
            }
            Self::Body | Self::UpgradeBody | Self::UpgradeEnded { .. } => Handed::Misuse,
            Self::Finished | Self::Ended | Self::Stopped => Handed::Drop,
        }
    }

    /// Body bytes or trailers are handed over; with `end`, nothing follows.
    pub fn body(&mut self, end: bool) -> Handed {
        match self {
            Self::Head { .. } | Self::UpgradeEnded { .. } => Handed::Misuse,
            Self::Body => {
                *self = Self::after_head(end);
                Handed::Queue
            }
            Self::UpgradeBody => {
                *self = Self::after_request(end, true);
                Handed::Queue
            }
            Self::Finished | Self::Ended | Self::Stopped => Handed::Drop,
        }
    }

    /// The body breaks off behind what was handed over. Before a body, that is a misuse: the exchange is abandoned.
    pub fn break_off(&mut self) -> Handed {
        match self {
            Self::Head { .. } | Self::UpgradeEnded { .. } => Handed::Misuse,
            Self::Body | Self::UpgradeBody => {
                *self = Self::Finished;
                Handed::Queue
            }
            Self::Finished | Self::Ended | Self::Stopped => Handed::Drop,
        }
    }

    /// The last part has gone out.
    pub fn end(&mut self) {
        match self {
            Self::Finished => *self = Self::Ended,
            Self::UpgradeEnded { sent } => *sent = true,
            _ => {}
        }
    }

    /// Daemon: the final head came, which is a 101 or another one.
    pub fn answered(&mut self, switch: bool) -> Result<(), ProtocolError> {
        *self = match (*self, switch) {
            (Self::UpgradeEnded { sent: true }, true) | (Self::UpgradeBody, false) => Self::Body,
            (_, true) => {
                let why = "a 101 to no upgrade, or before the request's end";
                return Err(ProtocolError::Unexpected { kind: "HTTPResponse", why });
            }
            (Self::UpgradeEnded { sent: true }, false) => Self::Ended,
            (Self::UpgradeEnded { sent: false }, false) => Self::Finished,
            (other, false) => other,
        };
        Ok(())
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
///
/// The request of an upgrade has two ends, as for [`SendState`]:
///
/// ```text
///  UpgradeBody ──END or Trailers──► UpgradeEnded ──101──► Body
///       └──────── any other final head ───┴────────────► Body or Ended
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
    /// Client: the body of an upgrade's request may come. It has no answer yet.
    UpgradeBody,
    /// Client: an upgrade's request has come whole, and has no answer yet.
    UpgradeEnded,
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
    pub(crate) const fn after_request(end: bool, upgrade: bool) -> Self {
        match (upgrade, end) {
            (true, false) => Self::UpgradeBody,
            (true, true) => Self::UpgradeEnded,
            (false, _) => Self::after_head(end),
        }
    }

    const fn after_head(end: bool) -> Self {
        if end { Self::Ended } else { Self::Body }
    }

    /// Client: a request came.
    pub(crate) fn request(&mut self, end: bool, upgrade: bool) -> Result<(), ProtocolError> {
        if !matches!(self, Self::Head { .. }) {
            return Err(ProtocolError::Unexpected { kind: "HTTPRequest", why: "it came already" });
        }
        *self = Self::after_request(end, upgrade);
        Ok(())
    }

    /// Client: we send the final head, which is a 101 or another one. `false` if no 101 may be sent: the request is no
    /// upgrade, or its body has not ended.
    pub(crate) fn answered(&mut self, switch: bool) -> bool {
        *self = match (*self, switch) {
            (Self::UpgradeEnded, true) | (Self::UpgradeBody, false) => Self::Body,
            (_, true) => return false,
            (Self::UpgradeEnded, false) => Self::Ended,
            (other, false) => other,
        };
        true
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
            Self::Head { .. } => *self = Self::after_head(end),
            _ => return unexpected("the final head came already"),
        }
        Ok(())
    }

    /// Whether a Data or Trailers frame may come now.
    pub(crate) fn check_body(self, kind: &'static str) -> Result<(), ProtocolError> {
        match self {
            Self::Head { .. } => Err(ProtocolError::Unexpected { kind, why: "before the final head" }),
            Self::Body | Self::UpgradeBody | Self::Unwanted => Ok(()),
            Self::UpgradeEnded => Err(ProtocolError::Unexpected { kind, why: "before the answer to an upgrade" }),
            Self::Ended => Err(ProtocolError::Unexpected { kind, why: "after the end of its direction" }),
        }
    }

    /// The last part came.
    pub(crate) fn end(&mut self) {
        *self = if *self == Self::UpgradeBody { Self::UpgradeEnded } else { Self::Ended };
    }

    /// Nothing more comes: the direction broke off, or we send NO_ERROR.
    pub(crate) fn stop(&mut self) {
        *self = Self::Ended;
    }

    /// Client: the reader leaves.
    pub(crate) fn leave(&mut self) {
        *self = if matches!(self, Self::Ended | Self::UpgradeEnded) { Self::Ended } else { Self::Unwanted };
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
        for mut state in [SendState::Body, SendState::Finished, SendState::Ended] {
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
        state.request(false, false).unwrap();
        assert!(state.request(false, false).is_err());
        state.leave();
        state.check_body("Trailers").unwrap();
        assert!(!state.is_over());
    }

    #[test]
    fn raw_bytes_follow_a_101_behind_the_requests_end() {
        let mut state = SendState::after_request(false, true);
        assert_eq!(state.body(true), Handed::Queue);
        assert_eq!(state.body(false), Handed::Misuse, "raw bytes before the answer");
        assert!(state.answered(true).is_err(), "the peer cannot know the end yet");
        state.end();
        state.answered(true).unwrap();
        assert_eq!(state.body(true), Handed::Queue);
        state.end();
        assert!(state.is_over());

        let mut state = RecvState::after_request(false, true);
        assert!(!state.answered(true), "the request has not ended");
        state.end();
        assert!(state.check_body("Data").is_err() && !state.is_over());
        assert!(state.answered(true));
        state.check_body("Data").unwrap();
        state.end();
        assert!(state.is_over());
    }

    #[test]
    fn a_declined_upgrade_is_an_ordinary_request() {
        for (end, over) in [(true, true), (false, false)] {
            let (mut send, mut recv) = (SendState::after_request(end, true), RecvState::after_request(end, true));
            send.end();
            send.answered(false).unwrap();
            assert!(recv.answered(false));
            assert_eq!((send.is_over(), recv.is_over()), (over, over));
        }
        assert!(SendState::after_request(true, false).answered(true).is_err());
        assert!(!RecvState::after_request(true, false).answered(true));
    }
}
