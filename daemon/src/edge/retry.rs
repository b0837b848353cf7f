//! Which session a request goes to: waiting for a tunnel that is away, and sending again what may be sent again.

use std::sync::Arc;

use cok_proto::ResetCode;
use cok_transport::ExchangeError;
use http::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pages::Problem;
use super::visitor::Visitor;
use crate::drain::Phase;
use crate::tunnels::{Live, Presence, Tunnel};

/// How often one request is sent at most. Each time a session has ended under it, so more would not help.
pub(super) const MAX_ATTEMPTS: usize = 5;

/// The session to use; waits for one while the tunnel may still come back. `lost` is one that takes no more.
pub(super) async fn find_live(
    visitor: &Visitor,
    tunnel: &Arc<Tunnel>,
    lost: Option<&Live>,
) -> Result<Arc<Live>, Problem> {
    let usable = |live: &Arc<Live>| lost.is_none_or(|lost| lost.session != live.session);
    if let Some(live) = tunnel.live().filter(usable) {
        return Ok(live);
    }
    let waiting = visitor.edge.tunnels.waiting();
    let _held = tunnel.hold(waiting.max_held).ok_or(Problem::Busy)?;
    let mut presence: watch::Receiver<Presence> = tunnel.presence();
    let noticed = Instant::now();
    loop {
        let since = match &*presence.borrow_and_update() {
            Presence::Online(live) if usable(live) => return Ok(live.clone()),
            Presence::Online(_) => noticed,
            Presence::Silent(_, since) | Presence::Away(since) => *since,
        };
        tokio::select! {
            () = visitor.edge.drain.reached(Phase::GoingAway) => return Err(Problem::ShuttingDown),
            () = tokio::time::sleep_until(since + waiting.grace) => return Err(Problem::Offline),
            changed = presence.changed() => changed.map_err(|_| Problem::Offline)?,
        }
    }
}

/// Whether a request whose body is untouched may be sent again after this.
pub(super) fn may_repeat(method: &Method, error: ExchangeError) -> bool {
    match error {
        ExchangeError::Reset(ResetCode::Unprocessed) => true,
        ExchangeError::SessionLost => method.is_idempotent(),
        ExchangeError::Reset(_) => false,
    }
}
