//! The names in use, kept on disk: after a restart their visitors wait for the tunnels, as for any that is away, instead
//! of getting 404.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cok_certs::unix_now;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::names::Subdomain;
use crate::registry::{Owner, Registry};
use crate::state_file;

const FILE: &str = "names.json";

/// Changes are written at once, but no more often than this: a crowd that comes back changes a thousand names.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A name as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    /// The name of the key that owns it.
    key: String,
    /// The client installation.
    instance: String,
    /// When it was last online, in seconds since 1970; nothing if it was when this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    away_since: Option<i64>,
}

/// Where names are kept.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    /// In this folder, which is made when it is needed.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Puts the names of the last process into the registry. Those that were online then count as away from now on: how
    /// long the process was gone is no fault of theirs. They are returned. Damage costs nothing but the memory.
    pub fn recall(&self, registry: &Registry) -> Vec<Subdomain> {
        let kept = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Kept>>(&bytes).map_err(Into::into),
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => Err(error),
        };
        let kept = kept.unwrap_or_else(|error| {
            let file = self.path.display();
            warn!(%file, %error, "the names that were in use cannot be read, so their visitors get 404 for now: {file}: {error}");
            Vec::new()
        });
        let now = unix_now();
        let mut online = Vec::new();
        for kept in kept {
            let Ok(name) = Subdomain::parse(&kept.name) else { continue };
            let owner = Owner { key: kept.key.into(), instance: kept.instance };
            let away_for = kept.away_since.map_or(0, |since| now.saturating_sub(since).max(0).unsigned_abs());
            if kept.away_since.is_none() {
                online.push(name.clone());
            }
            registry.remember(name, owner, Duration::from_secs(away_for));
        }
        online
    }

    /// Keeps the names of now.
    pub fn keep(&self, registry: &Registry) {
        let now = unix_now();
        let kept: Vec<Kept> = registry
            .names()
            .into_iter()
            .map(|(name, owner, away_for)| Kept {
                name: name.to_string(),
                key: owner.key.to_string(),
                instance: owner.instance,
                away_since: away_for.map(|away_for| now.saturating_sub_unsigned(away_for.as_secs())),
            })
            .collect();
        let written =
            serde_json::to_vec(&kept).map_err(Into::into).and_then(|json| state_file::write(&self.path, &json));
        if let Err(error) = written {
            let file = self.path.display();
            warn!(%file, %error, "the names in use cannot be kept, so a restart would forget them: {file}: {error}");
        }
    }

    /// Keeps them for ever, as they change.
    pub async fn keep_on(self, registry: Arc<Registry>) {
        loop {
            registry.changed().await;
            let (memory, names) = (self.clone(), registry.clone());
            // A disk may be slow.
            if let Err(error) = tokio::task::spawn_blocking(move || memory.keep(&names)).await {
                warn!(%error, "the names in use could not be kept: {error}");
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn registry() -> Arc<Registry> {
        Registry::new(MINUTE, 60 * MINUTE)
    }

    #[test]
    fn names_outlive_the_process_and_damage_costs_only_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(&folder.path().join("state"));
        let (before, after) = (registry(), registry());
        assert!(memory.recall(&before).is_empty() && before.names().is_empty());
        let owner = Owner { key: "laptop".into(), instance: "1".to_owned() };
        let name = |name: &str| Subdomain::parse(name).unwrap();
        before.remember(name("new"), owner.clone(), Duration::ZERO);
        before.remember(name("old"), owner.clone(), 30 * MINUTE);
        before.remember(name("older"), owner.clone(), 61 * MINUTE);
        memory.keep(&before);

        memory.recall(&after);
        let mut names = after.names();
        names.sort_by_key(|(name, ..)| name.to_string());
        let [(first, by, _), (second, _, Some(away_for))] = &names[..] else { panic!("{names:?}") };
        assert_eq!((first.as_str(), second.as_str(), by), ("new", "old", &owner));
        assert!(*away_for >= 30 * MINUTE && *away_for < 31 * MINUTE);

        for damage in ["", "[", "{}", "[{\"name\": 1}]"] {
            std::fs::write(&memory.path, damage).unwrap();
            let fresh = registry();
            memory.recall(&fresh);
            assert!(fresh.names().is_empty(), "{damage}");
        }
        std::fs::write(&memory.path, "[{\"name\": \"a.b\", \"key\": \"k\", \"instance\": \"i\"}]").unwrap();
        memory.recall(&after);
        assert_eq!(after.names().len(), 2);
    }
}
