//! What both sides say about the tunnels of their session.

use crate::error::{ErrorCode, ProtocolError};
use crate::message::{Bind, Bound, ErrorMessage, TunnelFrame, Unbind};

use super::{Admission, Phase, Role, Session, Signal, shortened};

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

    /// Client: asks for a tunnel. Ids rise, and are above those of moved tunnels. `None` if it may not ask now.
    pub fn bind(&mut self, id: u32, bind: &Bind) -> Option<TunnelFrame> {
        let may = self.role == Role::Client && matches!(self.phase, Phase::Open) && self.bindings.ask(id);
        may.then(|| TunnelFrame::Bind(bind.clone()))
    }

    /// Daemon: grants a tunnel. `None` if the client does not wait for it any more.
    pub fn bound(&mut self, id: u32, bound: Bound) -> Option<TunnelFrame> {
        (self.is_established() && self.bindings.answer(id, true)).then_some(TunnelFrame::Bound(bound))
    }

    /// Daemon: refuses a tunnel. `None` if the client does not wait for it any more.
    pub fn refuse_bind(&mut self, id: u32, error: &ErrorMessage) -> Option<TunnelFrame> {
        (self.is_established() && self.bindings.answer(id, false)).then(|| TunnelFrame::Refused(shortened(error)))
    }

    /// Ends a tunnel. `None` if it has ended already.
    pub fn unbind(&mut self, id: u32, unbind: &Unbind) -> Option<TunnelFrame> {
        (self.is_established() && self.bindings.remove(id)).then(|| TunnelFrame::Unbind(unbind.clone()))
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
