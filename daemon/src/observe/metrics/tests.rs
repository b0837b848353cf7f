use std::time::Duration;

use http::{StatusCode, Version};

use super::*;
use crate::observe::ending::Ending;

/// A record of a request over HTTP/2 that a session over QUIC has answered.
fn record() -> Record {
    let mut record = Record::new("192.0.2.1".parse().unwrap(), Version::HTTP_2);
    record.status = Some(StatusCode::OK);
    record.transport = Some("quic");
    record.attempts = 2;
    record.tunnel = Some(Subdomain::parse("demo").unwrap());
    (record.request_bytes, record.response_bytes) = (10, 20);
    let ms = Duration::from_millis;
    record.timings.routed = Some(ms(1));
    record.timings.sent = Some(ms(3));
    record.timings.first_byte = Some(ms(43));
    record.timings.service = Some(ms(30));
    record.timings.ended = Some(ms(50));
    record.ending = Some(Ending::Complete);
    record
}

fn contains(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.encode(Form::Prometheus);
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line} in\n{text}");
    }
}

#[test]
fn the_promised_names_are_there() {
    let metrics = Metrics::default();
    metrics.finished(&record());
    metrics.arrivals.connections.inc();
    contains(
        &metrics,
        &[
            "cok_connections_total 1",
            "cok_requests_total{status=\"200\"} 1",
            "cok_request_duration_seconds_bucket{le=\"0.05\"} 1",
            "cok_request_duration_seconds_count 1",
            "cok_active_tunnels 0",
        ],
    );
}

#[test]
fn a_request_counts_by_phase_version_and_transport() {
    let metrics = Metrics::default();
    metrics.finished(&record());
    let broken = Record { ending: Some(Ending::Broken("session_lost")), ..record() };
    metrics.finished(&broken);
    let labels = "version=\"2\",transport=\"quic\"";
    let lines = [
        format!("cok_request_phase_seconds_bucket{{le=\"0.001\",phase=\"edge\",{labels}}} 2"),
        format!("cok_request_phase_seconds_sum{{phase=\"waiting\",{labels}}} 0.004"),
        format!("cok_request_phase_seconds_sum{{phase=\"tunnel\",{labels}}} 0.02"),
        format!("cok_request_phase_seconds_sum{{phase=\"service\",{labels}}} 0.06"),
        format!("cok_body_bytes_total{{direction=\"response\",{labels}}} 40"),
        "cok_request_ends_total{ending=\"complete\",version=\"2\"} 1".to_owned(),
        "cok_request_ends_total{ending=\"broken\",version=\"2\"} 1".to_owned(),
        "cok_exchange_resets_total{reason=\"session_lost\"} 1".to_owned(),
        "cok_request_retries_total 2".to_owned(),
    ];
    contains(&metrics, &lines.each_ref().map(String::as_str));
}

#[test]
fn tunnels_have_series_up_to_the_bound_and_for_as_long_as_they_are_online() {
    let metrics = Arc::new(Metrics::new(Config { tunnel_labels: 1 }));
    let name = |name: &str| Subdomain::parse(name).unwrap();
    let online = metrics.clone().tunnel_online(&name("demo"));
    let _second = metrics.clone().tunnel_online(&name("second"));
    metrics.finished(&record());
    metrics.finished(&Record { tunnel: Some(name("second")), ..record() });
    contains(
        &metrics,
        &[
            "cok_tunnel_requests_total{tunnel=\"demo\"} 1",
            "cok_tunnel_requests_total{tunnel=\"_other\"} 1",
            "cok_tunnel_body_bytes_total{tunnel=\"demo\",direction=\"response\"} 20",
            "cok_active_tunnels 2",
        ],
    );
    // A tunnel that moves to another session keeps its series.
    let moved = metrics.clone().tunnel_online(&name("demo"));
    drop(online);
    contains(&metrics, &["cok_tunnel_requests_total{tunnel=\"demo\"} 1"]);
    drop(moved);
    assert!(!metrics.encode(Form::Prometheus).contains("tunnel=\"demo\""));
    metrics.reload(Config::default());
    assert!(!metrics.encode(Form::Prometheus).contains("cok_tunnel_requests_total"));
}
