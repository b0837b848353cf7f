//! The end of a request's record: what is still open is filled in, and the observers get it.

use std::sync::Arc;

use super::pages::Problem;
use super::visitor::Visitor;
use crate::drain::{Drain, Phase};
use crate::exchanges::{End, Exchange};
use crate::observe::{Ending, Record};

/// The record of a request that runs. Dropping it ends the record, and hands it to the observers.
#[derive(Debug)]
pub(super) struct Recording {
    record: Record,
    visitor: Arc<Visitor>,
    exchange: Option<Arc<Exchange>>,
}

impl Recording {
    /// Of a request that became this exchange, if it went to a tunnel.
    pub(super) fn new(record: Record, visitor: Arc<Visitor>, exchange: Option<Arc<Exchange>>) -> Self {
        Self { record, visitor, exchange }
    }

    /// Notes how it ends.
    pub(super) fn set_ending(&mut self, ending: Ending) {
        self.record.ending = Some(ending);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Self { record, visitor, exchange } = self;
        if let Some(exchange) = exchange {
            record.request_bytes += exchange.sent();
            record.response_bytes += exchange.received();
        }
        record.timings.ended = Some(record.now());
        let ended = exchange.as_ref().and_then(|exchange| exchange.ended());
        record.ending = Some(settle(record.ending, ended, &visitor.edge.drain));
        visitor.edge.observers.finished(record);
    }
}

impl Problem {
    /// How a request ends that is answered with this problem.
    pub(super) fn ending(self) -> Ending {
        match self {
            Self::BadRequest => Ending::Refused("bad_request"),
            Self::UnknownName => Ending::Refused("unknown_name"),
            Self::NetworkDenied => Ending::Refused("network_denied"),
            Self::PathDenied => Ending::Refused("path_denied"),
            Self::PasswordNeeded => Ending::Refused("password_needed"),
            Self::LinkNeeded => Ending::Refused("link_needed"),
            Self::LinkExpired => Ending::Refused("link_expired"),
            Self::NoPage => Ending::Refused("no_page"),
            Self::MethodNotAllowed => Ending::Refused("method_not_allowed"),
            Self::Misdirected => Ending::Refused("misdirected"),
            Self::Loop => Ending::Refused("loop"),
            Self::HeadTooLarge => Ending::Refused("head_too_large"),
            Self::TooMany => Ending::Refused("visitor_rate"),
            Self::TooManyToTunnel => Ending::Refused("tunnel_rate"),
            Self::Busy => Ending::Refused("busy"),
            Self::Share => Ending::Refused("visitor_share"),
            Self::UploadSlow => Ending::Stalled,
            Self::UploadBroken => Ending::VisitorLeft,
            Self::ShuttingDown => Ending::Refused("shutting_down"),
            Self::Offline => Ending::Failed("offline"),
            Self::ServiceAbsent => Ending::Failed("service_refused"),
            Self::ServiceBroke => Ending::Failed("service_broke"),
            Self::ServiceSlow => Ending::Failed("service_timeout"),
            Self::ServiceUnresolved => Ending::Failed("service_unresolved"),
            Self::ServiceUntrusted => Ending::Failed("service_untrusted"),
            Self::ServiceMismatch => Ending::Failed("service_mismatch"),
            Self::ServiceInvalid => Ending::Failed("service_invalid"),
            Self::ResponseTooLarge => Ending::Failed("response_too_large"),
        }
    }
}

/// How a request ends that its response saw end like this, or did not see end.
fn settle(seen: Option<Ending>, ended: Option<End>, drain: &Drain) -> Ending {
    match (ended, seen) {
        (Some(End::Stalled), _) => Ending::Stalled,
        (Some(End::Evicted), _) => Ending::Evicted,
        (None, Some(Ending::Broken(_) | Ending::VisitorLeft) | None) if drain.phase() >= Phase::Cut => Ending::Drained,
        (None, seen) => seen.unwrap_or(Ending::VisitorLeft),
    }
}
