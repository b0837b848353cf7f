//! A key that changes while its sessions live: what it no longer allows ends at once, and the rest goes on.

use std::time::Duration;

use cok_proto::{ErrorMessage, ResetCode, Unbind, UnbindReason};

use super::Tunnels;
use super::refusals;
use super::serve::log_offline;
use super::session::Session;

/// What operators read in the log.
const KEY_ENDED: &str = "its key has ended";
const FEWER_SESSIONS: &str = "its key may have fewer sessions now";
const NOT_ALLOWED: &str = "its key no longer allows it";

impl Tunnels {
    /// Ends what the session's key no longer allows. Returns false if that is the session.
    pub(super) fn enforce(&self, session: &Session) -> bool {
        let Some(key) = session.client.grant.record() else {
            self.end_session(session, refusals::unauthorized(), KEY_ENDED);
            return false;
        };
        if !session.permit.is_within(key.limits.sessions) {
            self.end_session(session, refusals::too_many_sessions(&key), FEWER_SESSIONS);
            return false;
        }
        let (excess, config) = (self.admission.tunnels.excess(&key), self.config());
        for (id, name) in session.tunnels() {
            if excess.contains(&name) || !config.names.allow(&key, &name) {
                self.revoke(session, id, NOT_ALLOWED);
                session.transport.unbind(id, &Unbind::new(UnbindReason::Revoked, Duration::ZERO));
            }
        }
        true
    }

    fn end_session(&self, session: &Session, why: ErrorMessage, reason: &str) {
        for (id, _) in session.tunnels() {
            self.revoke(session, id, reason);
        }
        session.transport.close(why);
    }

    /// Ends a tunnel with all its exchanges. Its visitors do not wait for it.
    fn revoke(&self, session: &Session, id: u32, reason: &str) {
        if let Some((name, live)) = self.directory.leave(session, id, true) {
            log_offline(&session.client, &name, live.began, reason);
        }
        session.transport.reset_tunnel(id, ResetCode::Cancelled);
    }
}
