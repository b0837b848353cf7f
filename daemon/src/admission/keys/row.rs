//! A key as a row of the store: `keys/<id>` with a JSON object.
//!
//! A row with an unknown member gives no key: a later version may have written a restriction that this one would not keep.

use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::id;
use super::record::{KeyRecord, Previous, StoredKey};
use super::wire::{Limits, Moment};
use crate::names::{KeyDigest, SubdomainPattern};

/// What all rows of keys begin with.
pub(super) const PREFIX: &[u8] = b"keys/";

/// A row that is no key; the message says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoKey(String);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    sha256: String,
    subdomains: Vec<String>,
    limits: Limits,
    created: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousRow>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousRow {
    sha256: String,
    until: Moment,
}

/// The key of a row.
pub(super) fn key_of(id: &str) -> Bytes {
    Bytes::from([PREFIX, id.as_bytes()].concat())
}

/// The id in the key of a row.
pub(super) fn id_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(PREFIX)?).ok().filter(|id| id::is_valid(id))
}

pub(super) fn encode(key: &StoredKey) -> Result<Bytes, serde_json::Error> {
    let StoredKey { record, created, revoked, previous } = key;
    let row = Row {
        name: record.name.to_string(),
        sha256: record.digest.to_hex(),
        subdomains: record.subdomains.iter().map(ToString::to_string).collect(),
        limits: Limits::of(&record.limits),
        created: Moment(*created),
        expires: record.expires.map(Moment),
        revoked: revoked.map(Moment),
        previous: previous
            .as_ref()
            .map(|previous| PreviousRow { sha256: previous.digest.to_hex(), until: Moment(previous.until) }),
    };
    serde_json::to_vec(&row).map(Bytes::from)
}

pub(super) fn decode(id: &str, row: &[u8]) -> Result<StoredKey, NoKey> {
    let no_key = |error: &dyn std::fmt::Display| NoKey(error.to_string());
    let row: Row = serde_json::from_slice(row).map_err(|error| no_key(&error))?;
    let digest = |text: &str| KeyDigest::parse(text).map_err(|error| no_key(&error));
    let patterns = row.subdomains.iter().map(|text| SubdomainPattern::parse(text));
    let previous = row
        .previous
        .map(|previous| digest(&previous.sha256).map(|digest| Previous { digest, until: previous.until.0 }));
    Ok(StoredKey {
        record: KeyRecord {
            id: id.into(),
            name: row.name.into(),
            digest: digest(&row.sha256)?,
            subdomains: patterns.collect::<Result<_, _>>().map_err(|error| no_key(&error))?,
            limits: row.limits.checked().map_err(|error| no_key(&error))?,
            expires: row.expires.map(|moment| moment.0),
        },
        created: row.created.0,
        revoked: row.revoked.map(|moment: Moment| -> SystemTime { moment.0 }),
        previous: previous.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::admission::{KeyLimits, Rate};

    #[test]
    fn a_row_keeps_everything_and_refuses_what_it_does_not_know() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let rate = Some(Rate::new(7, 8));
        let key = StoredKey {
            record: KeyRecord {
                id: "abcdefghij01".into(),
                name: "a \"laptop\"".into(),
                digest: KeyDigest::of("a"),
                subdomains: vec![SubdomainPattern::parse("demo-*").unwrap(), SubdomainPattern::parse("x").unwrap()],
                limits: KeyLimits { tunnels: 1, sessions: 2, exchanges: Some(3), requests: rate, bytes: rate },
                expires: Some(at(2_000_000_000)),
            },
            created: at(1_000_000_000),
            revoked: Some(at(1_500_000_000)),
            previous: Some(Previous { digest: KeyDigest::of("b"), until: at(1_600_000_000) }),
        };
        let row = encode(&key).unwrap();
        assert_eq!(decode("abcdefghij01", &row).unwrap(), key);
        let plain = StoredKey {
            record: KeyRecord { limits: KeyLimits::default(), expires: None, ..key.record.clone() },
            revoked: None,
            previous: None,
            ..key
        };
        assert_eq!(decode("abcdefghij01", &encode(&plain).unwrap()).unwrap(), plain);
        let text = std::str::from_utf8(&row).unwrap();
        let begin = text.strip_prefix('{').unwrap();
        for damaged in
            ["", "{}", "[]", &text[..40], &format!("{{\"networks\":[],{begin}"), &text.replace("demo-*", "**")]
        {
            assert!(decode("abcdefghij01", damaged.as_bytes()).is_err(), "{damaged}");
        }
        assert_eq!(id_of(&key_of("abcdefghij01")), Some("abcdefghij01"));
        assert!(id_of(b"keys/x").is_none() && id_of(b"names/abcdefghij01").is_none());
    }
}
