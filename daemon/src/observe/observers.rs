//! All that looks at requests when they end. None of it blocks: requests wait for no observer.

use std::sync::Arc;

use cok_trace::Tracer;

use super::access_log::{AccessLog, Config as AccessLogConfig};
use super::history::History;
use super::metrics::Metrics;
use super::record::Record;

/// What looks at requests.
#[derive(Debug)]
pub(crate) struct Observers {
    /// Counts them, and holds what exports the spans of those that are recorded.
    pub(crate) metrics: Arc<Metrics>,
    /// Keeps the last hour of them.
    pub(crate) history: History,
    /// Writes a line about each.
    pub(crate) access_log: AccessLog,
}

impl Observers {
    /// The observers of a daemon that counts with `metrics`.
    pub(crate) fn new(metrics: Arc<Metrics>, access_log: AccessLogConfig) -> Arc<Self> {
        let log = AccessLog::new(metrics.access_log_lost.clone());
        log.start(access_log);
        Arc::new(Self { metrics, history: History::default(), access_log: log })
    }

    /// Has requests recorded. Without effect if they are.
    pub(crate) fn trace(&self, tracer: Tracer) {
        self.metrics.set_tracer(tracer);
    }

    /// What records requests, if they are recorded.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.metrics.tracer()
    }

    /// A request is over.
    pub(crate) fn finished(&self, record: &Record) {
        self.metrics.finished(record);
        self.history.finished(record);
        self.access_log.finished(record);
        if let (Some(tracer), Some(trace)) = (self.tracer(), &record.trace) {
            trace.record(record, tracer);
        }
    }

    /// The response of an exchange that lasts has begun.
    pub(crate) fn began_lasting(&self, record: &Record) {
        self.history.began_lasting(record);
        self.access_log.began_lasting(record);
    }
}
