//! Families of metrics with a closed set of labels: arrays of atomics, all there from the start. Counting takes no lock and
//! allocates nothing. The families of the library take a lock, and its histogram takes one for each observation.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::{Label, Labels};

/// The series of a family. A clone shares them.
struct Series<L, T> {
    all: Arc<[T]>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, T> Series<L, T> {
    fn new(make: impl Fn() -> T) -> Self {
        Self { all: std::iter::repeat_with(make).take(L::COUNT).collect(), labels: PhantomData }
    }

    fn of(&self, labels: L) -> Option<&T> {
        self.all.get(labels.index())
    }

    /// Encodes each series with its labels.
    fn encode(
        &self,
        mut encoder: MetricEncoder<'_>,
        encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        for (index, one) in self.all.iter().enumerate() {
            let labels = L::at(index);
            // The library would write empty braces.
            if labels.is_empty() {
                encode(&mut encoder, one)?;
            } else {
                encode(&mut encoder.encode_family(&labels)?, one)?;
            }
        }
        Ok(())
    }
}

impl<L, T> Clone for Series<L, T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), labels: PhantomData }
    }
}

/// Counters.
pub(crate) struct Counters<L>(Series<L, AtomicU64>);

impl<L: Labels> Counters<L> {
    /// Counts one.
    pub(crate) fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `count`.
    pub(crate) fn add(&self, labels: L, count: u64) {
        if let Some(counter) = self.0.of(labels) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl<A: Label> Counters<(A,)> {
    /// Each value of the label, with its count.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        A::VALUES.iter().copied().zip(self.0.all.iter().map(|counter| counter.load(Ordering::Relaxed)))
    }
}

impl<L: Labels> EncodeMetric for Counters<L> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder, |encoder, counter| {
            encoder.encode_counter::<NoLabelSet, u64, u64>(&counter.load(Ordering::Relaxed), None)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Gauges that go up and down with what there is.
pub(crate) struct Gauges<L>(Series<L, AtomicI64>);

impl<L: Labels> Gauges<L> {
    /// Counts one until the guard is dropped.
    pub(crate) fn hold(&self, labels: L) -> Counted<L> {
        if let Some(gauge) = self.0.of(labels) {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        Counted { gauges: self.clone(), labels }
    }
}

impl<L: Labels> EncodeMetric for Gauges<L> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder, |encoder, gauge| encoder.encode_gauge(&gauge.load(Ordering::Relaxed)))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<L: Labels> {
    gauges: Gauges<L>,
    labels: L,
}

impl<L: Labels> Drop for Counted<L> {
    fn drop(&mut self) {
        if let Some(gauge) = self.gauges.0.of(self.labels) {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Histograms of durations.
pub(crate) struct Histograms<L> {
    series: Series<L, Histogram>,
    /// Upper bounds of the buckets in seconds.
    bounds: &'static [f64],
}

struct Histogram {
    /// One for each bound, and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    micros: AtomicU64,
}

impl<L: Labels> Histograms<L> {
    /// Histograms with these upper bounds in seconds, which rise.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let make = || Histogram {
            buckets: std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect(),
            micros: AtomicU64::default(),
        };
        Self { series: Series::new(make), bounds }
    }

    /// Counts a duration.
    pub(crate) fn observe(&self, labels: L, duration: Duration) {
        let Some(histogram) = self.series.of(labels) else { return };
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = histogram.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        histogram.micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }
}

impl<L: Labels> EncodeMetric for Histograms<L> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.series.encode(encoder, |encoder, histogram| {
            let counts = histogram.buckets.iter().map(|count| count.load(Ordering::Relaxed));
            // The library writes the largest number as infinity.
            let bounds = self.bounds.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            // Most combinations never come up, and each would be a dozen lines of zeros.
            if count == 0 && L::COUNT > 1 {
                return Ok(());
            }
            let sum = histogram.micros.load(Ordering::Relaxed) as f64 / 1e6;
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl<L: Labels> Default for Counters<L> {
    fn default() -> Self {
        Self(Series::new(AtomicU64::default))
    }
}

impl<L: Labels> Default for Gauges<L> {
    fn default() -> Self {
        Self(Series::new(AtomicI64::default))
    }
}

impl<L> Clone for Counters<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Clone for Gauges<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Clone for Histograms<L> {
    fn clone(&self) -> Self {
        Self { series: self.series.clone(), bounds: self.bounds }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.all.iter()).finish()
    }
}

impl<L> fmt::Debug for Gauges<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.all.iter()).finish()
    }
}

impl<L> fmt::Debug for Histograms<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histograms").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}
