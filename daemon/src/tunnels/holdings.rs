//! How many names each key holds, live and away, and which away names go first if there are too many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::names::Subdomain;

/// The names of all keys.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    keys: HashMap<Arc<str>, Holding>,
    /// The keys that have away names, by how many names they hold.
    ranked: BTreeSet<(usize, Arc<str>)>,
}

/// The names of one key.
#[derive(Debug, Default)]
struct Holding {
    names: usize,
    /// Its away names, the oldest first.
    away: BTreeSet<(Instant, Subdomain)>,
}

impl Holdings {
    /// Adds a name, which has been away since then.
    pub(super) fn add(&mut self, key: &Arc<str>, name: &Subdomain, away: Option<Instant>) {
        self.change(key, |holding| {
            holding.names += 1;
            holding.away.extend(away.map(|since| (since, name.clone())));
        });
    }

    /// Removes a name that was added so.
    pub(super) fn remove(&mut self, key: &Arc<str>, name: &Subdomain, away: Option<Instant>) {
        self.change(key, |holding| {
            holding.names = holding.names.saturating_sub(1);
            if let Some(since) = away {
                holding.away.remove(&(since, name.clone()));
            }
        });
    }

    fn change(&mut self, key: &Arc<str>, change: impl FnOnce(&mut Holding)) {
        let holding = self.keys.entry(key.clone()).or_default();
        self.ranked.remove(&(holding.names, key.clone()));
        change(holding);
        if !holding.away.is_empty() {
            self.ranked.insert((holding.names, key.clone()));
        }
        if holding.names == 0 {
            self.keys.remove(key);
        }
    }

    /// How many names a key holds.
    pub(super) fn of(&self, key: &str) -> usize {
        self.keys.get(key).map_or(0, |holding| holding.names)
    }

    /// The oldest away name of a key.
    pub(super) fn oldest(&self, key: &str) -> Option<&Subdomain> {
        self.keys.get(key)?.away.first().map(|(_, name)| name)
    }

    /// The away name that yields to a new name of `key` when the table is full: the oldest one of the key that holds
    /// most. A key that holds no more than `key` itself keeps its names.
    pub(super) fn yields_to(&self, key: &str) -> Option<&Subdomain> {
        let (most, richest) = self.ranked.last()?;
        self.oldest(if *most > self.of(key) { richest } else { key })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_away_name_of_the_richest_key_yields() {
        let began = Instant::now();
        let name = |name: &str| Subdomain::parse(name).unwrap();
        let (rich, poor): (Arc<str>, Arc<str>) = ("rich".into(), "poor".into());
        let mut holdings = Holdings::default();
        assert_eq!(holdings.yields_to("poor"), None);
        holdings.add(&rich, &name("live"), None);
        for age in [2, 3, 1] {
            let since = began.checked_sub(Duration::from_secs(age)).unwrap();
            holdings.add(&rich, &name(&format!("r{age}")), Some(since));
        }
        holdings.add(&poor, &name("p"), Some(began));
        assert_eq!((holdings.of("rich"), holdings.of("poor"), holdings.of("none")), (4, 1, 0));
        for key in ["poor", "none", "rich"] {
            assert_eq!(holdings.yields_to(key), Some(&name("r3")), "{key}");
        }
        let since = began.checked_sub(Duration::from_secs(3)).unwrap();
        holdings.remove(&rich, &name("r3"), Some(since));
        assert_eq!(holdings.oldest("rich"), Some(&name("r2")));

        // A key without away names takes none of a poorer one, and its live ones stay.
        let mut holdings = Holdings::default();
        holdings.add(&rich, &name("a"), None);
        holdings.add(&rich, &name("b"), None);
        holdings.add(&poor, &name("p"), Some(began));
        assert_eq!(holdings.yields_to("rich"), None);
        assert_eq!(holdings.yields_to("poor"), Some(&name("p")));
        assert_eq!(holdings.yields_to("new"), Some(&name("p")));
        holdings.remove(&poor, &name("p"), Some(began));
        assert!(holdings.ranked.is_empty() && holdings.keys.len() == 1);
    }
}
