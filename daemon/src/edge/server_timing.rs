//! The field Server-Timing (W3C Server Timing): where the time of a response went, for the developer tools of a browser.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::observe::Phases;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the phases to a response, behind what the service says itself. The names have a prefix, so that they are not the
/// service's.
pub(super) fn add_server_timing(headers: &mut HeaderMap, phases: &Phases) {
    let all = [
        ("cok-edge", Some(phases.edge)),
        ("cok-waiting", phases.waiting),
        ("cok-tunnel", phases.tunnel),
        ("cok-service", phases.service),
    ];
    let metric = |(name, phase): (&str, Option<std::time::Duration>)| {
        phase.map(|phase| format!("{name};dur={:.3}", phase.as_secs_f64() * 1000.0))
    };
    let metrics: Vec<_> = all.into_iter().filter_map(metric).collect();
    if let Ok(value) = HeaderValue::try_from(metrics.join(", ")) {
        headers.append(SERVER_TIMING, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_service_keeps_what_it_says() {
        let mut headers = HeaderMap::from_iter([(SERVER_TIMING, HeaderValue::from_static("db;dur=53"))]);
        let phases = Phases {
            edge: Duration::from_micros(120),
            waiting: Some(Duration::ZERO),
            tunnel: Some(Duration::from_millis(3)),
            service: None,
        };
        add_server_timing(&mut headers, &phases);
        let values: Vec<_> = headers.get_all(SERVER_TIMING).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, ["db;dur=53", "cok-edge;dur=0.120, cok-waiting;dur=0.000, cok-tunnel;dur=3.000"]);
    }
}
