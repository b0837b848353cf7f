//! What travels with one request to the end of its response: whose it is, what is known of it, and how it counts.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cok_proto::{RequestHead, ResponseHead, Target};
use cok_trace::Parent;
use cok_transport::ExchangeError;
use http::{HeaderMap, Request, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::lifetime::Lifetime;
use super::proxied::visitor_address;
use super::recording::Recording;
use super::visitor::Visitor;
use crate::admission::rates::TunnelNumber;
use crate::exchanges::Exchange;
use crate::names::Subdomain;
use crate::observe::{Ending, Phases, Record, Trace};
use crate::tunnels::{Live, ServingKey};

/// One request. Counts it when dropped, whether or not the response arrived. It is boxed, since it moves with the response.
#[derive(Debug)]
pub(super) struct Context {
    /// Who asked.
    pub(super) visitor: Arc<Visitor>,
    /// The visitor's address. `None` behind a trusted proxy that names none.
    pub(super) address: Option<IpAddr>,
    /// The tunnel that it goes to, once that is known.
    pub(super) tunnel: Option<TunnelNumber>,
    /// The key of that tunnel.
    pub(super) key: ServingKey,
    /// The exchange that it became, if it goes to a tunnel.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// `None` once an upgrade has taken it along.
    record: Option<Record>,
    /// Keeps the request counted as in flight.
    in_flight: TaskTrackerToken,
}

impl Context {
    /// Of a request that has just come. It counts as finite until its response says otherwise.
    pub(super) fn new<B>(visitor: &Arc<Visitor>, request: &Request<B>) -> Box<Self> {
        visitor.asked();
        let in_flight = Lifetime::Finite.token(&visitor.edge.drain);
        let peer = visitor.address();
        let address = visitor_address(request.headers(), peer, &visitor.edge.config().trusted_proxies);
        let record = Record { visitor: address, ..Record::new(peer, request.version()) };
        Box::new(Self {
            visitor: visitor.clone(),
            address,
            tunnel: None,
            key: ServingKey::default(),
            exchange: None,
            record: Some(record),
            in_flight,
        })
    }

    /// Changes what is known of it.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// Notes the request line. `target` takes the place of the one in the request, if the HTTP library could not take it.
    pub(super) fn set_request<B>(&mut self, request: &Request<B>, target: Option<&Bytes>) {
        self.note(|record| {
            let own = target.and_then(|bytes| Target::from_bytes(bytes.clone()).ok());
            record.method = Some(request.method().clone());
            record.target = own.or_else(|| request.uri().path_and_query().cloned().map(Target::from));
        });
    }

    /// Notes the tunnel that it is for.
    pub(super) fn set_tunnel(&mut self, name: &Subdomain) {
        self.note(|record| record.tunnel = Some(name.clone()));
    }

    /// The edge has judged and admitted it.
    pub(super) fn set_routed(&mut self) {
        self.note(|record| record.timings.routed = Some(record.now()));
    }

    /// Decides whether it is recorded as a trace. The access log names the trace of a visitor in any case.
    pub(super) fn begin_trace(&mut self, headers: &HeaderMap) {
        let (observers, Some(record)) = (&self.visitor.edge.observers, &mut self.record) else { return };
        if let Some(trace) = observers.tracer().and_then(|tracer| Trace::begin(tracer, headers)) {
            (record.trace_id, record.trace) = (Some(trace.id()), Some(trace));
        } else if observers.access_log.is_on() {
            record.trace_id = Parent::of(headers).map(|parent| u128::from_be_bytes(parent.trace.to_bytes()));
        }
    }

    /// Names its span in the fields that the first session gets, if it is recorded.
    pub(super) fn write_trace(&self, headers: &mut HeaderMap) {
        if let Some(trace) = self.trace() {
            trace.write(headers);
        }
    }

    /// The head with the name of another span, if the request is recorded and goes out again.
    pub(super) fn renamed(&self, head: &RequestHead) -> Option<Arc<RequestHead>> {
        let trace = self.trace().filter(|trace| trace.is_repeated())?;
        let mut head = head.clone();
        trace.write(&mut head.headers);
        Some(Arc::new(head))
    }

    fn trace(&self) -> Option<&Trace> {
        self.record.as_ref()?.trace.as_deref()
    }

    /// The session that has its head has failed.
    pub(super) fn set_failed(&mut self, error: ExchangeError) {
        self.note(|record| {
            let now = record.now();
            if let Some(trace) = &mut record.trace {
                trace.failed(now, error);
            }
        });
    }

    /// A session has taken its head.
    pub(super) fn set_sent(&mut self, live: &Live) {
        self.note(|record| {
            let now = record.now();
            if let Some(trace) = &mut record.trace {
                trace.attempted(now, live.transport_name());
            }
            record.timings.sent = Some(now);
            record.transport = Some(live.transport_name());
            record.attempts += 1;
        });
    }

    /// The final head of its response has come out of the tunnel.
    pub(super) fn set_first_byte(&mut self, head: &ResponseHead) {
        self.note(|record| {
            record.timings.first_byte = Some(record.now());
            record.timings.service = head.first_byte;
        });
    }

    /// Where its time went so far.
    pub(super) fn phases(&self) -> Option<Phases> {
        self.record.as_ref().map(Record::phases)
    }

    /// Notes how long the response may last.
    pub(super) fn set_lifetime(&mut self, lifetime: Lifetime) {
        if lifetime.is_long_lived() {
            self.in_flight = lifetime.token(&self.visitor.edge.drain);
        }
        if let Some(exchange) = self.exchange.as_ref().filter(|_| lifetime.may_pause()) {
            exchange.set_long_lived();
        }
        if let Some(lasting) = lifetime.lasting() {
            self.note(|record| record.set_lasting(lasting));
        }
    }

    /// The response's head goes to the visitor.
    pub(super) fn set_head_out(&mut self, status: StatusCode) {
        if let Some(record) = &mut self.record {
            record.set_head_out(status);
            if record.lasting.is_some() {
                record.key = self.key.known().cloned();
                self.visitor.edge.observers.began_lasting(record);
            }
        }
    }

    /// Notes how it ends, as far as its response can tell.
    pub(super) fn set_ending(&mut self, ending: Option<Ending>) {
        self.note(|record| record.ending = ending);
    }

    /// Its connection leaves HTTP with this status. The record goes along, and ends with the connection.
    pub(super) fn leave_http(&mut self, status: StatusCode) -> Option<Recording> {
        self.set_head_out(status);
        self.record.take().map(|record| self.recording(record))
    }

    fn recording(&mut self, mut record: Record) -> Recording {
        record.key = std::mem::take(&mut self.key).into_key();
        Recording::new(record, self.visitor.clone(), self.exchange.take())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.visitor.answered();
        if let Some(record) = self.record.take() {
            drop(self.recording(record));
        }
    }
}
