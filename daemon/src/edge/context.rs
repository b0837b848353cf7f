//! What travels with one request to the end of its response: whose it is, when it began, and how it counts.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::lifetime::Lifetime;
use super::visitor::Visitor;
use crate::admission::rates::TunnelNumber;
use crate::exchanges::Exchange;
use crate::tunnels::ServingKey;

/// One request. Counts it when dropped, whether or not the response arrived.
#[derive(Debug)]
pub(super) struct Context {
    /// Who asked.
    pub(super) visitor: Arc<Visitor>,
    /// The tunnel that it goes to, once that is known.
    pub(super) tunnel: Option<TunnelNumber>,
    /// The key of that tunnel.
    pub(super) key: ServingKey,
    began: Instant,
    /// The exchange that it became, if it goes to a tunnel.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// The response's status, once there is one.
    status: Option<StatusCode>,
    /// Keeps the request counted as in flight.
    in_flight: TaskTrackerToken,
}

impl Context {
    /// Of a request that has just come. It counts as finite until its response says otherwise.
    pub(super) fn new(visitor: &Arc<Visitor>) -> Self {
        visitor.asked();
        let in_flight = Lifetime::Finite.token(&visitor.edge.drain);
        Self {
            visitor: visitor.clone(),
            tunnel: None,
            key: ServingKey::default(),
            began: Instant::now(),
            exchange: None,
            status: None,
            in_flight,
        }
    }

    /// Notes how long the response may last.
    pub(super) fn set_lifetime(&mut self, lifetime: Lifetime) {
        if lifetime.is_long_lived() {
            self.in_flight = lifetime.token(&self.visitor.edge.drain);
        }
        if let Some(exchange) = self.exchange.as_ref().filter(|_| lifetime.may_pause()) {
            exchange.set_long_lived();
        }
    }

    /// Notes the response's status.
    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.visitor.answered(self.status, self.began);
    }
}
