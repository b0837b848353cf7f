//! All that looks at requests when they end. None of it blocks: requests wait for no observer.

use std::sync::Arc;

use super::metrics::Metrics;
use super::record::Record;

/// What looks at requests.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// Counts them.
    pub(crate) metrics: Arc<Metrics>,
}

impl Observers {
    /// A request is over.
    pub(crate) fn finished(&self, record: &Record) {
        self.metrics.finished(record);
    }

    /// The response of an exchange that lasts has begun.
    pub(crate) fn began_lasting(&self, _record: &Record) {}
}
