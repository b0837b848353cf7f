//! The JSON of the API: what `openapi.json` describes, and what the command line reads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::admission::wire::Moment;
use crate::observe::{Point, Report};
use crate::tunnels::{ClientView, SessionView, State, TrafficView, TunnelView};

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tunnel {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) state: Reachable,
    /// Since when it has been in that state.
    pub(crate) since: Moment,
    pub(crate) key_id: String,
    pub(crate) key_name: Option<String>,
    /// The session that serves it. This and what concerns its client are null for a tunnel that is away.
    pub(crate) session: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) client_version: Option<String>,
    pub(crate) client_address: Option<String>,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
}

/// Whether a tunnel can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reachable {
    Online,
    Silent,
    Away,
    Closed,
}

impl Reachable {
    /// Its name, as in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Silent => "silent",
            Self::Away => "away",
            Self::Closed => "closed",
        }
    }
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) open_exchanges: usize,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// The traffic of one tunnel, as the events have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrafficOf {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
}

/// A tunnel that is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) name: String,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) key_id: String,
    pub(crate) key_name: String,
    pub(crate) transport: String,
    pub(crate) client_version: String,
    pub(crate) client_address: String,
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) since: Moment,
    pub(crate) tunnels: Vec<String>,
}

/// The daemon as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: Cow<'static, str>,
    pub(crate) domain: String,
    pub(crate) uptime_seconds: u64,
    /// As at `/health`.
    pub(crate) health: Report,
    pub(crate) phase: Cow<'static, str>,
    pub(crate) certificate_expires: Option<Moment>,
    pub(crate) tunnels: TunnelCounts,
    pub(crate) sessions: usize,
    pub(crate) visitors: usize,
    pub(crate) open_exchanges: usize,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) refused: Refused,
}

/// Tunnels by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelCounts {
    pub(crate) online: usize,
    pub(crate) silent: usize,
    /// Away, or closed by their clients.
    pub(crate) away: usize,
}

/// How much was refused since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// What was over a rate, by the rate's name.
    pub(crate) by_rate: BTreeMap<String, u64>,
    /// What was beyond a limit, by the limit's name.
    pub(crate) by_limit: BTreeMap<String, u64>,
}

/// The last hour.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hour {
    pub(crate) seconds_per_point: u64,
    pub(crate) points: Vec<Point>,
}

/// An error for programs, with its message for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: FailureCode,
    pub(crate) message: String,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FailureCode {
    pub(crate) code: &'static str,
}

/// A request that was taken, whose effect follows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Accepted {
    pub(crate) message: String,
}

impl From<State> for Reachable {
    fn from(state: State) -> Self {
        match state {
            State::Online => Self::Online,
            State::Silent => Self::Silent,
            State::Away => Self::Away,
            State::Closed => Self::Closed,
        }
    }
}

impl From<&TunnelView> for Tunnel {
    fn from(view: &TunnelView) -> Self {
        let served = view.served.as_ref();
        let client = served.map(|served| &served.client);
        Self {
            name: view.name.to_string(),
            url: view.url.clone(),
            state: view.state.into(),
            since: moment(view.since),
            key_id: view.key.to_string(),
            key_name: view.key_name.as_deref().map(str::to_owned),
            session: served.map(|served| served.session.clone()),
            transport: client.map(|client| client.transport.to_owned()),
            client_version: client.map(|client| client.version.clone()),
            client_address: client.map(|client| client.address.to_string()),
            traffic: Traffic::of(&view.traffic, client),
        }
    }
}

impl Traffic {
    pub(super) fn of(traffic: &TrafficView, client: Option<&ClientView>) -> Self {
        Self {
            round_trip_ms: client.and_then(|client| client.round_trip).map(millis),
            requests: traffic.requests,
            requests_per_second: (traffic.rate * 100.0).round() / 100.0,
            open_exchanges: traffic.open,
            bytes_in: traffic.received,
            bytes_out: traffic.sent,
        }
    }
}

impl From<&SessionView> for Session {
    fn from(view: &SessionView) -> Self {
        let ClientView { address, version, transport, round_trip } = &view.client;
        Self {
            id: view.id.clone(),
            key_id: view.key.id.to_string(),
            key_name: view.key.name.to_string(),
            transport: (*transport).to_owned(),
            client_version: version.clone(),
            client_address: address.to_string(),
            round_trip_ms: round_trip.map(millis),
            since: moment(view.since),
            tunnels: view.tunnels.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Milliseconds with one decimal.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// When something was, to the second.
fn moment(at: Instant) -> Moment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Half a second more, so that two calls rarely fall on either side of a second.
    let then = now.saturating_sub(at.elapsed()) + Duration::from_millis(500);
    Moment(UNIX_EPOCH + Duration::from_secs(then.as_secs()))
}
