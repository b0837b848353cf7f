//! The process: memory, descriptors, threads and processor time, under the names that Prometheus' client libraries agree on.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::host::process::Usage;

/// Reads what the process uses at each scrape.
#[derive(Debug)]
pub(super) struct Process {
    /// When it started, in seconds since 1970.
    start: f64,
}

impl Process {
    /// Of a process that has just started.
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { start: since.map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Usage { resident, virtual_size, threads, descriptors, most_descriptors, processor_time } = Usage::read();
        let help = "Processor time of the process, in all modes";
        let named = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(processor_time.as_secs_f64()).encode(named)?;
        let help = "When the process started, in seconds since 1970";
        let named = encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.start).encode(named)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory that the process holds", resident),
            ("process_virtual_memory_bytes", "Address space of the process", virtual_size),
            ("process_threads", "Threads of the process", threads),
            ("process_open_fds", "Open descriptors", descriptors),
            ("process_max_fds", "The most descriptors that the process may have", most_descriptors),
        ] {
            // A system may not have all of them.
            if let Some(value) = value {
                let named = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(named)?;
            }
        }
        Ok(())
    }
}
