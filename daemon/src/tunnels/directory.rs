//! Which tunnel has which name, and which session serves it now.
//!
//! Requests look up names without a lock; claims and departures are rare and take turns. A session gets a name in two
//! steps. A [`Reservation`] holds the name while the predecessor serves, and [`Reservation::activate`] switches once
//! the client has its answer. A [`Registration`] is a guard: dropping it unregisters the session that it names and no
//! other, so an old session can't evict its successor.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::{DrainReason, ErrorCode, ErrorMessage};
use cok_transport::Transport;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LiveConfig;
use super::presence::{Live, Presence, Tunnel};
use crate::names::Subdomain;

/// The most names in memory: live, away and reserved ones. A name that is away costs some 300 bytes for an hour.
const MAX_NAMES: usize = 100_000;

/// Who owns a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The key's name in the configuration.
    pub(crate) key: Arc<str>,
    /// The client installation.
    pub(crate) instance: String,
}

/// How long a name that is away is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How long it stays reserved for its key.
    pub(crate) with_key: Duration,
    /// How long it is kept at all.
    pub(crate) at_all: Duration,
}

impl Retention {
    pub(super) fn of(config: &LiveConfig) -> Self {
        Self { with_key: config.reconnect_grace, at_all: config.offline_retention }
    }
}

/// All names.
#[derive(Debug)]
pub(crate) struct Directory {
    tunnels: papaya::HashMap<Subdomain, Arc<Tunnel>>,
    /// Names that another session is about to serve. The lock serializes all changes. It is never held across an await.
    reserved: Mutex<HashMap<Subdomain, Reserved>>,
    /// Wakes the task that saves names.
    changed: Notify,
    retention: RwLock<Retention>,
}

/// The session that a name is reserved for.
#[derive(Debug)]
struct Reserved {
    owner: Owner,
    session: String,
}

/// A session's claim to a name.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The name.
    pub(crate) name: Subdomain,
    /// The owner that claims it.
    pub(crate) owner: Owner,
    /// The predecessor that the session replaces.
    pub(crate) replaces: Option<String>,
    /// The id of the claiming session.
    pub(crate) session: String,
}

/// A name with its owner, and how long it has been away.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Subdomain,
    pub(super) owner: Owner,
    /// `None` while it is online.
    pub(super) away_for: Option<Duration>,
}

impl Directory {
    /// An empty directory.
    pub(super) fn new(retention: Retention) -> Arc<Self> {
        Arc::new(Self {
            tunnels: papaya::HashMap::new(),
            reserved: Mutex::default(),
            changed: Notify::new(),
            retention: RwLock::new(retention),
        })
    }

    /// Changes how long away names are kept.
    pub(super) fn set_retention(&self, retention: Retention) {
        *self.retention.write() = retention;
    }

    /// Finds the tunnel of a name that is in use or was recently.
    pub(super) fn find(&self, name: &Subdomain) -> Option<Arc<Tunnel>> {
        self.tunnels.pin().get(name).cloned()
    }

    /// The number of tunnels that are online.
    pub(super) fn online(&self) -> usize {
        self.tunnels.pin().values().filter(|tunnel| matches!(*tunnel.presence.borrow(), Presence::Online(_))).count()
    }

    /// Reserves a name for a session, or returns why not. The present session keeps serving the name.
    pub(super) fn claim(self: &Arc<Self>, claim: Claim) -> Result<Reservation, ErrorMessage> {
        let mut reserved = self.reserved.lock();
        self.judge(&claim, &reserved)?;
        let holder = Reserved { owner: claim.owner.clone(), session: claim.session.clone() };
        reserved.insert(claim.name.clone(), holder);
        Ok(Reservation { directory: self.clone(), claim })
    }

    fn judge(&self, claim: &Claim, reserved: &HashMap<Subdomain, Reserved>) -> Result<(), ErrorMessage> {
        let Claim { name, owner, replaces, .. } = claim;
        // A newer session of the same client wins over an older one.
        if reserved.get(name).is_some_and(|reserved| reserved.owner != *owner) {
            return Err(taken(name));
        }
        let Some(tunnel) = self.find(name) else {
            let room = self.tunnels.len() + reserved.len() < MAX_NAMES || reserved.contains_key(name);
            return if room { Ok(()) } else { Err(full()) };
        };
        let free = match &*tunnel.presence.borrow() {
            Presence::Online(live) | Presence::Silent(live, _) => {
                live.owner == *owner
                    || (live.owner.key == owner.key && replaces.as_deref() == Some(live.session.as_str()))
            }
            Presence::Away(since) => {
                tunnel.owner().key == owner.key || since.elapsed() > self.retention.read().with_key
            }
        };
        if free { Ok(()) } else { Err(taken(name)) }
    }

    /// Adds a name from an earlier process that has been away for this long. Ignores names that are present already,
    /// too old or too many.
    pub(super) fn remember(&self, name: Subdomain, owner: Owner, away_for: Duration) {
        let _turn = self.reserved.lock();
        let since = Instant::now().checked_sub(away_for);
        if let (Some(since), None) = (since, self.find(&name))
            && away_for <= self.retention.read().at_all
            && self.tunnels.len() < MAX_NAMES
        {
            self.tunnels.pin().insert(name, Tunnel::new(Presence::Away(since), owner));
        }
    }

    /// Every name.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let away_for = |tunnel: &Tunnel| match &*tunnel.presence.borrow() {
            Presence::Online(_) | Presence::Silent(..) => None,
            Presence::Away(since) => Some(since.elapsed()),
        };
        let entry = |(name, tunnel): (&Subdomain, &Arc<Tunnel>)| Entry {
            name: name.clone(),
            owner: tunnel.owner(),
            away_for: away_for(tunnel),
        };
        self.tunnels.pin().iter().map(entry).collect()
    }

    /// Waits until a name was added, went online or went away since the last call. For one listener.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Removes the names that have been away for too long.
    pub(super) fn sweep(&self) {
        let _turn = self.reserved.lock();
        let retention = self.retention.read().at_all;
        self.tunnels.pin().retain(|_, tunnel| match &*tunnel.presence.borrow() {
            Presence::Online(_) | Presence::Silent(..) => true,
            Presence::Away(since) => since.elapsed() <= retention,
        });
    }

    /// Every session that serves a name now.
    pub(super) fn sessions(&self) -> Vec<Arc<Live>> {
        let session = |tunnel: &Arc<Tunnel>| match &*tunnel.presence.borrow() {
            Presence::Online(live) | Presence::Silent(live, _) => Some(live.clone()),
            Presence::Away(_) => None,
        };
        self.tunnels.pin().values().filter_map(session).collect()
    }

    /// Changes the presence of a name, if this session still holds it.
    fn change(&self, name: &Subdomain, session: &str, to: impl FnOnce(Arc<Live>) -> Presence) {
        let _turn = self.reserved.lock();
        if let Some(tunnel) = self.find(name) {
            tunnel.presence.send_if_modified(|presence| match presence {
                Presence::Online(live) | Presence::Silent(live, _) if live.session == session => {
                    *presence = to(live.clone());
                    true
                }
                _ => false,
            });
        }
    }
}

/// A name that is reserved for a session until its client has the answer. Dropping it only ends the reservation.
#[derive(Debug)]
pub(crate) struct Reservation {
    directory: Arc<Directory>,
    claim: Claim,
}

impl Reservation {
    /// Gives the name to the session. A predecessor named in `replaces` drains within `drain`; another displaced one is
    /// closed. Fails if a newer session of the same client has reserved the name meanwhile.
    pub(super) fn activate(self, transport: Arc<dyn Transport>, drain: Duration) -> Result<Registration, ErrorMessage> {
        let Claim { name, owner, replaces, session } = self.claim.clone();
        let directory = self.directory.clone();
        let mut reserved = directory.reserved.lock();
        if reserved.get(&name).is_none_or(|reserved| reserved.session != session) {
            return Err(replaced());
        }
        reserved.remove(&name);
        let live = Arc::new(Live { session: session.clone(), transport, owner: owner.clone() });
        let presence = Presence::Online(live);
        if let Some(tunnel) = directory.find(&name) {
            tunnel.set_owner(owner);
            if let Presence::Online(before) | Presence::Silent(before, _) = tunnel.presence.send_replace(presence) {
                if replaces.as_deref() == Some(before.session.as_str()) {
                    before.transport.drain(DrainReason::Handover, drain);
                } else {
                    before.transport.close(replaced());
                }
            }
        } else {
            directory.tunnels.pin().insert(name.clone(), Tunnel::new(presence, owner));
        }
        drop(reserved);
        directory.changed.notify_one();
        Ok(Registration { directory, name, session })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.directory.reserved.lock();
        if reserved.get(&self.claim.name).is_some_and(|reserved| reserved.session == self.claim.session) {
            reserved.remove(&self.claim.name);
        }
    }
}

/// A session's hold on its name.
#[derive(Debug)]
pub(crate) struct Registration {
    directory: Arc<Directory>,
    name: Subdomain,
    session: String,
}

impl Registration {
    /// Records that the client has fallen silent or is back. Visitors wait for a silent one.
    pub(super) fn set_silent(&self, silent: bool) {
        self.directory.change(&self.name, &self.session, |live| {
            if silent { Presence::Silent(live, Instant::now()) } else { Presence::Online(live) }
        });
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.directory.change(&self.name, &self.session, |_| Presence::Away(Instant::now()));
        self.directory.changed.notify_one();
    }
}

fn taken(name: &Subdomain) -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::NameTaken,
        message: format!("the name \"{name}\" is in use by another client; choose another --subdomain"),
        retryable: false,
    }
}

fn replaced() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Replaced,
        message: "another cok-client with the same key on this machine took the name over".to_owned(),
        retryable: false,
    }
}

fn full() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::LimitReached,
        message: "the server has no room for another name".to_owned(),
        retryable: true,
    }
}
