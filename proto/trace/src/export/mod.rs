//! Sends spans to a collector by OTLP over HTTP, on a thread of its own. Traffic never waits for it.
//!
//! Spans wait in a queue of bounded length. A batch is sent when it is full, and otherwise after a while. A collector that
//! refuses, hangs or is slow costs the spans that find the queue full, and those of batches that it does not take in time.
//! Both are counted, and logged at most once in a while.

mod batch;
mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{Compression, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SpanExporter as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::batch::Sender;
use self::http::Collector;
use crate::settings::Settings;
use crate::span::Span;

/// How long the end of a program waits for a collector that is not known to be ill. The next daemon may start only then.
pub const LAST_FLUSH: Duration = Duration::from_secs(1);
/// How much longer the thread may take to end, so that a busy machine does not cut its last line off.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    spans: mpsc::Sender<Span>,
    /// The number of waiting spans that makes a batch.
    batch: usize,
    shared: Arc<Shared>,
    /// Gets a word when the thread has ended; `None` once that was awaited.
    ended: Mutex<Option<std_mpsc::Receiver<()>>>,
}

/// What the thread and those who send to it share.
#[derive(Debug, Default)]
struct Shared {
    /// A batch is full.
    full: Notify,
    /// The program ends.
    stop: CancellationToken,
    /// The spans that were lost.
    dropped: AtomicU64,
    /// The collector has not taken the latest batch.
    is_ill: AtomicBool,
}

impl Exporter {
    /// Starts the thread. Fails if the collector cannot be spoken to at all.
    pub(crate) fn start(settings: Settings, service: &'static str, version: &'static str) -> Result<Self, String> {
        let collector = Arc::new(Collector::new(&settings.endpoint, settings.certificate.as_deref())?);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(collector.clone())
            .with_endpoint(settings.endpoint.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.timeout)
            .with_headers(settings.headers);
        if settings.gzip {
            exporter = exporter.with_compression(Compression::Gzip);
        }
        let mut exporter = exporter.build().map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
        exporter.set_resource(&resource.with_attributes(settings.resource).build());

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (spans, waiting) = mpsc::channel(settings.batch.queue);
        let shared = Arc::<Shared>::default();
        let sender = Sender {
            exporter,
            collector,
            scope: InstrumentationScope::builder(service).with_version(version).build(),
            waiting,
            shared: shared.clone(),
            batch: settings.batch,
            timeout: settings.timeout,
        };
        let (end, ended) = std_mpsc::sync_channel(1);
        let run = move || {
            runtime.block_on(sender.run());
            // A lookup of a name may still block a thread.
            runtime.shutdown_background();
            // Without effect if no one waits.
            let _gone = end.send(());
        };
        thread::Builder::new().name("cok-trace".to_owned()).spawn(run).map_err(|error| error.to_string())?;
        Ok(Self { spans, batch: settings.batch.size, shared, ended: Mutex::new(Some(ended)) })
    }

    /// Puts a span into the queue, or drops it. Wakes the thread only for a full batch.
    pub(crate) fn send(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else if self.spans.max_capacity() - self.spans.capacity() >= self.batch {
            self.shared.full.notify_one();
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Ends the thread, and waits for what it still sends.
    pub(crate) fn finish(&self) {
        self.shared.stop.cancel();
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            let _in_time = ended.recv_timeout(LAST_FLUSH + LAST_WORD);
        }
    }
}

impl Drop for Exporter {
    /// The thread ends by itself; no one waits for it.
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
