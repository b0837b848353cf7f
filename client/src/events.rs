//! Passes the events of a client on to those who listen.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use cok_proto::ErrorCode;
use cok_transport::Transport;
use futures_core::Stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::event::{Event, TunnelHandle};

/// The most events that wait for a listener. A busy tunnel produces two for each request, so this is a moment of traffic.
const CAPACITY: usize = 1024;

/// Where a tunnel stands, as its owner needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for the daemon.
    Opening,
    /// It has this public address. It may be offline at the moment.
    Online(String),
    /// The daemon has refused it.
    Refused {
        code: ErrorCode,
        reason: String,
        /// It asks again by itself.
        again: bool,
    },
}

/// Takes events in and passes them on.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// The number of queues and observers. Requests look only at this if there are none.
    watchers: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
    observers: RwLock<Arc<[Arc<Observer>]>>,
    /// The standings of tunnels; `None` once the client has ended.
    tunnels: Mutex<Option<HashMap<TunnelHandle, watch::Sender<Standing>>>>,
    requests: AtomicU64,
    /// The latest session.
    session: Mutex<Option<Weak<dyn Transport>>>,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { tunnels: Mutex::new(Some(HashMap::new())), ..Self::default() })
    }

    /// Whether anybody watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Notes a new session.
    pub(crate) fn set_session(&self, session: &Arc<dyn Transport>) {
        *self.session.lock() = Some(Arc::downgrade(session));
    }

    /// The latest session, if it has not ended.
    pub(crate) fn session(&self) -> Option<Arc<dyn Transport>> {
        self.session.lock().as_ref()?.upgrade()
    }

    /// A new number for a request.
    pub(crate) fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes an event on.
    pub(crate) fn publish(&self, event: &Event) {
        self.note(event);
        if self.is_watched() {
            self.publish_request(event);
        }
    }

    /// Passes the event of a request on, which says nothing about the standing of its tunnel.
    pub(crate) fn publish_request(&self, event: &Event) {
        // No lock is held meanwhile: an observer may take its time, or end an observation.
        let observers = self.observers.read().clone();
        for observer in &*observers {
            (observer.0)(event);
        }
        for queue in &*self.queues.lock() {
            queue.push(event);
        }
    }

    /// Calls `observer` with each event until the result is dropped.
    pub(crate) fn observe(self: &Arc<Self>, observer: impl Fn(&Event) + Send + Sync + 'static) -> Observation {
        let observer = Arc::new(Observer(Box::new(observer)));
        let mut observers = self.observers.write();
        *observers = observers.iter().chain([&observer]).cloned().collect();
        drop(observers);
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Observation { hub: self.clone(), observer }
    }

    /// Begins to listen, to one tunnel or to all.
    pub(crate) fn listen(self: &Arc<Self>, tunnel: Option<TunnelHandle>) -> Events {
        let queue = Arc::new(Queue { tunnel, state: Mutex::default() });
        let tunnels = self.tunnels.lock();
        if tunnels.is_some() {
            self.queues.lock().push(queue.clone());
            self.watchers.fetch_add(1, Ordering::Relaxed);
        } else {
            queue.state.lock().closed = true;
        }
        drop(tunnels);
        Events { hub: self.clone(), queue }
    }

    /// Begins to follow a tunnel. The sender is gone once the client has ended.
    pub(crate) fn follow(&self, tunnel: TunnelHandle) -> watch::Receiver<Standing> {
        let (sender, receiver) = watch::channel(Standing::Opening);
        if let Some(tunnels) = &mut *self.tunnels.lock() {
            tunnels.insert(tunnel, sender);
        }
        receiver
    }

    /// Forgets a closed tunnel.
    pub(crate) fn forget(&self, tunnel: TunnelHandle) {
        if let Some(tunnels) = &mut *self.tunnels.lock() {
            tunnels.remove(&tunnel);
        }
    }

    /// The client has ended: no more events come.
    pub(crate) fn close(&self) {
        *self.tunnels.lock() = None;
        for queue in &*self.queues.lock() {
            queue.close();
        }
    }

    fn note(&self, event: &Event) {
        let (tunnel, standing) = match event {
            Event::Connected { tunnel, url, .. } => (tunnel, Standing::Online(url.clone())),
            Event::Refused { tunnel, code, reason, retry_in, .. } => {
                (tunnel, Standing::Refused { code: code.clone(), reason: reason.clone(), again: retry_in.is_some() })
            }
            _ => return,
        };
        if let Some(sender) = self.tunnels.lock().as_ref().and_then(|tunnels| tunnels.get(tunnel)) {
            sender.send_replace(standing);
        }
    }
}

struct Observer(Box<dyn Fn(&Event) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Guard of an observer, which is called until this is dropped; of an event at that very moment, it may still hear. See
/// [`crate::Client::observe`].
#[derive(Debug)]
#[must_use = "dropping it ends the observation"]
pub struct Observation {
    hub: Arc<Hub>,
    observer: Arc<Observer>,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut observers = self.hub.observers.write();
        *observers = observers.iter().filter(|observer| !Arc::ptr_eq(observer, &self.observer)).cloned().collect();
        drop(observers);
        self.hub.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Queue {
    tunnel: Option<TunnelHandle>,
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    lost: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    fn push(&self, event: &Event) {
        if let (Some(wanted), Some(tunnel)) = (self.tunnel, event.tunnel())
            && wanted != tunnel
        {
            return;
        }
        let mut state = self.state.lock();
        if state.events.len() >= CAPACITY {
            state.events.pop_front();
            state.lost += 1;
        }
        state.events.push_back(event.clone());
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The events of a client or of one tunnel, from the moment that it was asked for. It ends with the client.
///
/// Up to 1024 events wait for a slow reader. After that it loses the oldest ones; [`Events::lost`] counts them. Requests are
/// reported only while somebody holds an `Events`.
#[derive(Debug)]
pub struct Events {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
}

impl Events {
    /// Waits for the next event. `None` once the client has ended.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The number of events that were lost because they were not read in time.
    pub fn lost(&self) -> u64 {
        self.queue.state.lock().lost
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.queue.state.lock();
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queues = self.hub.queues.lock();
        let before = queues.len();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.hub.watchers.fetch_sub(before - queues.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(tunnel: u64, request: u64) -> Event {
        Event::RequestBegan {
            tunnel: TunnelHandle(tunnel),
            request,
            method: http::Method::GET,
            path: "/".to_owned(),
            query: None,
        }
    }

    fn request(event: Option<Event>) -> u64 {
        match event {
            Some(Event::RequestBegan { request, .. }) => request,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events() {
        let hub = Hub::new();
        let mut events = hub.listen(None);
        for number in 0..CAPACITY as u64 + 2 {
            hub.publish(&began(0, number));
        }
        assert_eq!((events.lost(), request(events.next().await)), (2, 2));
    }

    #[tokio::test]
    async fn a_listener_to_one_tunnel_hears_of_it_and_of_the_session() {
        let hub = Hub::new();
        let mut events = hub.listen(Some(TunnelHandle(1)));
        hub.publish(&began(0, 0));
        hub.publish(&began(1, 1));
        hub.publish(&Event::Connecting { server: "s".to_owned() });
        assert_eq!(request(events.next().await), 1);
        assert!(matches!(events.next().await, Some(Event::Connecting { .. })));
    }

    #[test]
    fn an_observer_hears_everything_until_it_is_dropped() {
        let (hub, heard) = (Hub::new(), Arc::new(AtomicU64::new(0)));
        let count = heard.clone();
        let observation = hub.observe(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let many = 2 * CAPACITY as u64;
        for number in 0..many {
            hub.publish(&began(0, number));
        }
        drop(observation);
        hub.publish(&began(0, 0));
        assert_eq!((heard.load(Ordering::Relaxed), hub.is_watched()), (many, false));
    }

    #[tokio::test]
    async fn events_end_with_the_client() {
        let hub = Hub::new();
        let mut events = hub.listen(None);
        assert!(hub.is_watched());
        hub.publish(&began(0, 7));
        hub.close();
        assert_eq!(request(events.next().await), 7);
        assert!(events.next().await.is_none() && hub.listen(None).next().await.is_none());
        drop(events);
        assert!(!hub.is_watched());
    }
}
