//! The daemon's status at one moment.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::Admin;
use super::wire::{Refused, Status, TunnelCounts};
use crate::admission::wire::Moment;
use crate::drain::Phase;
use crate::tunnels::{State, TunnelView};

/// What the status shows that does not change.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The domain that it serves.
    pub(crate) domain: String,
    /// When it started.
    pub(crate) started: Instant,
}

impl Admin {
    /// The status, with what `tunnels` do.
    pub(super) fn status(&self, tunnels: &[TunnelView]) -> Status {
        let mut counts = TunnelCounts::default();
        for tunnel in tunnels {
            match tunnel.state {
                State::Online => counts.online += 1,
                State::Silent => counts.silent += 1,
                State::Away | State::Closed => counts.away += 1,
            }
        }
        let refusals = &self.metrics.refusals;
        let named = |(name, count): (&str, u64)| (name.to_owned(), count);
        let totals = self.exchanges.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            domain: self.identity.domain.clone(),
            uptime_seconds: self.identity.started.elapsed().as_secs(),
            health: self.health.report(),
            phase: match self.drain.phase() {
                Phase::Serving => "serving",
                Phase::Draining => "draining",
                Phase::GoingAway => "going_away",
                Phase::Farewell => "farewell",
                Phase::Cut => "cut",
            }
            .into(),
            certificate_expires: self.certificate_expires(),
            tunnels: counts,
            sessions: self.tunnels.sessions(),
            visitors: self.drain.present(),
            open_exchanges: totals.open,
            bytes_in: totals.received,
            bytes_out: totals.sent,
            refused: Refused {
                by_rate: refusals.by_rate().map(named).collect(),
                by_limit: refusals.by_limit().map(named).collect(),
            },
        }
    }

    /// When the certificate expires. `None` while there is none.
    fn certificate_expires(&self) -> Option<Moment> {
        let seconds = u64::try_from(self.certificate.not_after()?).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Moment)
    }
}
