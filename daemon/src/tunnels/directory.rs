//! Which tunnel has which name, and which session serves it now.
//!
//! Requests look a name up without a lock; claiming and leaving, which are rare, take turns. A registration is a guard:
//! dropping it unregisters the session that it names, and only that one, so an old session can't evict its successor.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cok_proto::{DrainReason, ErrorCode, ErrorMessage};
use cok_transport::Transport;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::names::Subdomain;

/// The most names that are remembered, live and away together. An away name costs some 300 bytes for an hour.
const MAX_NAMES: usize = 100_000;

/// Who owns a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The key's name in the configuration.
    pub(crate) key: Arc<str>,
    /// The client installation.
    pub(crate) instance: String,
}

/// A session that serves a name.
#[derive(Debug)]
pub(crate) struct Live {
    /// The session's id.
    pub(crate) session: String,
    /// Where its exchanges are opened.
    pub(crate) transport: Arc<dyn Transport>,
    owner: Owner,
}

/// Whether a tunnel can be reached.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// By this session.
    Online(Arc<Live>),
    /// By this session, whose client has given no sign of life since then, though it was asked.
    Silent(Arc<Live>, Instant),
    /// Not since then.
    Away(Instant),
}

/// A public name and what serves it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    presence: watch::Sender<Presence>,
    owner: Mutex<Owner>,
    held: AtomicUsize,
}

impl Tunnel {
    fn new(presence: Presence, owner: Owner) -> Arc<Self> {
        let (presence, owner) = (watch::Sender::new(presence), Mutex::new(owner));
        Arc::new(Self { presence, owner, held: AtomicUsize::new(0) })
    }

    /// Whether it can be reached, as that changes.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// The session that serves it now.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match &*self.presence.borrow() {
            Presence::Online(live) => Some(live.clone()),
            Presence::Silent(..) | Presence::Away(_) => None,
        }
    }

    /// A place among the visitors that wait for the tunnel, of whom there may be `most`.
    pub(crate) fn hold(self: &Arc<Self>, most: usize) -> Option<Held> {
        let taken =
            self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        taken.is_ok().then(|| Held(self.clone()))
    }

    fn owner(&self) -> Owner {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A visitor that waits for a tunnel; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Held(Arc<Tunnel>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All names.
#[derive(Debug)]
pub(crate) struct Registry {
    tunnels: papaya::HashMap<Subdomain, Arc<Tunnel>>,
    /// Serializes changes; never held while anything waits.
    changes: Mutex<()>,
    /// That names, or whether they are online, have changed.
    changed: Notify,
    /// How long an away name stays with its key.
    /// How long it is remembered at all comes second.
    times: Mutex<(Duration, Duration)>,
}

/// A session asks for a name.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The name.
    pub(crate) name: Subdomain,
    /// Who asks.
    pub(crate) owner: Owner,
    /// The session that it takes over from.
    pub(crate) replaces: Option<String>,
    /// The asking session's id.
    pub(crate) session: String,
    /// How long a replaced session may take to finish.
    pub(crate) drain: Duration,
}

impl Registry {
    /// An empty registry.
    pub(crate) fn new(grace: Duration, retention: Duration) -> Arc<Self> {
        let (tunnels, changes, changed) = (papaya::HashMap::new(), Mutex::new(()), Notify::new());
        Arc::new(Self { tunnels, changes, changed, times: Mutex::new((grace, retention)) })
    }

    /// Changes how long an away name stays with its key, and how long it is remembered at all.
    pub(crate) fn set_times(&self, grace: Duration, retention: Duration) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = (grace, retention);
    }

    fn times(&self) -> (Duration, Duration) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnel of a name that is, or lately was, in use.
    pub(crate) fn find(&self, name: &Subdomain) -> Option<Arc<Tunnel>> {
        self.tunnels.pin().get(name).cloned()
    }

    /// How many tunnels are online.
    pub(crate) fn online(&self) -> usize {
        self.tunnels.pin().values().filter(|tunnel| matches!(*tunnel.presence.borrow(), Presence::Online(_))).count()
    }

    /// Whether [`Registry::claim`] would succeed, so that a refusal can be sent before the session is granted.
    pub(crate) fn may_claim(
        &self,
        name: &Subdomain,
        owner: &Owner,
        replaces: Option<&str>,
    ) -> Result<(), ErrorMessage> {
        let Some(tunnel) = self.find(name) else {
            return if self.tunnels.len() < MAX_NAMES { Ok(()) } else { Err(full()) };
        };
        let free = match &*tunnel.presence.borrow() {
            Presence::Online(live) | Presence::Silent(live, _) => {
                live.owner == *owner || (live.owner.key == owner.key && replaces == Some(live.session.as_str()))
            }
            Presence::Away(since) => tunnel.owner().key == owner.key || since.elapsed() > self.times().0,
        };
        if free { Ok(()) } else { Err(taken(name)) }
    }

    /// Gives a name to a session. A predecessor named in `replaces` drains; one that is merely displaced is closed.
    pub(crate) fn claim(
        self: &Arc<Self>,
        claim: Claim,
        transport: Arc<dyn Transport>,
    ) -> Result<Registration, ErrorMessage> {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.may_claim(&claim.name, &claim.owner, claim.replaces.as_deref())?;
        let live = Arc::new(Live { session: claim.session.clone(), transport, owner: claim.owner.clone() });
        let presence = Presence::Online(live);
        let registration = Registration { registry: self.clone(), name: claim.name.clone(), session: claim.session };
        if let Some(tunnel) = self.find(&claim.name) {
            *tunnel.owner.lock().unwrap_or_else(PoisonError::into_inner) = claim.owner;
            if let Presence::Online(before) | Presence::Silent(before, _) = tunnel.presence.send_replace(presence) {
                if claim.replaces.as_deref() == Some(before.session.as_str()) {
                    before.transport.drain(DrainReason::Handover, claim.drain);
                } else {
                    before.transport.close(replaced());
                }
            }
        } else {
            self.tunnels.pin().insert(claim.name, Tunnel::new(presence, claim.owner));
        }
        self.changed.notify_one();
        Ok(registration)
    }

    /// Takes in a name that was in use before this process was, and has been away for so long. Names that are here already,
    /// too old or too many are left as they are.
    pub(crate) fn remember(&self, name: Subdomain, owner: Owner, away_for: Duration) {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now().checked_sub(away_for);
        if let (Some(since), None) = (since, self.find(&name))
            && away_for <= self.times().1
            && self.tunnels.len() < MAX_NAMES
        {
            self.tunnels.pin().insert(name, Tunnel::new(Presence::Away(since), owner));
        }
    }

    /// Every name with its owner, and for how long it has been away.
    pub(crate) fn names(&self) -> Vec<(Subdomain, Owner, Option<Duration>)> {
        let away_for = |tunnel: &Tunnel| match &*tunnel.presence.borrow() {
            Presence::Online(_) | Presence::Silent(..) => None,
            Presence::Away(since) => Some(since.elapsed()),
        };
        self.tunnels.pin().iter().map(|(name, tunnel)| (name.clone(), tunnel.owner(), away_for(tunnel))).collect()
    }

    /// Waits until a name has come, gone online or away since the last time that this was asked. For one listener.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Forgets the names that have been away for longer than they are remembered.
    pub(crate) fn sweep(&self) {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, retention) = self.times();
        self.tunnels.pin().retain(|_, tunnel| match &*tunnel.presence.borrow() {
            Presence::Online(_) | Presence::Silent(..) => true,
            Presence::Away(since) => since.elapsed() <= retention,
        });
    }

    /// Every session that serves a name now.
    pub(crate) fn sessions(&self) -> Vec<Arc<Live>> {
        let session = |tunnel: &Arc<Tunnel>| match &*tunnel.presence.borrow() {
            Presence::Online(live) | Presence::Silent(live, _) => Some(live.clone()),
            Presence::Away(_) => None,
        };
        self.tunnels.pin().values().filter_map(session).collect()
    }

    /// Changes a name's presence, if it is still this session's.
    fn change(&self, name: &Subdomain, session: &str, to: impl FnOnce(Arc<Live>) -> Presence) {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A session's hold on its name.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    name: Subdomain,
    session: String,
}

impl Registration {
    /// Takes note that the client has fallen silent, or that it was heard again. Visitors wait for a silent one.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.registry.change(&self.name, &self.session, |live| {
            if silent { Presence::Silent(live, Instant::now()) } else { Presence::Online(live) }
        });
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.change(&self.name, &self.session, |_| Presence::Away(Instant::now()));
        self.registry.changed.notify_one();
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
