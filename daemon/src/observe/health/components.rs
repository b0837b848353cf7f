//! The components of health: what works, what fails, since when and why. Visitors can use a daemon whose components fail, for
//! a while at least.

use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A part of the daemon, or something that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The certificate that visitors get.
    Certificate,
    /// Its renewal by ACME.
    Acme,
    /// DNS: the daemon's own answers, or the provider that publishes the proof for ACME.
    Dns,
    /// The store of keys and names.
    Store,
    /// The disk with the state directory.
    Disk,
}

impl Name {
    /// All of them, in the order in which they are shown.
    pub(super) const ALL: [Self; 5] = [Self::Certificate, Self::Acme, Self::Dns, Self::Store, Self::Disk];

    /// The name in JSON and in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Acme => "acme",
            Self::Dns => "dns",
            Self::Store => "store",
            Self::Disk => "disk",
        }
    }
}

/// Whether a component works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// It works, or is not used.
    Ok,
    /// It does not work.
    Failing,
}

/// A component at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Component {
    /// Its name.
    pub(crate) name: String,
    /// Whether it works.
    pub(crate) state: Condition,
    /// Since when it is so, in seconds since 1970.
    pub(crate) since: i64,
    /// Why it does not work.
    pub(crate) why: Option<String>,
}

/// The components, and since when each is as it is.
#[derive(Debug)]
pub(super) struct Components(Mutex<[State; Name::ALL.len()]>);

#[derive(Clone, Debug)]
struct State {
    since: i64,
    why: Option<String>,
}

impl Components {
    /// All of them work.
    pub(super) fn new() -> Self {
        let since = unix_now();
        Self(Mutex::new(Name::ALL.map(|_| State { since, why: None })))
    }

    /// Notes how a component is. Only a change between working and failing is a new beginning.
    pub(super) fn note(&self, name: Name, why: Option<String>) {
        let mut states = self.0.lock();
        let Some(state) = states.get_mut(name as usize) else { return };
        if state.why.is_some() != why.is_some() {
            state.since = unix_now();
        }
        state.why = why;
    }

    /// All components as they are.
    pub(super) fn all(&self) -> Vec<Component> {
        let states = self.0.lock();
        let component = |(name, state): (&Name, &State)| Component {
            name: name.as_str().to_owned(),
            state: if state.why.is_none() { Condition::Ok } else { Condition::Failing },
            since: state.since,
            why: state.why.clone(),
        };
        Name::ALL.iter().zip(states.iter()).map(component).collect()
    }

    /// Which components work.
    pub(super) fn working(&self) -> Vec<(&'static str, bool)> {
        let states = self.0.lock();
        Name::ALL.iter().zip(states.iter()).map(|(name, state)| (name.as_str(), state.why.is_none())).collect()
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_the_order_of_their_numbers() {
        for (index, name) in Name::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, index);
        }
    }

    #[test]
    fn another_reason_is_no_new_beginning() {
        let components = Components::new();
        let disk = |components: &Components| components.all().pop().unwrap();
        components.note(Name::Disk, Some("a".to_owned()));
        components.0.lock()[Name::Disk as usize].since = 7;
        components.note(Name::Disk, Some("b".to_owned()));
        assert_eq!((disk(&components).since, disk(&components).why.as_deref()), (7, Some("b")));
        components.note(Name::Disk, None);
        assert!(disk(&components).since > 7 && disk(&components).state == Condition::Ok);
    }
}
