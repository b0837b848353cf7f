//! How keys are printed.

use std::time::{Duration, SystemTime};

use cok_host::columns::columns;
use cok_host::say;

use crate::admission::wire::{KeyView, Moment, Source, State};

const HEADING: [&str; 7] = ["ID", "NAME", "STATE", "NAMES", "TUNNELS", "EXPIRES", "SOURCE"];

/// A line for each key, with a heading.
pub(super) fn print_all(keys: &[KeyView]) {
    if keys.is_empty() {
        say!("there are no keys; `cokd key create --name NAME` makes one");
        return;
    }
    for line in table(keys, SystemTime::now()) {
        say!("{line}");
    }
}

/// All that a key allows.
pub(super) fn print_one(key: &KeyView) {
    for line in details(key, SystemTime::now()) {
        say!("{line}");
    }
}

fn table(keys: &[KeyView], now: SystemTime) -> Vec<String> {
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.clone(),
            key.name.clone(),
            state(key).to_owned(),
            key.subdomains.join(","),
            key.limits.max_tunnels.to_string(),
            key.expires.map_or_else(|| "never".to_owned(), |at| date(at, now)),
            source(key).to_owned(),
        ]
    }));
    columns(&rows)
}

fn details(key: &KeyView, now: SystemTime) -> Vec<String> {
    let limits = &key.limits;
    let none = || "no limit".to_owned();
    let moment = |at: Option<Moment>, none: &str| at.map_or_else(|| none.to_owned(), |at| date(at, now));
    let mut rows = vec![
        ("id", key.id.clone()),
        ("name", key.name.clone()),
        ("state", state(key).to_owned()),
        ("kept in the", source(key).to_owned()),
        ("names", key.subdomains.join(", ")),
        ("tunnels", limits.max_tunnels.to_string()),
        ("sessions", limits.max_sessions.to_string()),
        ("exchanges", limits.max_exchanges.map_or_else(none, |most| most.to_string())),
        ("requests", limits.requests.map_or_else(none, |rate| rate.to_string())),
        ("bytes", limits.bytes.map_or_else(none, |rate| rate.to_string())),
        ("expires", moment(key.expires, "never")),
    ];
    rows.extend(key.created.map(|at| ("created", date(at, now))));
    rows.extend(key.revoked.map(|at| ("revoked", date(at, now))));
    rows.extend(key.earlier_secret_until.map(|at| ("earlier secret", format!("works until {}", date(at, now)))));
    rows.into_iter().map(|(what, is)| format!("{what:15}{is}")).collect()
}

fn state(key: &KeyView) -> &'static str {
    match key.state {
        State::Valid => "valid",
        State::Expired => "expired",
        State::Revoked => "revoked",
    }
}

fn source(key: &KeyView) -> &'static str {
    match key.source {
        Source::Configuration => "configuration",
        Source::Store => "store",
    }
}

/// A moment, and how far away it is.
fn date(Moment(at): Moment, now: SystemTime) -> String {
    let written = humantime::format_rfc3339_seconds(at);
    match at.duration_since(now) {
        Ok(left) => format!("{written} (in {})", rounded(left)),
        Err(past) => format!("{written} ({} ago)", rounded(past.duration())),
    }
}

/// A duration in its largest unit.
fn rounded(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86400, "d"), (3600, "h"), (60, "min")];
    let seconds = duration.as_secs();
    let (size, unit) = UNITS.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "s"));
    format!("{} {unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Rate;
    use crate::admission::wire::{RateText, ViewedLimits};

    #[test]
    fn keys_are_shown_in_columns_and_in_full() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let limits = ViewedLimits {
            max_tunnels: 10,
            max_sessions: 100,
            max_exchanges: None,
            requests: Some(RateText(Rate::new(5, 9))),
            bytes: Some(RateText(Rate::new(3 << 20, 1000))),
        };
        let key = KeyView {
            id: "abcdefghij01".to_owned(),
            name: "a laptop".to_owned(),
            source: Source::Store,
            state: State::Valid,
            subdomains: vec!["demo-*".to_owned(), "x".to_owned()],
            limits,
            created: Some(Moment(now - Duration::from_secs(90))),
            expires: Some(Moment(now + Duration::from_secs(90 * 86400 + 1))),
            revoked: None,
            earlier_secret_until: None,
        };
        assert_eq!(
            table(std::slice::from_ref(&key), now),
            [
                "ID            NAME      STATE  NAMES     TUNNELS  EXPIRES                         SOURCE",
                "abcdefghij01  a laptop  valid  demo-*,x  10       2027-04-15T08:00:01Z (in 90 d)  store",
            ]
        );
        let lines = details(&key, now);
        assert_eq!(lines[8..10], ["requests       5/s burst 9", "bytes          3MiB/s burst 1000B"]);
        assert_eq!(lines[11], "created        2027-01-15T07:58:30Z (1 min ago)");
    }
}
