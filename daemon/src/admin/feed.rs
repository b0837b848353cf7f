//! Live changes as server-sent events (WHATWG HTML, section 9.2): what changes, not the whole list again.
//!
//! One task compares the daemon with how it was a second ago, and writes the changes once for all listeners. It rests while
//! there is no listener. A listener first fetches the list. It does so again after `resync`, which stands for changes that it missed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Admin;
use super::wire::{Gone, Status, Traffic, TrafficOf, Tunnel};
use crate::names::Subdomain;
use crate::observe::Point;
use crate::tunnels::{State, TunnelView};

/// How often changes are looked for. People see no finer steps, and a look costs some microseconds for each tunnel.
const TICK: Duration = Duration::from_secs(1);
/// The most listeners at once: pages and terminals of a team. Each may keep a connection for good.
const MOST_LISTENERS: usize = 32;
/// How many ticks a listener may lag behind before it has to fetch the list again.
const MOST_LAG: usize = 8;
/// The most tunnels that one tick names. When more of them change, the list is shorter.
const MOST_CHANGES: usize = 1000;

/// The names of the events.
pub(crate) const RESYNC: &str = "resync";
pub(crate) const TUNNEL: &str = "tunnel";
pub(crate) const GONE: &str = "gone";
pub(crate) const TRAFFIC: &str = "traffic";
pub(crate) const STATUS: &str = "status";
const HISTORY: &str = "history";

/// The way of events from the task to its listeners.
#[derive(Debug)]
pub(crate) struct Feed {
    ticks: broadcast::Sender<Bytes>,
    /// Room for listeners.
    room: Arc<Semaphore>,
    /// Wakes the task for the first listener.
    begun: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(MOST_LISTENERS));
        Self { ticks: broadcast::Sender::new(MOST_LAG), room, begun: Notify::new() }
    }
}

/// One listener.
#[derive(Debug)]
pub(super) struct Listener {
    ticks: broadcast::Receiver<Bytes>,
    greeted: bool,
    _room: OwnedSemaphorePermit,
}

impl Feed {
    /// A listener from now on. `None` if there are too many.
    pub(super) fn listen(&self) -> Option<Listener> {
        let room = self.room.clone().try_acquire_owned().ok()?;
        let ticks = self.ticks.subscribe();
        self.begun.notify_one();
        Some(Listener { ticks, greeted: false, _room: room })
    }
}

impl Listener {
    /// The next piece of the stream. `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(resync());
        }
        match self.ticks.recv().await {
            Ok(events) => Some(events),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(resync()),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Admin {
    /// Feeds the listeners. Runs until it is dropped.
    pub(crate) async fn feed(self: Arc<Self>) {
        loop {
            self.feed.begun.notified().await;
            let mut seen = Seen::default();
            seen.look(self.tunnels.views());
            // What changed before the first look is in no event.
            let _none_listens = self.feed.ticks.send(resync());
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.feed.ticks.receiver_count() > 0 {
                ticks.tick().await;
                let admin = self.clone();
                // With many tunnels a look takes milliseconds, which requests must not wait for.
                let looked = tokio::task::spawn_blocking(move || {
                    let text = admin.events(&mut seen);
                    (seen, text)
                });
                let Ok((now, text)) = looked.await else { break };
                seen = now;
                let _none_listens = self.feed.ticks.send(text.into());
            }
        }
    }

    /// The events since the last look.
    fn events(&self, seen: &mut Seen) -> String {
        let tunnels = self.tunnels.views();
        let status = self.status(&tunnels);
        let mut text = match seen.look(tunnels) {
            Some(changes) => changes.text(),
            None => event(RESYNC, &Nothing {}),
        };
        text += &event::<Status>(STATUS, &status);
        if let Some(point) = seen.new_point(self.observers.history.latest()) {
            text += &event(HISTORY, &point);
        }
        text
    }
}

/// What the listeners know.
#[derive(Debug, Default)]
struct Seen {
    tunnels: HashMap<Subdomain, Known>,
    point: Option<Point>,
}

/// What the listeners know of a tunnel.
#[derive(Debug, PartialEq)]
struct Known {
    /// Any change of who serves it begins at another moment.
    state: (State, Instant),
    key_name: Option<Arc<str>>,
    traffic: Traffic,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    tunnels: Vec<Tunnel>,
    gone: Vec<Gone>,
    traffic: Vec<TrafficOf>,
}

impl Seen {
    /// Notes how the tunnels are. `None` if too much has changed to name it.
    fn look(&mut self, now: Vec<TunnelView>) -> Option<Changes> {
        let mut changes = Changes::default();
        let mut before = std::mem::take(&mut self.tunnels);
        let mut traffic = Vec::new();
        for view in now {
            let client = view.served.as_ref().map(|served| &served.client);
            let known = Known {
                state: (view.state, view.since),
                key_name: view.key_name.clone(),
                traffic: Traffic::of(&view.traffic, client),
            };
            match before.remove(&view.name) {
                Some(before) if before.state == known.state && before.key_name == known.key_name => {
                    if before.traffic.differs(&known.traffic) {
                        traffic.push((view.name, before, known));
                    } else {
                        // A round trip that changes a little at a time shows in the end.
                        self.tunnels.insert(view.name, before);
                    }
                }
                _ => {
                    if changes.tunnels.len() <= MOST_CHANGES {
                        changes.tunnels.push(Tunnel::from(&view));
                    }
                    self.tunnels.insert(view.name, known);
                }
            }
        }
        changes.gone = before.into_keys().take(MOST_CHANGES + 1).map(|name| Gone { name: name.to_string() }).collect();
        if traffic.len() > MOST_CHANGES {
            // The others have their turn in a later tick.
            traffic.sort_unstable_by_key(|(_, before, now)| {
                std::cmp::Reverse(now.traffic.requests.saturating_sub(before.traffic.requests))
            });
        }
        for (at, (name, before, now)) in traffic.into_iter().enumerate() {
            if at < MOST_CHANGES {
                changes.traffic.push(TrafficOf { name: name.to_string(), traffic: now.traffic });
            }
            self.tunnels.insert(name, if at < MOST_CHANGES { now } else { before });
        }
        (changes.tunnels.len().max(changes.gone.len()) <= MOST_CHANGES).then_some(changes)
    }

    /// The point, if it is a new one.
    fn new_point(&mut self, latest: Option<Point>) -> Option<Point> {
        let is_new = latest.map(|point| point.at) != self.point.map(|point| point.at);
        self.point = latest;
        latest.filter(|_| is_new)
    }
}

impl Changes {
    fn text(&self) -> String {
        let mut text = String::new();
        for gone in &self.gone {
            text += &event(GONE, gone);
        }
        for tunnel in &self.tunnels {
            text += &event(TUNNEL, tunnel);
        }
        if !self.traffic.is_empty() {
            text += &event(TRAFFIC, &self.traffic);
        }
        text
    }
}

impl Traffic {
    /// Whether the difference is worth an event. A round trip that is nearly the same is not.
    fn differs(&self, now: &Self) -> bool {
        let far = |before: f64, now: f64| (before - now).abs() > (before / 10.0).max(1.0);
        let round_trip = match (self.round_trip_ms, now.round_trip_ms) {
            (Some(before), Some(now)) => far(before, now),
            (before, now) => before.is_some() != now.is_some(),
        };
        round_trip || Self { round_trip_ms: None, ..*self } != Self { round_trip_ms: None, ..*now }
    }
}

/// The data of an event that says all by its name.
#[derive(Debug, Serialize)]
struct Nothing {}

fn resync() -> Bytes {
    event(RESYNC, &Nothing {}).into()
}

/// One event. JSON has no line breaks, so that one line of data is enough.
fn event<T: Serialize>(name: &str, data: &T) -> String {
    let mut text = String::new();
    // Numbers, strings and lists always have a JSON form.
    let data = serde_json::to_string(data).unwrap_or_default();
    // Writing to a string does not fail.
    let _written = write!(text, "event: {name}\ndata: {data}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::TrafficView;

    fn tunnel(name: &str, since: Instant, requests: u64) -> TunnelView {
        TunnelView {
            name: Subdomain::parse(name).unwrap(),
            url: format!("https://{name}.tunnel.test"),
            state: State::Online,
            since,
            key: "k".into(),
            key_name: Some("laptop".into()),
            served: None,
            traffic: TrafficView { requests, ..TrafficView::default() },
        }
    }

    fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
        names.into_iter().map(String::as_str).collect()
    }

    #[test]
    fn only_what_changes_is_said() {
        let (began, mut seen) = (Instant::now(), Seen::default());
        let first = seen.look(vec![tunnel("a", began, 0), tunnel("b", began, 0)]).unwrap();
        assert_eq!((first.tunnels.len(), first.traffic.len(), first.gone.len()), (2, 0, 0));
        let none = seen.look(vec![tunnel("a", began, 0), tunnel("b", began, 0)]).unwrap();
        assert_eq!((&none, none.text().as_str()), (&Changes::default(), ""));
        let later = began + TICK;
        let changes = seen.look(vec![tunnel("a", began, 5), tunnel("c", later, 0)]).unwrap();
        assert_eq!(names(changes.tunnels.iter().map(|tunnel| &tunnel.name)), ["c"]);
        assert_eq!(names(changes.gone.iter().map(|gone| &gone.name)), ["b"]);
        assert_eq!(
            changes.traffic.iter().map(|row| (row.name.as_str(), row.traffic.requests)).collect::<Vec<_>>(),
            [("a", 5)]
        );
        // Another session serves it.
        let changes = seen.look(vec![tunnel("a", later, 5), tunnel("c", later, 0)]).unwrap();
        assert_eq!(names(changes.tunnels.iter().map(|tunnel| &tunnel.name)), ["a"]);
    }

    #[test]
    fn too_many_changes_are_a_resync_and_busy_tunnels_take_turns() {
        let (began, mut seen) = (Instant::now(), Seen::default());
        let many = |requests: u64| -> Vec<_> {
            (0..MOST_CHANGES + 10).map(|number| tunnel(&format!("t{number}"), began, requests)).collect()
        };
        assert_eq!(seen.look(many(0)), None);
        let first = seen.look(many(1)).unwrap();
        let second = seen.look(many(1)).unwrap();
        assert_eq!((first.traffic.len(), second.traffic.len()), (MOST_CHANGES, 10));
        assert_eq!(seen.look(many(1)), Some(Changes::default()));
        assert_eq!(seen.look(Vec::new()), None);
    }

    #[test]
    fn a_round_trip_that_hardly_changes_is_not_worth_an_event() {
        let at = |round_trip_ms| Traffic { round_trip_ms, ..Traffic::default() };
        for (before, now, differs) in [
            (Some(20.0), Some(21.5), false),
            (Some(20.0), Some(22.5), true),
            (Some(0.1), Some(0.9), false),
            (None, Some(1.0), true),
            (None, None, false),
        ] {
            assert_eq!(at(before).differs(&at(now)), differs, "{before:?} {now:?}");
        }
    }

    #[tokio::test]
    async fn a_listener_is_greeted_and_learns_that_it_missed_something() {
        let feed = Feed::default();
        let mut listener = feed.listen().unwrap();
        assert_eq!(listener.next().await.unwrap(), resync());
        feed.ticks.send("event: status\ndata: 1\n\n".into()).unwrap();
        assert_eq!(listener.next().await.unwrap(), "event: status\ndata: 1\n\n");
        for _ in 0..=MOST_LAG {
            feed.ticks.send("event: status\ndata: 2\n\n".into()).unwrap();
        }
        assert_eq!(listener.next().await.unwrap(), resync());
        let others: Vec<_> = std::iter::from_fn(|| feed.listen()).collect();
        assert_eq!(others.len(), MOST_LISTENERS - 1);
        drop(others);
        assert!(feed.listen().is_some());
    }
}
