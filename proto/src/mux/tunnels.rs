//! What the owner says about tunnels. The rules are [`Session`](crate::session::Session)'s.

use super::Mux;
use crate::frame;
use crate::message::{Bind, Bound, ErrorMessage, Unbind};
use crate::session::Said;

impl Mux {
    /// Client: asks for a tunnel. Ids rise, and are above those of moved tunnels. `false` if it may not ask now: the
    /// session drains, or has too many tunnels or unanswered Binds.
    pub fn bind(&mut self, id: u32, bind: &Bind) -> bool {
        let said = self.session.bind(id, bind);
        self.say(id, said)
    }

    /// Daemon: grants a tunnel. `false` if the client does not wait for it any more.
    pub fn bound(&mut self, id: u32, bound: Bound) -> bool {
        let said = self.session.bound(id, bound);
        self.say(id, said)
    }

    /// Daemon: refuses a tunnel. `false` if the client does not wait for it any more.
    pub fn refuse_bind(&mut self, id: u32, error: &ErrorMessage) -> bool {
        let said = self.session.refuse_bind(id, error);
        self.say(id, said)
    }

    /// Ends a tunnel. Its open exchanges go on; [`Mux::reset_tunnel`] ends them. `false` if it has ended already.
    pub fn unbind(&mut self, id: u32, unbind: &Unbind) -> bool {
        let said = self.session.unbind(id, unbind);
        self.say(id, said)
    }

    fn say(&mut self, id: u32, said: Option<Said>) -> bool {
        let Some(Said { frame, counts }) = said else { return false };
        frame::put_tunnel(&mut self.control, id, &frame);
        counts
    }
}
