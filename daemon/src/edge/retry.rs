//! Which session a request goes to: waiting for a tunnel that is away, and sending again what may be sent again.

use std::sync::Arc;
use std::time::Duration;

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

/// How long an Unbind may take to come after the reset of a request that crossed with it.
const CROSSING: Duration = Duration::from_millis(250);

/// The session to use; waits for one while the tunnel may still come back. `lost` is one that takes no more.
pub(super) async fn find_live(
    visitor: &Visitor,
    tunnel: &Arc<Tunnel>,
    lost: Option<&Live>,
) -> Result<Arc<Live>, Problem> {
    let usable = |live: &Arc<Live>| lost.is_none_or(|lost| !std::ptr::eq(lost, &raw const **live));
    if let Some(live) = tunnel.live().filter(usable) {
        return Ok(live);
    }
    let _held = visitor.edge.tunnels.hold(tunnel).ok_or(Problem::Busy)?;
    let grace = visitor.edge.tunnels.grace();
    let mut presence: watch::Receiver<Presence> = tunnel.presence();
    let noticed = Instant::now();
    loop {
        let since = match &*presence.borrow_and_update() {
            Presence::Online(live) if usable(live) => return Ok(live.clone()),
            Presence::Online(_) => noticed,
            Presence::Silent(_, since) | Presence::Away(since) => *since,
            Presence::Closed(_) => return Err(Problem::Offline),
        };
        tokio::select! {
            () = visitor.edge.drain.reached(Phase::GoingAway) => return Err(Problem::ShuttingDown),
            () = tokio::time::sleep_until(since + grace) => return Err(Problem::Offline),
            changed = presence.changed() => changed.map_err(|_| Problem::Offline)?,
        }
    }
}

/// Waits until the tunnel is served otherwise than by `refused`, but not for long. A client that ends a tunnel resets the
/// requests that cross with its Unbind. Over QUIC the reset may come first.
pub(super) async fn settle(tunnel: &Arc<Tunnel>, refused: &Live) {
    let mut presence = tunnel.presence();
    let other = |presence: &Presence| match presence {
        Presence::Online(live) => !std::ptr::eq(refused, &raw const **live),
        _ => true,
    };
    let _in_time = tokio::time::timeout(CROSSING, presence.wait_for(other)).await;
}

/// Whether a request whose body is untouched may be sent again after this.
pub(super) fn may_repeat(method: &Method, error: ExchangeError) -> bool {
    match error {
        ExchangeError::Reset(ResetCode::Unprocessed) => true,
        ExchangeError::SessionLost => method.is_idempotent(),
        ExchangeError::Reset(_) => false,
    }
}
