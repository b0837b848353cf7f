//! Keys in JSON: what rows of the store, the admin API and `--json` have in common.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use cok_proto::rate::Unit;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{KeyRecord, StoredKey};
use crate::admission::limits::{KeyLimits, MOST_EXCHANGES, MOST_SESSIONS, MOST_TUNNELS, Rate};

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

/// A rate as text, as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateText<const OF_BYTES: bool>(pub(crate) Rate);

/// A rate of requests.
pub(crate) type RequestRate = RateText<false>;
/// A rate of bytes.
pub(crate) type ByteRate = RateText<true>;

impl<const OF_BYTES: bool> RateText<OF_BYTES> {
    /// What the rate is of.
    pub(crate) const UNIT: Unit = if OF_BYTES { Unit::Bytes } else { Unit::Count };
}

impl<const OF_BYTES: bool> fmt::Display for RateText<OF_BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.written(Self::UNIT).fmt(f)
    }
}

impl<const OF_BYTES: bool> Serialize for RateText<OF_BYTES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const OF_BYTES: bool> Deserialize<'de> for RateText<OF_BYTES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |example| D::Error::custom(format!("expected {example}"));
        Rate::parse(&text, Self::UNIT).map(Self).map_err(wrong)
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
    pub(crate) requests: Option<RequestRate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<ByteRate>,
}

impl Limits {
    pub(crate) fn of(limits: &KeyLimits) -> Self {
        Self {
            max_tunnels: limits.tunnels,
            max_sessions: limits.sessions,
            max_exchanges: limits.exchanges.and_then(NonZeroU32::new),
            requests: limits.requests.map(RateText),
            bytes: limits.bytes.map(RateText),
        }
    }

    /// The limits, if all are in their ranges.
    pub(crate) fn checked(self) -> Result<KeyLimits, String> {
        let within = |name: &str, value: usize, most: usize| {
            let fits = (1..=most).contains(&value);
            if fits { Ok(value) } else { Err(format!("{name} must be 1 to {most}, got {value}")) }
        };
        let exchanges = self.max_exchanges.map(NonZeroU32::get);
        if exchanges.is_some_and(|most| u64::from(most) > MOST_EXCHANGES) {
            return Err(format!("max_exchanges must be 1 to {MOST_EXCHANGES}"));
        }
        Ok(KeyLimits {
            tunnels: within("max_tunnels", self.max_tunnels, MOST_TUNNELS as usize)?,
            sessions: within("max_sessions", self.max_sessions, MOST_SESSIONS as usize)?,
            exchanges,
            requests: self.requests.map(|RateText(rate)| rate),
            bytes: self.bytes.map(|RateText(rate)| rate),
        })
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
    pub(crate) requests: Setting<RequestRate>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) bytes: Setting<ByteRate>,
    #[serde(skip_serializing_if = "Setting::stays")]
    pub(crate) expires: Setting<Moment>,
}

impl Changes {
    /// The limits after the change.
    pub(super) fn limits(&self, before: &KeyLimits) -> Result<KeyLimits, String> {
        let before = Limits::of(before);
        let limits = Limits {
            max_tunnels: self.max_tunnels.unwrap_or(before.max_tunnels),
            max_sessions: self.max_sessions.unwrap_or(before.max_sessions),
            max_exchanges: self.max_exchanges.over(before.max_exchanges),
            requests: self.requests.over(before.requests),
            bytes: self.bytes.over(before.bytes),
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
    pub(crate) requests: Option<RequestRate>,
    pub(crate) bytes: Option<ByteRate>,
}

impl KeyView {
    /// The keys of the configuration.
    pub(crate) fn configured(records: &[KeyRecord], now: SystemTime) -> Vec<Self> {
        records.iter().map(|record| Self::of_record(record, now)).collect()
    }

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
                requests: limits.requests,
                bytes: limits.bytes,
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
