//! The tunnels of a client: which it wants, where each stands in the session, and when it asks for one again.
//!
//! A refused tunnel never ends the others. It asks again where waiting may help.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::{Bind, Bound, ErrorCode, ErrorMessage, ResetCode, Rules, TunnelFrame, Unbind, UnbindReason};
use cok_transport::Transport;
use tokio::time::Instant;

use super::taken::Taken;
use crate::event::{Event, Refused, TunnelHandle, TunnelState, TunnelStatus};
use crate::flight::UnderWay;
use crate::routes::{Routes, Slot};
use crate::text::quoted;

/// The shortest wait until a refused or displaced tunnel asks again.
const LONG_WAIT: Duration = Duration::from_secs(60);
/// The longest wait until a refused tunnel or session asks again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The wait until a tunnel asks again after a refusal that is about the moment.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// Extra time on top of the daemon's deadline for the exchanges of a tunnel that it has ended.
const SLACK: Duration = Duration::from_secs(1);

/// What the user wants with a tunnel.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open it.
    Open(TunnelHandle, Wanted),
    /// Close it. Its exchanges may finish within this time.
    Close(TunnelHandle, Duration),
    /// Have the daemon apply other rules to it.
    SetRules(TunnelHandle, Arc<Rules>),
    /// Say where all tunnels stand.
    Status(tokio::sync::oneshot::Sender<Vec<TunnelStatus>>),
}

/// A tunnel as its user wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The user's name for it, for messages.
    pub(crate) label: Option<String>,
    /// The name; without one the daemon picks.
    pub(crate) subdomain: Option<String>,
    /// Which visitors the daemon lets in.
    pub(crate) rules: Arc<Rules>,
    /// The service.
    pub(crate) slot: Arc<Slot>,
}

/// How a client deals with refusals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long to ask for a name that another client has.
    pub(crate) name_timeout: Duration,
    /// Whether to ask again after each refusal that may pass, whatever it says.
    pub(crate) keep_trying: bool,
    /// Whether the session stays when the daemon has refused all its tunnels.
    pub(crate) outlasts_refusals: bool,
}

/// The session that the tunnels are in, for events.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) id: String,
    pub(super) reason: String,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// The name that the daemon has given.
    given: Option<String>,
    url: Option<String>,
    /// Whether it may displace another session of this installation.
    take_over: bool,
    state: State,
    taken: Taken,
    /// Refusals since it was online.
    refusals: u32,
    /// Its latest ids in sessions.
    ids: [Option<u32>; 2],
    /// The rules of its latest Bind.
    asked_rules: Option<Arc<Rules>>,
}

/// Where a tunnel stands in the session.
#[derive(Debug)]
enum State {
    /// It asks as soon as there is a session and this time has come.
    Waiting(Instant),
    /// Bind was sent under this id.
    Asked(u32),
    /// It was bound in the previous session under this id, and moves.
    Moving(u32),
    /// It is bound under this id.
    Online(u32),
    /// It was refused. It may ask again at this time.
    Refused(Option<Instant>, ErrorMessage),
}

/// All tunnels of a client.
#[derive(Debug)]
pub(crate) struct Tunnels {
    entries: BTreeMap<TunnelHandle, Entry>,
    routes: Arc<Routes>,
    patience: Patience,
    /// The latest id in a session. Ids rise over all sessions of the client.
    last_id: u32,
    /// Tunnels whose Bound is still to come, because they move.
    moved_left: u32,
    /// The session takes no more Binds until it has answered some.
    is_full: bool,
    /// Ended tunnels, and when their exchanges must have.
    ending: Vec<(Instant, u32)>,
    /// Closed tunnels with exchanges under way.
    closing: Vec<Arc<Slot>>,
}

impl Tunnels {
    pub(crate) fn new(routes: Arc<Routes>, patience: Patience) -> Self {
        Self {
            entries: BTreeMap::new(),
            routes,
            patience,
            last_id: 0,
            moved_left: 0,
            is_full: false,
            ending: Vec::new(),
            closing: Vec::new(),
        }
    }

    // ---- what the user wants ----

    /// Does what the user wants. `current` is the session, if there is one.
    pub(super) fn apply(&mut self, command: Command, current: Option<&Current>) {
        match command {
            Command::Open(handle, wanted) => {
                let entry = Entry {
                    wanted,
                    given: None,
                    url: None,
                    take_over: true,
                    state: State::Waiting(Instant::now()),
                    taken: Taken::new(self.patience.name_timeout),
                    refusals: 0,
                    ids: [None; 2],
                    asked_rules: None,
                };
                self.entries.insert(handle, entry);
            }
            Command::Close(handle, within) => self.close(handle, within, current),
            Command::SetRules(handle, rules) => self.set_rules(handle, rules, current),
            // The sender may have gone.
            Command::Status(answer) => drop(answer.send(self.status())),
        }
    }

    fn close(&mut self, handle: TunnelHandle, within: Duration, current: Option<&Current>) {
        let Some(entry) = self.entries.remove(&handle) else { return };
        if let (Some(current), State::Asked(id) | State::Moving(id) | State::Online(id)) = (current, &entry.state) {
            current.transport.unbind(*id, &Unbind::new(UnbindReason::Closed, within));
            self.ending.push((Instant::now() + within, *id));
        }
        for id in entry.ids.into_iter().flatten() {
            self.routes.remove(id);
        }
        entry.wanted.slot.in_flight.stop();
        self.closing.retain(|slot| slot.in_flight.under_way() != UnderWay::default());
        self.closing.push(entry.wanted.slot);
    }

    /// A tunnel that is online asks again under another id; the daemon moves its name there in one step. One that waits for an
    /// answer asks again after it.
    fn set_rules(&mut self, handle: TunnelHandle, rules: Arc<Rules>, current: Option<&Current>) {
        let Some(entry) = self.entries.get_mut(&handle) else { return };
        entry.wanted.rules = rules;
        match entry.state {
            State::Online(_) if current.is_some() => entry.state = State::Waiting(Instant::now()),
            State::Refused(..) => entry.state = State::Waiting(Instant::now()),
            _ => {}
        }
    }

    /// Where each tunnel stands.
    fn status(&self) -> Vec<TunnelStatus> {
        let status = |(handle, entry): (&TunnelHandle, &Entry)| TunnelStatus {
            tunnel: *handle,
            label: entry.wanted.label.clone(),
            url: entry.url.clone(),
            state: match &entry.state {
                State::Online(_) | State::Moving(_) => TunnelState::Online,
                State::Waiting(_) | State::Asked(_) => TunnelState::Connecting,
                State::Refused(_, error) => TunnelState::Refused(quoted(&error.message)),
            },
        };
        self.entries.iter().map(status).collect()
    }

    /// The numbers of exchanges under way.
    pub(super) fn under_way(&self) -> UnderWay {
        let slots = self.entries.values().map(|entry| &entry.wanted.slot).chain(&self.closing);
        slots.map(|slot| slot.in_flight.under_way()).fold(UnderWay::default(), |all, of_one| UnderWay {
            requests: all.requests + of_one.requests,
            streams: all.streams + of_one.streams,
        })
    }

    /// Has WebSockets and event streams of all tunnels end.
    pub(super) fn stop(&self) {
        for entry in self.entries.values() {
            entry.wanted.slot.in_flight.stop();
        }
    }

    /// The refusal that ends the client: that of its first tunnel, once all are refused. A planned retry does not
    /// count, since a user who starts a client wants to know at once. `None` as long as there is hope.
    pub(super) fn all_refused(&self) -> Option<Refused> {
        let mut refusals = self.entries.values().map(Entry::final_refusal);
        let first = refusals.next().flatten()?;
        (!self.patience.outlasts_refusals && !self.patience.keep_trying && refusals.all(|refusal| refusal.is_some()))
            .then(|| Refused(first.clone()))
    }

    // ---- sessions ----

    /// The ids of tunnels that a next session may take over from the current one.
    pub(super) fn moving(&self) -> Vec<u32> {
        let id = |entry: &Entry| match entry.state {
            State::Online(id) | State::Moving(id) => Some(id),
            _ => None,
        };
        self.entries.values().filter_map(id).collect()
    }

    /// The session has ended, and the next one cannot take its tunnels over.
    pub(super) fn lost(&mut self) {
        let now = Instant::now();
        for entry in self.entries.values_mut() {
            if let State::Asked(_) | State::Moving(_) | State::Online(_) = entry.state {
                entry.state = State::Waiting(now);
            }
        }
    }

    /// A new session was granted, to which so many tunnels move.
    pub(super) fn began(&mut self, moved: u32) {
        let now = Instant::now();
        (self.moved_left, self.is_full) = (moved, false);
        for entry in self.entries.values_mut() {
            entry.state = match std::mem::replace(&mut entry.state, State::Waiting(now)) {
                State::Online(id) | State::Moving(id) if moved > 0 => State::Moving(id),
                State::Online(_) | State::Moving(_) | State::Asked(_) => State::Waiting(now),
                other => other,
            };
        }
    }

    /// Asks for the tunnels that are due.
    pub(super) fn bind_due(&mut self, current: &Current, now: Instant) {
        for entry in self.entries.values_mut() {
            if self.is_full || entry.due().is_none_or(|at| at > now) {
                continue;
            }
            let id = self.last_id + 1;
            let subdomain = entry.wanted.subdomain.clone().or_else(|| entry.given.clone());
            let bind =
                Bind { subdomain, rules: entry.wanted.rules.to_value(), take_over: entry.take_over, ..Bind::default() };
            entry.asked_rules = Some(entry.wanted.rules.clone());
            if !current.transport.bind(id, &bind) {
                self.is_full = true;
                continue;
            }
            self.last_id = id;
            self.routes.add(id, entry.wanted.slot.clone());
            // Requests of a session that drains still come under the id before this one.
            if let Some(oldest) = entry.ids[1].take() {
                self.routes.remove(oldest);
            }
            entry.ids = [Some(id), entry.ids[0]];
            entry.state = State::Asked(id);
        }
    }

    /// When [`Tunnels::bind_due`] or [`Tunnels::end_exchanges`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let binds = self.entries.values().filter_map(Entry::due).filter(|_| !self.is_full);
        binds.chain(self.ending.iter().map(|(at, _)| *at)).min()
    }

    /// Abandons the exchanges of ended tunnels whose deadline has passed.
    pub(super) fn end_exchanges(&mut self, current: &Current, now: Instant) {
        self.ending.retain(|(at, id)| {
            let goes_on = *at > now;
            if !goes_on {
                current.transport.reset_tunnel(*id, ResetCode::Cancelled);
            }
            goes_on
        });
    }

    /// Takes in what the daemon says about a tunnel.
    pub(super) fn receive(&mut self, id: u32, frame: TunnelFrame, current: &Current, on_event: &mut impl FnMut(Event)) {
        self.is_full = false;
        match frame {
            TunnelFrame::Bound(bound) => self.bound(id, bound, current, on_event),
            TunnelFrame::Refused(error) => self.refused(id, error, on_event),
            TunnelFrame::Unbind(unbind) => self.unbound(id, &unbind, on_event),
            // The session lets no Bind come to a client.
            TunnelFrame::Bind(_) => {}
        }
    }

    fn bound(&mut self, id: u32, bound: Bound, current: &Current, on_event: &mut impl FnMut(Event)) {
        let holds = |entry: &Entry| matches!(entry.state, State::Asked(held) | State::Moving(held) if held == id);
        let Some((handle, entry)) = self.entries.iter_mut().find(|(_, entry)| holds(entry)) else { return };
        let moved = matches!(entry.state, State::Moving(_));
        entry.state = if entry.has_stale_rules() { State::Waiting(Instant::now()) } else { State::Online(id) };
        (entry.take_over, entry.refusals) = (true, 0);
        entry.taken.clear();
        // The client asks for the same name when it comes back.
        (entry.given, entry.url) = (Some(bound.subdomain), Some(bound.url.clone()));
        on_event(Event::Connected {
            tunnel: *handle,
            label: entry.wanted.label.clone(),
            transport: current.transport.name(),
            url: bound.url,
            session: current.id.clone(),
            reason: current.reason.clone(),
        });
        if moved {
            self.moved_left = self.moved_left.saturating_sub(1);
            if self.moved_left == 0 {
                self.forget_unmoved();
            }
        }
    }

    /// Tunnels that did not move have to ask again.
    fn forget_unmoved(&mut self) {
        let now = Instant::now();
        for entry in self.entries.values_mut() {
            if let State::Moving(_) = entry.state {
                entry.state = State::Waiting(now);
            }
        }
    }

    fn refused(&mut self, id: u32, error: ErrorMessage, on_event: &mut impl FnMut(Event)) {
        let holds = |entry: &Entry| matches!(entry.state, State::Asked(held) if held == id);
        let Some((handle, entry)) = self.entries.iter_mut().find(|(_, entry)| holds(entry)) else { return };
        let now = Instant::now();
        if entry.has_stale_rules() {
            entry.state = State::Waiting(now);
            return;
        }
        let refused = Refused(error);
        let is_picked = entry.wanted.subdomain.is_none() && refused.is_about_the_name();
        if is_picked && entry.given.take().is_some() {
            // Another client has the name that the daemon had picked. The daemon may pick another one.
            entry.state = State::Waiting(now);
            return;
        }
        let Refused(error) = refused;
        if error.retryable {
            entry.state = State::Waiting(now + SHORT_WAIT);
            return;
        }
        if error.code == ErrorCode::NameTaken && entry.take_over {
            let first = !entry.taken.is_waiting();
            if let Some(wait) = entry.taken.refused(now) {
                entry.state = State::Waiting(now + wait);
                if first {
                    on_event(Event::NameTaken {
                        tunnel: *handle,
                        label: entry.wanted.label.clone(),
                        name: entry.name(),
                        reason: quoted(&error.message),
                        within: self.patience.name_timeout,
                    });
                }
                return;
            }
        }
        let may_pass =
            matches!(error.code, ErrorCode::NameTaken | ErrorCode::LimitReached) || self.patience.keep_trying;
        let retry_in = may_pass.then(|| long_wait(entry.refusals));
        let displaced = error.code == ErrorCode::NameTaken && !entry.take_over;
        if entry.refusals == 0 && !displaced {
            on_event(Event::Refused {
                tunnel: *handle,
                label: entry.wanted.label.clone(),
                code: error.code.clone(),
                reason: quoted(&error.to_string()),
                retry_in,
            });
        }
        entry.refusals = entry.refusals.saturating_add(1);
        entry.state = match retry_in {
            // The one that has displaced it is still there.
            Some(wait) if displaced => State::Waiting(now + wait),
            retry_in => State::Refused(retry_in.map(|wait| now + wait), error),
        };
    }

    fn unbound(&mut self, id: u32, unbind: &Unbind, on_event: &mut impl FnMut(Event)) {
        let now = Instant::now();
        self.ending.push((now + unbind.deadline().saturating_add(SLACK).min(LONGEST_WAIT), id));
        let holds = |entry: &Entry| matches!(entry.state, State::Online(held) | State::Moving(held) if held == id);
        // A tunnel that has moved to another id goes on.
        let Some((handle, entry)) = self.entries.iter_mut().find(|(_, entry)| holds(entry)) else { return };
        let (tunnel, label) = (*handle, entry.wanted.label.clone());
        match unbind.reason {
            UnbindReason::Replaced => {
                let retry_in = long_wait(0);
                entry.take_over = false;
                entry.state = State::Waiting(now + retry_in);
                let (address, version) = (unbind.address.clone(), unbind.version.clone());
                let clean = |text: Option<String>| text.map(|text| quoted(&text));
                on_event(Event::Displaced {
                    tunnel,
                    label,
                    url: entry.url.clone(),
                    address: clean(address),
                    version: clean(version),
                    retry_in,
                });
            }
            UnbindReason::Revoked => {
                let message = "the key no longer allows the tunnel".to_owned();
                let error = ErrorMessage { code: ErrorCode::Unauthorized, message, retryable: false };
                let retry_in = self.patience.keep_trying.then_some(LONGEST_WAIT);
                on_event(Event::Refused {
                    tunnel,
                    label,
                    code: error.code.clone(),
                    reason: quoted(&error.to_string()),
                    retry_in,
                });
                entry.state = State::Refused(retry_in.map(|wait| now + wait), error);
            }
            _ => entry.state = State::Waiting(now + SHORT_WAIT),
        }
    }
}

impl Entry {
    /// Its refusal, unless it has been online and only lacks room: the one that took its place may leave again.
    fn final_refusal(&self) -> Option<&ErrorMessage> {
        match &self.state {
            State::Refused(Some(_), error) if self.url.is_some() && error.code == ErrorCode::LimitReached => None,
            State::Refused(_, error) => Some(error),
            _ => None,
        }
    }

    /// When it asks.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Refused(Some(at), _) => Some(at),
            _ => None,
        }
    }

    /// Whether its user has changed the rules since it asked.
    fn has_stale_rules(&self) -> bool {
        self.asked_rules.as_ref().is_some_and(|asked| *asked != self.wanted.rules)
    }

    /// The name that it asks for.
    fn name(&self) -> Option<String> {
        self.wanted.subdomain.clone().or_else(|| self.given.clone())
    }
}

/// The wait after so many refusals in a row: 1 to 5 minutes, not in step with other clients.
pub(super) fn long_wait(refusals: u32) -> Duration {
    let longest = LONG_WAIT.saturating_mul(1 << refusals.min(3)).min(LONGEST_WAIT);
    LONG_WAIT.max(longest.mul_f64(0.75 + fastrand::f64() / 4.0))
}

#[cfg(test)]
mod tests;
