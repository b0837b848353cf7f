//! Tests of collectors that take nothing. The end-to-end suite has those that take spans.

use std::net::TcpListener;
use std::time::{Instant, SystemTime};

use super::*;
use crate::span::Kind;

/// The longest that a test waits for another thread.
const PATIENCE: Duration = Duration::from_secs(20);

fn exporter(address: &str, more: &[(&str, &str)]) -> Exporter {
    let variable = |name: &str| {
        let all = [("OTEL_EXPORTER_OTLP_ENDPOINT", address)];
        all.iter().chain(more).find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let (settings, warnings) = Settings::read("test", "0", variable);
    assert!(warnings.is_empty(), "{warnings:?}");
    Exporter::start(settings.unwrap(), "test", "0").unwrap()
}

fn span() -> Span {
    let now = SystemTime::now();
    Span::new(1.into(), 1.into(), Kind::Internal, "GET", (now, now))
}

fn wait_until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it took too long");
        thread::yield_now();
    }
}

/// The collector accepts no connection and has a full queue, or accepts and never answers.
#[test]
fn a_collector_that_hangs_costs_the_end_a_bounded_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let exporter = exporter(&format!("http://{}", silent.local_addr().unwrap()), &[("OTEL_BSP_MAX_QUEUE_SIZE", "8")]);
    let began = Instant::now();
    for _ in 0..10_000 {
        exporter.send(span());
    }
    assert!(began.elapsed() < Duration::from_secs(1), "sending waits for nothing: {:?}", began.elapsed());
    // Two batches at most are under way or wait.
    wait_until(|| exporter.dropped() >= 10_000 - 16);
    let began = Instant::now();
    exporter.finish();
    assert!(began.elapsed() < LAST_FLUSH + LAST_WORD + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_collector_that_refuses_costs_its_batch() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporter = exporter(&format!("http://{gone}"), &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")]);
    exporter.send(span());
    exporter.send(span());
    wait_until(|| exporter.dropped() == 2);
    exporter.send(span());
    let began = Instant::now();
    exporter.finish();
    assert!(
        began.elapsed() < LAST_FLUSH,
        "a collector that is known to be ill gets no more time: {:?}",
        began.elapsed()
    );
}

#[test]
fn a_certificate_that_cannot_be_read_is_named() {
    let variable = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("https://localhost:1".to_owned()),
        "OTEL_EXPORTER_OTLP_CERTIFICATE" => Some("/nowhere/ca.pem".to_owned()),
        _ => None,
    };
    let error = Exporter::start(Settings::read("test", "0", variable).0.unwrap(), "test", "0").unwrap_err();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
