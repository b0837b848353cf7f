//! The thread's work: collects spans into batches, sends them, and says how that goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::http::Collector;
use super::{LAST_FLUSH, Shared};
use crate::settings::Batch;
use crate::span::Span;

/// How often a collector that takes nothing is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Sends batches.
pub(super) struct Sender {
    pub(super) exporter: SpanExporter,
    pub(super) collector: Arc<Collector>,
    pub(super) scope: InstrumentationScope,
    pub(super) waiting: mpsc::Receiver<Span>,
    pub(super) shared: Arc<Shared>,
    pub(super) batch: Batch,
    pub(super) timeout: Duration,
}

/// How the collector does.
#[derive(Default)]
struct Standing {
    /// Set while it takes nothing: when that was logged last.
    logged: Option<Instant>,
    /// How many lost spans were logged.
    said: u64,
}

impl Sender {
    /// Runs until the program ends, and a little longer for what waits then.
    pub(super) async fn run(self) {
        let shared = self.shared.clone();
        let limit = async {
            shared.stop.cancelled().await;
            if !shared.is_ill.load(Ordering::Relaxed) {
                sleep(LAST_FLUSH).await;
            }
        };
        tokio::select! {
            () = self.send_all() => {}
            () = limit => {
                warn!(event = "traces_lost", "the collector did not take the last traces in time");
            }
        }
    }

    async fn send_all(mut self) {
        let mut standing = Standing::default();
        loop {
            tokio::select! {
                () = sleep(self.batch.delay) => {}
                () = self.shared.full.notified() => {}
                () = self.shared.stop.cancelled() => {}
            }
            // What comes after the stop is lost.
            let stops = self.shared.stop.is_cancelled();
            loop {
                let batch = self.take();
                let is_whole = batch.len() == self.batch.size;
                if !batch.is_empty() {
                    self.send(batch, &mut standing).await;
                }
                // The rest waits for more. At the end it goes.
                if !is_whole && (!stops || self.waiting.is_empty()) {
                    break;
                }
            }
            if stops {
                return;
            }
        }
    }

    /// The spans that wait, as many as fit into a batch.
    fn take(&mut self) -> Vec<opentelemetry_sdk::trace::SpanData> {
        let mut batch = Vec::new();
        while batch.len() < self.batch.size
            && let Ok(span) = self.waiting.try_recv()
        {
            batch.push(span.into_data(&self.scope));
        }
        batch
    }

    /// Sends a batch. One that fails is lost: later ones have more to say about what goes on now.
    async fn send(&self, batch: Vec<opentelemetry_sdk::trace::SpanData>, standing: &mut Standing) {
        let count = batch.len() as u64;
        // The library limits its repetitions, but not a request that hangs.
        let failure = match timeout(self.timeout, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(self.collector.failure().unwrap_or_else(|| error.to_string())),
            Err(_) => Some(format!("no answer within {:?}", self.timeout)),
        };
        self.shared.is_ill.store(failure.is_some(), Ordering::Relaxed);
        match failure {
            None => standing.took(&self.shared),
            Some(error) => {
                self.shared.dropped.fetch_add(count, Ordering::Relaxed);
                standing.failed(&self.shared, &error);
            }
        }
    }
}

impl Standing {
    /// Logs that the collector takes spans again, and lost ones that were not logged yet.
    fn took(&mut self, shared: &Shared) {
        let lost = shared.dropped.load(Ordering::Relaxed);
        if self.logged.take().is_some() || lost > self.said {
            let since = lost - self.said;
            self.said = lost;
            info!(event = "traces_exported", lost = since, "the collector takes traces; spans lost before: {since}");
        }
    }

    /// Logs the first failure, and then one in a while.
    fn failed(&mut self, shared: &Shared, error: &str) {
        if self.logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        let lost = shared.dropped.load(Ordering::Relaxed);
        let since = lost - self.said;
        (self.logged, self.said) = (Some(Instant::now()), lost);
        warn!(
            event = "traces_lost",
            lost = since,
            error,
            "the collector does not take traces; lost spans: {since}: {error}"
        );
    }
}
