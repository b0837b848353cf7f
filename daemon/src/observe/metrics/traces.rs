//! What became of the spans of recorded requests.

use std::fmt;
use std::sync::{Arc, OnceLock};

use cok_trace::Tracer;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Holds what records requests, and shows how many spans were lost. Without a tracer, none is.
#[derive(Clone, Debug, Default)]
pub(super) struct Traces(Arc<OnceLock<Tracer>>);

impl Traces {
    pub(super) fn set(&self, tracer: Tracer) {
        let _first = self.0.set(tracer);
    }

    pub(super) fn get(&self) -> Option<&Tracer> {
        self.0.get()
    }
}

impl Collector for Traces {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let lost = self.0.get().map_or(0, Tracer::dropped);
        let help = "Spans that the collector of traces did not take";
        let mut named = encoder.encode_descriptor("trace_spans_lost", help, None, MetricType::Counter)?;
        named.encode_counter::<NoLabelSet, u64, u64>(&lost, None)
    }
}
