//! Which tunnel has which name, and which session serves it now.
//!
//! Requests look a name up without a lock; claiming and leaving, which are rare, take turns. A session gets a name in two
//! steps: a [`Reservation`] keeps the name for it while its predecessor serves on, and [`Directory::activate`] switches
//! once the client has its answer. Only the session that serves a name can take it away, so an old session can't evict
//! its successor.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cok_proto::{ErrorMessage, ResetCode, Unbind, UnbindReason};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LiveConfig;
use super::claims::Granted;
use super::holdings::Holdings;
use super::memory::Changed;
use super::presence::{Live, Presence, Tunnel};
use super::refusals::{self, full, moved, replaced, superseded, taken};
use super::session::{Binding, Client, Session};
use super::takeover::TakeOver;
use crate::admission::Access;
use crate::names::Subdomain;
use crate::observe::TunnelOnline;

/// The most names in memory: live, away and reserved ones. A name that is away costs some 400 bytes for an hour.
pub(super) const MAX_NAMES: usize = 100_000;

/// How long a client may take to show that it is still there, when another one of the same key wants its name.
pub(super) const PROBE: Duration = Duration::from_millis(2500);

/// How names that are away are kept. They stay with their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How long.
    pub(crate) time: Duration,
    /// The most names that a key holds, live and away.
    pub(crate) per_key: usize,
}

impl Retention {
    pub(super) fn of(config: &LiveConfig) -> Self {
        Self { time: config.offline_retention, per_key: config.names.max_per_key }
    }
}

/// All names, and all sessions.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(super) tunnels: papaya::HashMap<Subdomain, Arc<Tunnel>>,
    /// Serializes all changes. Its lock is never held across an await.
    pub(super) register: Mutex<Register>,
    /// Wakes the task that saves names.
    pub(super) changed: Notify,
    pub(super) retention: RwLock<Retention>,
}

#[derive(Debug, Default)]
pub(super) struct Register {
    /// Names that are about to be served by another session.
    reserved: HashMap<Subdomain, Reserved>,
    /// How many reservations there were.
    reservations: u64,
    /// Sessions by their ids.
    sessions: HashMap<String, Arc<Session>>,
    /// The names of each key.
    pub(super) holdings: Holdings,
    /// Names that changed since they were saved.
    pub(super) changed: Changed,
}

/// The latest reservation of a name.
#[derive(Debug)]
struct Reserved {
    number: u64,
    client: Arc<Client>,
    /// The id that the tunnel will have.
    tunnel: u32,
}

/// A client asks for a name.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: Subdomain,
    pub(super) client: Arc<Client>,
    /// The id that the tunnel will have.
    pub(super) tunnel: u32,
    pub(super) from: TakeFrom,
    /// What serves the name, if its client was found to have vanished.
    pub(super) vanished: Option<Arc<Live>>,
}

/// From whom a claim may take a name. Anyone may have the name of a client that has vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeFrom {
    /// From any session of the same key and instance.
    Client,
    /// From its own session, which moves the name to another id.
    Session,
    /// From no one: the daemon picks a name that is free.
    NoOne,
}

/// Why a name can't be had.
#[derive(Debug)]
pub(super) enum Denied {
    /// For this reason.
    Refused(ErrorMessage),
    /// A session with the same key serves it, whose client may have vanished.
    Served(Arc<Live>),
}

impl Claim {
    /// Whether it may take the name from `holder`, who has it, or is about to have it, under this id.
    fn may_take_from(&self, holder: &Client, tunnel: u32) -> Result<bool, Denied> {
        let same = holder.session == self.client.session;
        match self.from {
            TakeFrom::Client | TakeFrom::Session if same && tunnel > self.tunnel => Err(Denied::Refused(superseded())),
            TakeFrom::Client => Ok(holder.owner == self.client.owner),
            TakeFrom::Session => Ok(same),
            TakeFrom::NoOne => Ok(false),
        }
    }
}

impl Directory {
    /// An empty directory.
    pub(super) fn new(retention: Retention) -> Arc<Self> {
        Arc::new(Self {
            tunnels: papaya::HashMap::new(),
            register: Mutex::default(),
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

    // ---- names ----

    /// Reserves a name for a session, or returns why not. The present session keeps serving the name.
    pub(super) fn claim(self: &Arc<Self>, claim: &Claim) -> Result<Reservation, Denied> {
        let mut register = self.register.lock();
        self.judge(claim, &register)?;
        Ok(self.reserve(&mut register, claim.name.clone(), claim.client.clone(), claim.tunnel))
    }

    fn reserve(
        self: &Arc<Self>,
        register: &mut Register,
        name: Subdomain,
        client: Arc<Client>,
        tunnel: u32,
    ) -> Reservation {
        register.reservations += 1;
        let number = register.reservations;
        register.reserved.insert(name.clone(), Reserved { number, client, tunnel });
        Reservation { directory: self.clone(), name, number, access: None }
    }

    fn judge(&self, claim: &Claim, register: &Register) -> Result<(), Denied> {
        let Claim { name, client, vanished, .. } = claim;
        let refused = |error| Err(Denied::Refused(error));
        if register.sessions.get(&client.session).is_some_and(|session| session.moves()) {
            return refused(moved());
        }
        // A newer session of the same client wins over an older one, and a newer tunnel of a session likewise.
        if let Some(reserved) = register.reserved.get(name)
            && !claim.may_take_from(&reserved.client, reserved.tunnel)?
        {
            return refused(taken(name));
        }
        let Some(entry) = self.find(name) else {
            let room = self.tunnels.len() + register.reserved.len() < MAX_NAMES
                || register.reserved.contains_key(name)
                || register.holdings.yields_to(&client.owner.key).is_some();
            return if room { Ok(()) } else { refused(full()) };
        };
        let presence = entry.presence.borrow();
        let Some(live) = presence.served_by() else {
            let kept = presence.away_since().is_some_and(|since| since.elapsed() <= self.retention.read().time);
            return if entry.owner().key == client.owner.key || !kept { Ok(()) } else { refused(taken(name)) };
        };
        let same = live.client.session == client.session;
        if claim.may_take_from(&live.client, live.tunnel)?
            || vanished.as_ref().is_some_and(|vanished| Arc::ptr_eq(vanished, live))
        {
            Ok(())
        } else if !same && live.client.owner.key == client.owner.key {
            Err(Denied::Served(live.clone()))
        } else {
            refused(taken(name))
        }
    }

    /// Gives a reserved name to a session under this id. The tunnel that served it so far ends: its client gets Unbind.
    /// Fails if a newer session of the same client has reserved the name or taken over the session meanwhile.
    pub(super) fn activate(
        &self,
        granted: Granted,
        session: &Arc<Session>,
        tunnel: u32,
        online: TunnelOnline,
        drain: Duration,
    ) -> Result<(), ErrorMessage> {
        let Granted { mut reservation, permit } = granted;
        let mut register = self.register.lock();
        let name = reservation.name.clone();
        let newest = register.reserved.get(&name);
        if session.moves() || newest.is_none_or(|reserved| reserved.number != reservation.number) {
            let is_own = |client: &Client| client.session == session.client.session;
            // A later Bind has reserved the name, or has it already.
            let by_itself = match newest {
                Some(reserved) => is_own(&reserved.client),
                None => self
                    .find(&name)
                    .is_some_and(|entry| entry.presence.borrow().served_by().is_some_and(|live| is_own(&live.client))),
            };
            let error = match (session.moves(), by_itself) {
                (true, _) => moved(),
                (false, true) => superseded(),
                (false, false) => replaced(),
            };
            drop(register);
            return Err(error);
        }
        register.reserved.remove(&name);
        let key = session.client.grant.record();
        let tunnels = key.map_or(session.client.key.limits.tunnels, |key| key.limits.tunnels);
        let most = self.retention.read().per_key.max(tunnels);
        let (client, transport) = (session.client.clone(), session.transport.clone());
        let access = reservation.access.take();
        let live = Arc::new(Live { client, transport, tunnel, began: Instant::now(), access, used: OnceLock::new() });
        session.add(tunnel, Binding { name: name.clone(), live: live.clone(), _permit: permit, _online: online });
        let owner = session.client.owner.clone();
        register.changed.note(&name);
        if self.find(&name).is_none_or(|entry| entry.owner().key != owner.key) {
            self.make_room(&mut register, &owner.key, most);
        }
        register.holdings.add(&owner.key, &name, None);
        if let Some(entry) = self.find(&name) {
            let (key, before) = (entry.owner().key, entry.presence.send_replace(Presence::Online(live)));
            register.holdings.remove(&key, &name, before.away_since());
            entry.set_owner(owner);
            if let Some(before) = before.served_by() {
                end_predecessor(&register, before, &session.client, drain);
            }
        } else {
            self.tunnels.pin().insert(name, Tunnel::new(Presence::Online(live), owner));
        }
        drop(register);
        drop(reservation);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends a tunnel of a session. Its visitors wait for it, unless its client has `closed` it.
    pub(super) fn leave(&self, session: &Session, tunnel: u32, closed: bool) -> Option<(Subdomain, Arc<Live>)> {
        let mut register = self.register.lock();
        let binding = session.remove(tunnel)?;
        let now = Instant::now();
        let to = if closed { Presence::Closed(now) } else { Presence::Away(now) };
        if self.change(&binding.name, &binding.live, to) {
            let key = &session.client.owner.key;
            register.holdings.remove(key, &binding.name, None);
            register.holdings.add(key, &binding.name, Some(now));
            register.changed.note(&binding.name);
            self.changed.notify_one();
        }
        Some((binding.name, binding.live))
    }

    /// Changes a name's presence, if this still serves it. The register must be locked.
    fn change(&self, name: &Subdomain, live: &Arc<Live>, to: Presence) -> bool {
        self.find(name).is_some_and(|tunnel| {
            tunnel.presence.send_if_modified(|presence| {
                let serves = presence.served_by().is_some_and(|serving| Arc::ptr_eq(serving, live));
                if serves {
                    *presence = to;
                }
                serves
            })
        })
    }

    // ---- sessions ----

    /// Adds a session that was granted.
    pub(super) fn add_session(self: &Arc<Self>, session: Arc<Session>) -> Registration {
        self.register.lock().sessions.insert(session.client.session.clone(), session.clone());
        Registration { directory: self.clone(), session }
    }

    /// Every session.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.register.lock().sessions.values().cloned().collect()
    }

    /// The session with this id.
    pub(super) fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.register.lock().sessions.get(id).cloned()
    }

    /// Notes that a session's client has fallen silent, or that it was heard again. Visitors of all its tunnels wait for a
    /// silent one.
    pub(super) fn set_silent(&self, session: &Session, silent: bool) {
        let _turn = self.register.lock();
        for (name, live) in session.live() {
            let to =
                if silent { Presence::Silent(live.clone(), Instant::now()) } else { Presence::Online(live.clone()) };
            self.change(&name, &live, to);
        }
    }

    /// Begins to move all tunnels of the session `old`, of the same key, to the session of `client`. `None` if there is no
    /// such session.
    pub(super) fn take_over(self: &Arc<Self>, old: &str, client: &Arc<Client>) -> Option<TakeOver> {
        let mut register = self.register.lock();
        let old = register.sessions.get(old).filter(|old| old.client.owner.key == client.owner.key && !old.moves())?;
        let old = old.clone();
        let mut moving = Vec::new();
        for (name, live) in old.live() {
            let id = live.tunnel;
            // What the old session itself was about to move to another id moves here instead.
            if register.reserved.get(&name).is_none_or(|reserved| reserved.client.session == old.client.session) {
                let mut reservation = self.reserve(&mut register, name, client.clone(), id);
                reservation.access.clone_from(&live.access);
                moving.push((id, reservation));
            }
        }
        old.set_moves(true);
        Some(TakeOver::new(old, moving))
    }
}

/// Ends the tunnel that served a name before `by` got it. In a session whose tunnels all move, that is all there is to do.
fn end_predecessor(register: &MutexGuard<'_, Register>, before: &Live, by: &Client, drain: Duration) {
    let Some(session) = register.sessions.get(&before.client.session) else { return };
    session.remove(before.tunnel);
    if session.moves() {
        return;
    }
    let same = session.client.session == by.session;
    let mut unbind = Unbind::new(if same { UnbindReason::Moved } else { UnbindReason::Replaced }, drain);
    if !same {
        unbind.address = Some(by.address().to_string());
        unbind.version = Some(by.version.clone());
    }
    session.transport.unbind(before.tunnel, &unbind);
    // The session's own task ends the tunnels that its client unbinds.
    let (transport, tunnel) = (session.transport.clone(), before.tunnel);
    tokio::spawn(async move {
        // Over QUIC, a client that was killed and started again leaves a session that looks alive. Its requests are sent
        // again once it is closed.
        if !same && !transport.answers(PROBE).await {
            return transport.close(refusals::vanished());
        }
        tokio::select! {
            () = tokio::time::sleep(drain) => transport.reset_tunnel(tunnel, ResetCode::Cancelled),
            _ = transport.closed() => {}
        }
    });
}

/// A name that is reserved for a session until its client has the answer. Dropping it only ends the reservation.
#[derive(Debug)]
pub(super) struct Reservation {
    directory: Arc<Directory>,
    pub(super) name: Subdomain,
    number: u64,
    /// Whom the tunnel will let in, if not everybody.
    pub(super) access: Option<Arc<Access>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut register = self.directory.register.lock();
        if register.reserved.get(&self.name).is_some_and(|reserved| reserved.number == self.number) {
            register.reserved.remove(&self.name);
        }
    }
}

/// A session's place in the directory. Dropping it ends the tunnels that the session still serves.
#[derive(Debug)]
pub(super) struct Registration {
    directory: Arc<Directory>,
    session: Arc<Session>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.directory.register.lock().sessions.remove(&self.session.client.session);
        for (tunnel, _) in self.session.tunnels() {
            self.directory.leave(&self.session, tunnel, false);
        }
    }
}
