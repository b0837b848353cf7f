//! The names in use, saved on disk. After a restart, visitors wait for these tunnels and do not get 404.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cok_certs::unix_now;
use cok_host::private_file;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Tunnels;
use super::directory::Directory;
use super::session::Owner;
use crate::names::Subdomain;

const FILE: &str = "names.json";

/// The shortest time between two writes. A single change is written at once, but returning clients change a thousand
/// names together.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A saved name.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    name: String,
    /// The name of the key that owns it.
    key: String,
    /// The client installation.
    instance: String,
    /// When it was last online, in seconds since 1970; absent if it was online at the time of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    away_since: Option<i64>,
}

/// The file with the names in use.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// A snapshot in this folder, which is created on demand.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Restores the names of the last process, and returns those that were online then. Their absence counts from now,
    /// not from the end of that process. A damaged file is logged and ignored.
    pub(crate) fn restore(&self, tunnels: &Tunnels) -> Vec<Subdomain> {
        self.restore_into(&tunnels.directory)
    }

    fn restore_into(&self, directory: &Directory) -> Vec<Subdomain> {
        let saved = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Saved>>(&bytes).map_err(Into::into),
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => Err(error),
        };
        let saved = saved.unwrap_or_else(|error| {
            let file = self.path.display();
            warn!(%file, %error, "the names that were in use cannot be read, so their visitors get 404 for now: {file}: {error}");
            Vec::new()
        });
        let now = unix_now();
        let mut online = Vec::new();
        for saved in saved {
            let Ok(name) = Subdomain::parse(&saved.name) else { continue };
            let owner = Owner { key: saved.key.into(), instance: saved.instance };
            let away_for = saved.away_since.map_or(0, |since| now.saturating_sub(since).max(0).unsigned_abs());
            if saved.away_since.is_none() {
                online.push(name.clone());
            }
            directory.remember(name, owner, Duration::from_secs(away_for));
        }
        online
    }

    /// Saves the current names.
    pub(crate) async fn save(&self, tunnels: &Tunnels) {
        self.save_from(&tunnels.directory).await;
    }

    async fn save_from(&self, directory: &Arc<Directory>) {
        let (snapshot, directory) = (self.clone(), directory.clone());
        // The disk may be slow.
        if let Err(error) = tokio::task::spawn_blocking(move || snapshot.write(&directory)).await {
            warn!(%error, "the names in use could not be saved: {error}");
        }
    }

    fn write(&self, directory: &Directory) {
        let now = unix_now();
        let saved: Vec<Saved> = directory
            .entries()
            .into_iter()
            .map(|entry| Saved {
                name: entry.name.to_string(),
                key: entry.owner.key.to_string(),
                instance: entry.owner.instance,
                away_since: entry.away_for.map(|away_for| now.saturating_sub_unsigned(away_for.as_secs())),
            })
            .collect();
        let written =
            serde_json::to_vec(&saved).map_err(Into::into).and_then(|json| private_file::write(&self.path, &json));
        if let Err(error) = written {
            let file = self.path.display();
            warn!(%file, %error, "the names in use cannot be saved, so a restart would forget them: {file}: {error}");
        }
    }

    /// Saves the names after each change. Runs until it is dropped.
    pub(crate) async fn follow(self, tunnels: Arc<Tunnels>) {
        loop {
            tunnels.directory.changed().await;
            self.save(&tunnels).await;
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::directory::Retention;

    const MINUTE: Duration = Duration::from_secs(60);

    fn directory() -> Arc<Directory> {
        Directory::new(Retention { with_key: MINUTE, at_all: 60 * MINUTE })
    }

    #[test]
    fn names_outlive_the_process_and_damage_costs_only_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::new(&folder.path().join("state"));
        let (before, after) = (directory(), directory());
        assert!(snapshot.restore_into(&before).is_empty() && before.entries().is_empty());
        let owner = Owner { key: "laptop".into(), instance: "1".to_owned() };
        let name = |name: &str| Subdomain::parse(name).unwrap();
        before.remember(name("new"), owner.clone(), Duration::ZERO);
        before.remember(name("old"), owner.clone(), 30 * MINUTE);
        before.remember(name("older"), owner.clone(), 61 * MINUTE);
        snapshot.write(&before);

        snapshot.restore_into(&after);
        let mut names = after.entries();
        names.sort_by_key(|entry| entry.name.to_string());
        let [first, second] = &names[..] else { panic!("{names:?}") };
        assert_eq!((first.name.as_str(), second.name.as_str(), &first.owner), ("new", "old", &owner));
        let away_for = second.away_for.unwrap();
        assert!(away_for >= 30 * MINUTE && away_for < 31 * MINUTE);

        for damage in ["", "[", "{}", "[{\"name\": 1}]"] {
            std::fs::write(&snapshot.path, damage).unwrap();
            let fresh = directory();
            snapshot.restore_into(&fresh);
            assert!(fresh.entries().is_empty(), "{damage}");
        }
        std::fs::write(&snapshot.path, "[{\"name\": \"a.b\", \"key\": \"k\", \"instance\": \"i\"}]").unwrap();
        snapshot.restore_into(&after);
        assert_eq!(after.entries().len(), 2);
    }
}
