//! What both sides say about the tunnels of their session.

use crate::error::{ErrorCode, ProtocolError};
use crate::frame::{ID_LEN, MAX_CONTROL};
use crate::message::{Bind, Bound, ErrorMessage, TunnelFrame, Unbind};

use super::bindings::Asker;
use super::{Admission, Phase, Role, Session, Signal, shortened};

/// A frame about a tunnel that is to be sent.
#[derive(Debug, PartialEq)]
pub struct Said {
    /// The frame.
    pub frame: TunnelFrame,
    /// Whether it has the effect that its sender wants. The answer to a Bind has none once the tunnel has ended.
    pub counts: bool,
}

impl Session {
    pub(super) fn receive_tunnel(&mut self, id: u32, frame: TunnelFrame) -> Result<Option<Signal>, ProtocolError> {
        let kind = frame.kind().name();
        let known = match (self.role, &frame) {
            (Role::Daemon, TunnelFrame::Bind(_)) => {
                self.bindings.receive_bind(id)?;
                if self.is_draining() {
                    let message = "the session drains; ask its successor".to_owned();
                    let error = ErrorMessage { code: ErrorCode::Draining, message, retryable: true };
                    return Ok(Some(Signal::RefuseBind { id, error }));
                }
                true
            }
            (Role::Client, TunnelFrame::Bound(_)) => self.bindings.receive_answer(kind, id, true)?,
            (Role::Client, TunnelFrame::Refused(_)) => self.bindings.receive_answer(kind, id, false)?,
            (_, TunnelFrame::Unbind(_)) => self.bindings.receive_unbind(id)?,
            _ => return Err(ProtocolError::Unexpected { kind, why: "only the other side sends it" }),
        };
        Ok(known.then_some(Signal::Tunnel { id, frame }))
    }

    /// Client: asks for a tunnel. Ids rise, and are above those of moved tunnels. `None` if it may not ask now, or if the
    /// Bind is too long for a frame.
    pub fn bind(&mut self, id: u32, bind: &Bind) -> Option<Said> {
        let open = self.role == Role::Client && matches!(self.phase, Phase::Open);
        let may = open && fits(bind) && self.bindings.ask(id);
        may.then(|| Said { frame: TunnelFrame::Bind(bind.clone()), counts: true })
    }

    /// Daemon: grants a tunnel. `None` if no Bind of this id waits for an answer.
    pub fn bound(&mut self, id: u32, bound: Bound) -> Option<Said> {
        self.answer(
            id,
            true,
            |granted| if granted { TunnelFrame::Bound(bound) } else { TunnelFrame::Refused(withdrawn()) },
        )
    }

    /// Daemon: refuses a tunnel. `None` if no Bind of this id waits for an answer.
    pub fn refuse_bind(&mut self, id: u32, error: &ErrorMessage) -> Option<Said> {
        self.answer(id, false, |_| TunnelFrame::Refused(shortened(error)))
    }

    fn answer(&mut self, id: u32, granted: bool, frame: impl FnOnce(bool) -> TunnelFrame) -> Option<Said> {
        if !self.is_established() {
            return None;
        }
        let counts = self.bindings.answer(id, granted)? == Asker::Waits;
        Some(Said { frame: frame(counts), counts })
    }

    /// Ends a tunnel. `None` if it has ended already. A Bind of it that has no answer still gets one.
    pub fn unbind(&mut self, id: u32, unbind: &Unbind) -> Option<Said> {
        let ends = self.is_established() && self.bindings.end(id);
        ends.then(|| Said { frame: TunnelFrame::Unbind(unbind.clone()), counts: true })
    }

    /// Daemon: all answers to Binds have gone out.
    pub fn answers_sent(&mut self) {
        self.bindings.sent();
    }

    /// Client: judges the tunnel of a request that arrived.
    pub fn request_for(&mut self, tunnel: u32) -> Result<Admission, ProtocolError> {
        let takes = self.bindings.takes_request(tunnel, self.carrier)?;
        Ok(if takes { Admission::Accept } else { Admission::Refuse })
    }
}

/// Whether a Bind fits into a frame. The peer would end the session.
fn fits(bind: &Bind) -> bool {
    serde_json::to_vec(bind).is_ok_and(|payload| ID_LEN + payload.len() <= MAX_CONTROL)
}

/// Answers the Bind of a tunnel that has ended meanwhile.
fn withdrawn() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Other("withdrawn".to_owned()),
        message: "the tunnel was unbound before it was bound".to_owned(),
        retryable: true,
    }
}
