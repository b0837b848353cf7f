//! `cokd tunnels`: lists the tunnels of the running daemon, and follows their changes.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use cok_client::logging;
use cok_host::columns::columns;
use cok_host::figures::{bytes, duration};
use cok_host::harmless::harmless;
use cok_host::{output, say};
use serde::Serialize;

use super::exit::{block_on, outcome};
use super::live::{Change, DaemonArgs, Live, list};
use crate::admin::wire::{Gone, Tunnel};
use crate::admin::{GONE, TRAFFIC, TUNNEL};

const HEADING: [&str; 12] =
    ["NAME", "STATE", "FOR", "KEY", "CLIENT", "VIA", "RTT", "REQ/S", "REQUESTS", "OPEN", "IN", "OUT"];

#[derive(Debug, Args)]
pub(super) struct TunnelsArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Go on with a line for each change, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Print one JSON array; with --watch one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints the list, or follows it.
pub(super) fn run(args: &TunnelsArgs) -> ExitCode {
    outcome(block_on(async {
        let daemon = args.daemon.daemon()?;
        if args.watch {
            return watch(Live::begin(daemon).await?, args.json).await;
        }
        let mut tunnels = list(&daemon).await?;
        if args.json {
            say!("{}", json(&tunnels)?);
            return Ok(());
        }
        if tunnels.is_empty() {
            say!("there are no tunnels; a client opens one: `cok-client http 3000`");
            return Ok(());
        }
        tunnels.sort_by(|one, other| (one.state, &one.name).cmp(&(other.state, &other.name)));
        for line in table(&tunnels, SystemTime::now()) {
            say!("{line}");
        }
        Ok(())
    }))
}

/// Prints changes until nothing reads them any more.
async fn watch(mut live: Live, in_json: bool) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Event<T> {
        event: &'static str,
        data: T,
    }
    while let Some(change) = live.next().await {
        match change {
            Change::Tunnel(data) if in_json => say!("{}", json(&Event { event: TUNNEL, data })?),
            Change::Gone(name) if in_json => say!("{}", json(&Event { event: GONE, data: Gone { name } })?),
            Change::Traffic(data) if in_json => say!("{}", json(&Event { event: TRAFFIC, data })?),
            Change::Tunnel(tunnel) => say!("{} {}", now(), line(&tunnel)),
            Change::Gone(name) => say!("{} {name} forgotten", now()),
            Change::Traffic(_) | Change::Status(_) => {}
            Change::Lost(error) => logging::complain(&format!("cokd: {error:#}; asking again").replace('\n', " ")),
        }
        if output::is_lost() {
            break;
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(value).context("cannot print JSON")
}

/// The time of day in UTC, as in logs.
fn now() -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    text.get(11..).unwrap_or_default().to_owned()
}

/// A change in one line.
fn line(tunnel: &Tunnel) -> String {
    let (name, state, key) = (&tunnel.name, tunnel.state.as_str(), key(tunnel));
    match (&tunnel.client_address, &tunnel.transport) {
        (Some(address), Some(transport)) => format!("{name} {state}: key {key}, from {address} over {transport}"),
        _ => format!("{name} {state}: key {key}"),
    }
}

/// The key's name. A name may have characters that a terminal would obey.
pub(super) fn key(tunnel: &Tunnel) -> String {
    harmless(tunnel.key_name.as_ref().unwrap_or(&tunnel.key_id).chars())
}

/// For how long it has been in its state.
pub(super) fn age(tunnel: &Tunnel, now: SystemTime) -> Duration {
    Duration::from_secs(now.duration_since(tunnel.since.0).unwrap_or_default().as_secs())
}

/// The latest round trip.
pub(super) fn round_trip(tunnel: &Tunnel) -> String {
    let millis = tunnel.traffic.round_trip_ms.filter(|millis| millis.is_finite() && *millis >= 0.0);
    millis.map_or_else(none, |millis| duration(Duration::from_secs_f64(millis / 1000.0)))
}

/// A rate of requests.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

pub(super) fn none() -> String {
    "-".to_owned()
}

fn table(tunnels: &[Tunnel], now: SystemTime) -> Vec<String> {
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(tunnels.iter().map(|tunnel| {
        let traffic = &tunnel.traffic;
        [
            tunnel.name.clone(),
            tunnel.state.as_str().to_owned(),
            duration(age(tunnel, now)),
            key(tunnel),
            tunnel.client_address.clone().unwrap_or_else(none),
            tunnel.transport.clone().unwrap_or_else(none),
            round_trip(tunnel),
            rate(traffic.requests_per_second),
            traffic.requests.to_string(),
            traffic.open_exchanges.to_string(),
            bytes(traffic.bytes_in),
            bytes(traffic.bytes_out),
        ]
    }));
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Reachable, Traffic};
    use crate::admission::wire::Moment;

    #[test]
    fn tunnels_are_shown_in_columns() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let online = Tunnel {
            name: "demo".to_owned(),
            url: "https://demo.tunnel.test".to_owned(),
            state: Reachable::Online,
            since: Moment(now - Duration::from_secs(125)),
            key_id: "abcdefghij01".to_owned(),
            key_name: Some("lap\u{202e}top".to_owned()),
            session: Some("s".to_owned()),
            transport: Some("quic".to_owned()),
            client_version: Some("0.1.0".to_owned()),
            client_address: Some("203.0.113.5".to_owned()),
            traffic: Traffic {
                round_trip_ms: Some(12.0),
                requests: 1234,
                requests_per_second: 3.25,
                open_exchanges: 2,
                bytes_in: 17,
                bytes_out: 34_000_000,
            },
        };
        let away = Tunnel {
            name: "other".to_owned(),
            state: Reachable::Away,
            key_name: None,
            transport: None,
            client_address: None,
            traffic: Traffic::default(),
            ..online.clone()
        };
        assert_eq!(
            table(&[online.clone(), away.clone()], now),
            [
                "NAME   STATE   FOR        KEY             CLIENT       VIA   RTT    REQ/S  REQUESTS  OPEN  IN    OUT",
                "demo   online  2 min 5 s  lap\\u{202e}top  203.0.113.5  quic  12 ms  3.2    1234      2     17 B  34 MB",
                "other  away    2 min 5 s  abcdefghij01    -            -     -      0.0    0         0     0 B   0 B",
            ]
        );
        assert_eq!(line(&online), "demo online: key lap\\u{202e}top, from 203.0.113.5 over quic");
        assert_eq!(line(&away), "other away: key abcdefghij01");
    }
}
