//! Keys in JSON: what rows of the store, the admin API and `--json` have in common.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{KeyRecord, StoredKey};
use crate::admission::limits::{KeyLimits, MOST_REQUESTS, MOST_SESSIONS, MOST_TUNNELS, Rate};

/// A moment as text (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) SystemTime);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(D::Error::custom)
    }
}

/// The limits of a key, under their names in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) max_tunnels: usize,
    pub(crate) max_sessions: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_exchanges: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_second: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requests_burst: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_second: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_burst: Option<NonZeroU32>,
}

impl Limits {
    pub(crate) fn of(limits: &KeyLimits) -> Self {
        Self {
            max_tunnels: limits.tunnels,
            max_sessions: limits.sessions,
            max_exchanges: limits.exchanges.and_then(NonZeroU32::new),
            requests_per_second: limits.requests.map(|rate| rate.per_second),
            requests_burst: limits.requests.map(|rate| rate.burst),
            bytes_per_second: limits.bytes.map(|rate| rate.per_second),
            bytes_burst: limits.bytes.map(|rate| rate.burst),
        }
    }

    /// The limits, if all are in their ranges.
    pub(crate) fn checked(self) -> Result<KeyLimits, String> {
        let within = |name: &str, value: usize, most: usize| {
            let fits = (1..=most).contains(&value);
            if fits { Ok(value) } else { Err(format!("{name} must be 1 to {most}, got {value}")) }
        };
        let count = |name: &str, value: Option<NonZeroU32>| {
            let fits = value.is_none_or(|value| u64::from(value.get()) <= MOST_REQUESTS);
            if fits { Ok(value) } else { Err(format!("{name} must be 1 to {MOST_REQUESTS}")) }
        };
        Ok(KeyLimits {
            tunnels: within("max_tunnels", self.max_tunnels, MOST_TUNNELS as usize)?,
            sessions: within("max_sessions", self.max_sessions, MOST_SESSIONS as usize)?,
            exchanges: count("max_exchanges", self.max_exchanges)?.map(NonZeroU32::get),
            requests: rate(
                "requests",
                count("requests_per_second", self.requests_per_second)?,
                count("requests_burst", self.requests_burst)?,
            )?,
            bytes: rate("bytes", self.bytes_per_second, self.bytes_burst)?,
        })
    }
}

/// A rate. The burst is one second's worth unless it is named.
fn rate(kind: &str, per_second: Option<NonZeroU32>, burst: Option<NonZeroU32>) -> Result<Option<Rate>, String> {
    match (per_second, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(format!("{kind}_burst is used with {kind}_per_second only")),
        (Some(per_second), burst) => Ok(Some(Rate { per_second, burst: burst.unwrap_or(per_second) })),
    }
}

/// A setting of a key in a change: absent in JSON if it stays, `null` if it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Setting<T> {
    #[default]
    Stays,
    Goes,
    Is(T),
}

impl<T: Copy> Setting<T> {
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Stays)
    }

    fn over(self, value: Option<T>) -> Option<T> {
        match self {
            Self::Stays => value,
            Self::Goes => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Stays | Self::Goes => serializer.serialize_none(),
            Self::Is(value) => serializer.serialize_some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Self::Goes, Self::Is))
    }
}

/// What a new key is, or what changes of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subdomains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tunnels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_sessions: Option<usize>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) max_exchanges: Setting<NonZeroU32>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) requests_per_second: Setting<NonZeroU32>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) requests_burst: Setting<NonZeroU32>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) bytes_per_second: Setting<NonZeroU32>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) bytes_burst: Setting<NonZeroU32>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) expires: Setting<Moment>,
}

impl Changes {
    /// The limits after the change. A burst goes with its rate, and follows a new rate unless it is named.
    pub(super) fn limits(&self, before: &KeyLimits) -> Result<KeyLimits, String> {
        let before = Limits::of(before);
        let burst = |rate: Setting<NonZeroU32>, burst: Setting<NonZeroU32>, before| match rate {
            Setting::Stays => burst.over(before),
            Setting::Goes | Setting::Is(_) => burst.over(None),
        };
        let limits = Limits {
            max_tunnels: self.max_tunnels.unwrap_or(before.max_tunnels),
            max_sessions: self.max_sessions.unwrap_or(before.max_sessions),
            max_exchanges: self.max_exchanges.over(before.max_exchanges),
            requests_per_second: self.requests_per_second.over(before.requests_per_second),
            requests_burst: burst(self.requests_per_second, self.requests_burst, before.requests_burst),
            bytes_per_second: self.bytes_per_second.over(before.bytes_per_second),
            bytes_burst: burst(self.bytes_per_second, self.bytes_burst, before.bytes_burst),
        };
        limits.checked()
    }

    pub(super) fn expiry(&self, before: Option<SystemTime>) -> Option<SystemTime> {
        self.expires.over(before.map(Moment)).map(|moment| moment.0)
    }
}

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// In the configuration file.
    Configuration,
    /// In the store.
    Store,
}

/// Whether a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It works.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// A key as operators see it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) state: State,
    pub(crate) subdomains: Vec<String>,
    #[serde(flatten)]
    pub(crate) limits: ViewedLimits,
    pub(crate) created: Option<Moment>,
    pub(crate) expires: Option<Moment>,
    pub(crate) revoked: Option<Moment>,
    /// When the secret before the last rotation stops working.
    pub(crate) earlier_secret_until: Option<Moment>,
}

/// The limits of a key, each of them named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ViewedLimits {
    pub(crate) max_tunnels: usize,
    pub(crate) max_sessions: usize,
    pub(crate) max_exchanges: Option<NonZeroU32>,
    pub(crate) requests_per_second: Option<NonZeroU32>,
    pub(crate) requests_burst: Option<NonZeroU32>,
    pub(crate) bytes_per_second: Option<NonZeroU32>,
    pub(crate) bytes_burst: Option<NonZeroU32>,
}

impl KeyView {
    /// A key of the configuration.
    pub(super) fn of_record(record: &KeyRecord, now: SystemTime) -> Self {
        let expired = record.expires.is_some_and(|expires| expires <= now);
        let limits = Limits::of(&record.limits);
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            source: Source::Configuration,
            state: if expired { State::Expired } else { State::Valid },
            subdomains: record.subdomains.iter().map(ToString::to_string).collect(),
            limits: ViewedLimits {
                max_tunnels: limits.max_tunnels,
                max_sessions: limits.max_sessions,
                max_exchanges: limits.max_exchanges,
                requests_per_second: limits.requests_per_second,
                requests_burst: limits.requests_burst,
                bytes_per_second: limits.bytes_per_second,
                bytes_burst: limits.bytes_burst,
            },
            created: None,
            expires: record.expires.map(Moment),
            revoked: None,
            earlier_secret_until: None,
        }
    }

    /// A key of the store.
    pub(super) fn of(key: &StoredKey, now: SystemTime) -> Self {
        let view = Self::of_record(&key.record, now);
        let earlier = key.previous.as_ref().filter(|previous| now < previous.until);
        Self {
            source: Source::Store,
            state: if key.revoked.is_some() { State::Revoked } else { view.state },
            created: Some(Moment(key.created)),
            revoked: key.revoked.map(Moment),
            earlier_secret_until: earlier.map(|previous| Moment(previous.until)),
            ..view
        }
    }
}

/// A key with its secret, which is shown once.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NewKey {
    /// The whole text of the key.
    pub(crate) secret: String,
    #[serde(flatten)]
    pub(crate) key: KeyView,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How a key gets a new secret.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rotation {
    /// How long the earlier secret still works.
    pub(crate) grace_seconds: u64,
}

impl Rotation {
    pub(super) fn grace(self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}
