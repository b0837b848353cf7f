//! The runtime: its workers and tasks, and how late its timers are.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::family::Histograms;

/// How often the lag is measured. A stall of a second is seen for certain, and the cost is nil.
const LOOK: Duration = Duration::from_millis(250);

/// Upper bounds in seconds. Timers are at most 2 ms late by themselves.
const BOUNDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Metrics of the runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    lag: Histograms<()>,
}

impl Runtime {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let lag = Histograms::new(&BOUNDS);
        let help = "How late a timer of the event loop fires, measured four times a second";
        registry.register("event_loop_lag_seconds", help, lag.clone());
        registry.register_collector(Box::new(Tasks));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)]);
        registry.register("build", "The program", build);
        Self { lag }
    }

    /// Measures the lag of the event loop. Runs until it is dropped.
    pub(crate) async fn measure_lag(&self) {
        loop {
            let due = Instant::now() + LOOK;
            sleep_until(due).await;
            self.lag.observe((), due.elapsed());
        }
    }
}

/// What the runtime counts by itself. It is read within the runtime.
#[derive(Debug)]
struct Tasks;

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(runtime) = Handle::try_current() else { return Ok(()) };
        let metrics = runtime.metrics();
        for (name, help, value) in [
            ("tokio_workers", "Worker threads of the event loop", metrics.num_workers()),
            ("tokio_tasks", "Tasks that are alive", metrics.num_alive_tasks()),
            ("tokio_queued_tasks", "Tasks that wait in the common queue", metrics.global_queue_depth()),
        ] {
            let named = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(named)?;
        }
        Ok(())
    }
}
