//! Names that outlive the process: which of them are not saved yet, and those of an earlier process.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::directory::{Directory, MAX_NAMES, Register};
use super::presence::{Presence, Tunnel};
use super::session::Owner;
use crate::names::Subdomain;

/// The most unsaved names. While they can't be saved, names may come and go; beyond this, all names are compared with the
/// saved ones later.
const MAX_UNSAVED: usize = 2 * MAX_NAMES;

/// Names that changed since they were saved.
#[derive(Debug, Default)]
pub(super) struct Changed {
    names: HashSet<Subdomain>,
    /// True if there were too many of them.
    lost: bool,
}

impl Changed {
    pub(super) fn note(&mut self, name: &Subdomain) {
        if self.names.len() < MAX_UNSAVED {
            self.names.insert(name.clone());
        } else {
            self.lost = true;
        }
    }
}

/// A name as it is saved.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// `None` while it is online.
    pub(super) away_for: Option<Duration>,
    tunnel: Arc<Tunnel>,
}

impl Entry {
    /// The mark of what was saved last.
    pub(super) fn saved(&self) -> u64 {
        self.tunnel.saved()
    }

    /// Notes what is saved.
    pub(super) fn set_saved(&self, mark: u64) {
        self.tunnel.set_saved(mark);
    }
}

/// Names that are being saved. Dropped before [`Unsaved::done`], they are unsaved again.
#[derive(Debug)]
pub(super) struct Unsaved {
    directory: Arc<Directory>,
    pub(super) names: Vec<Subdomain>,
}

impl Unsaved {
    pub(super) fn done(mut self) {
        self.names.clear();
    }
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        if !self.names.is_empty() {
            let mut register = self.directory.register.lock();
            self.names.iter().for_each(|name| register.changed.note(name));
        }
    }
}

impl Directory {
    /// Adds a name of an earlier process that has been away for this long, with the mark of how it is saved. Ignores names
    /// that are present already or too many. A name that is too old is forgotten, also where it is saved.
    pub(super) fn remember(&self, name: Subdomain, owner: Owner, away_for: Duration, saved: u64) -> bool {
        let mut register = self.register.lock();
        if self.find(&name).is_some() {
            return false;
        }
        let since = Instant::now().checked_sub(away_for).filter(|_| away_for <= self.retention.read().time);
        let Some(since) = since else {
            register.changed.note(&name);
            self.changed.notify_one();
            return false;
        };
        if self.tunnels.len() >= MAX_NAMES {
            return false;
        }
        register.holdings.add(&owner.key, &name, Some(since));
        let tunnel = Tunnel::new(Presence::Away(since), owner);
        tunnel.set_saved(saved);
        self.tunnels.pin().insert(name, tunnel);
        true
    }

    /// Waits until a name was added, went online or went away since the last call. For one listener.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Up to this many names that are not saved. `None` if all are.
    pub(super) fn unsaved(self: &Arc<Self>, most: usize) -> Option<Unsaved> {
        let mut register = self.register.lock();
        let names: Vec<_> = register.changed.names.iter().take(most).cloned().collect();
        for name in &names {
            register.changed.names.remove(name);
        }
        (!names.is_empty()).then(|| Unsaved { directory: self.clone(), names })
    }

    /// Whether changes were lost since the last call, so that all names have to be compared.
    pub(super) fn lost_changes(&self) -> bool {
        std::mem::take(&mut self.register.lock().changed.lost)
    }

    /// Has these names saved that are away.
    pub(super) fn save_away(&self, names: &[Subdomain]) {
        let mut register = self.register.lock();
        for name in names {
            if self.find(name).is_some_and(|tunnel| tunnel.presence.borrow().away_since().is_some()) {
                register.changed.note(name);
            }
        }
        self.changed.notify_one();
    }

    /// Has every name saved.
    pub(super) fn save_all(&self) {
        let mut register = self.register.lock();
        self.tunnels.pin().keys().for_each(|name| register.changed.note(name));
        self.changed.notify_one();
    }

    /// A name as it is now.
    pub(super) fn entry(&self, name: &Subdomain) -> Option<Entry> {
        let tunnel = self.find(name)?;
        let away_for = tunnel.presence.borrow().away_since().map(|since| since.elapsed());
        Some(Entry { owner: tunnel.owner(), away_for, tunnel })
    }

    /// Removes the names that have been away for too long.
    pub(super) fn sweep(&self) {
        let mut register = self.register.lock();
        let time = self.retention.read().time;
        let old = |tunnel: &Tunnel| tunnel.presence.borrow().away_since().is_some_and(|since| since.elapsed() > time);
        let pinned = self.tunnels.pin();
        let old: Vec<_> = pinned.iter().filter(|(_, tunnel)| old(tunnel)).map(|(name, _)| name.clone()).collect();
        for name in &old {
            self.forget(&mut register, name);
        }
    }

    /// Removes a name, also where it is saved.
    pub(super) fn forget(&self, register: &mut Register, name: &Subdomain) {
        if let Some(tunnel) = self.tunnels.pin().remove(name) {
            let away = tunnel.presence.borrow().away_since();
            register.holdings.remove(&tunnel.owner().key, name, away);
            register.changed.note(name);
            self.changed.notify_one();
        }
    }

    /// Removes away names so that `key`, which may hold this many, can have one more.
    pub(super) fn make_room(&self, register: &mut Register, key: &str, most: usize) {
        while register.holdings.of(key) >= most
            && let Some(oldest) = register.holdings.oldest(key).cloned()
        {
            self.forget(register, &oldest);
        }
        while self.tunnels.len() >= MAX_NAMES
            && let Some(oldest) = register.holdings.yields_to(key).cloned()
        {
            self.forget(register, &oldest);
        }
    }
}
