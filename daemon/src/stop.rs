//! How a daemon stops: what runs may finish, visitors are told what can't, and clients come back to the next one.
//!
//! With sockets of its own it lets go of them at once, so that the next daemon can have them. Sockets of the service manager
//! outlive it, but the next daemon starts only when this one has ended; so it serves on for as long as anything of before
//! is under way, and whoever comes during the short rest waits in the sockets' queues.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cok_proto::DrainReason;
use quinn::VarInt;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::listener;
use crate::listener::first_packets;
use crate::listener::leaving::leave;
use crate::listener::quic::Port;
use crate::memory::Memory;
use crate::running::Older;
use crate::service_manager;

/// How long a request may have been under way when no new ones are accepted any more: most of those will end soon.
const YOUNG: Duration = Duration::from_secs(1);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long visitors may take to hear that the time for what runs is up, from then on: for the end of the frame that is under
/// way in a WebSocket, and a closing handshake with a visitor on the other side of the world, of three round trips of 300 ms.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much longer requests may take that came while a daemon served on, when that time is up and nobody else is accepted
/// any more. Visitors who come later wait for as long.
const LATE_REQUESTS: Duration = Duration::from_secs(2);

/// How long requests that cross with the word of the end still find their tunnels: a round trip to the other side of the
/// world. Without it they would be answered with 503.
const CROSSING: Duration = Duration::from_millis(300);

/// How long tunnels whose visitors are gone may take to hear that the next process waits for them.
const HANDING_OVER: Duration = Duration::from_millis(250);

/// How long visitors may take to read what they were answered, once nothing else is waited for but the next process.
const LAST_READERS: Duration = Duration::from_secs(5);

/// How much longer than the time for what runs a stop may take at all: a little longer than the late requests.
const OVERTIME: Duration = Duration::from_secs(3);

/// How long QUIC peers may take to hear that their connections are closed.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// A daemon that serves.
pub(crate) struct Serving {
    pub(crate) daemon: Arc<Daemon>,
    /// The public sockets are the service manager's.
    pub(crate) handed_over: bool,
    /// Tasks that accept what comes to the public sockets.
    pub(crate) listeners: JoinSet<()>,
    pub(crate) quic: Vec<Port>,
    pub(crate) memory: Memory,
    /// Writes the names down as they change.
    pub(crate) keeper: JoinHandle<()>,
    /// Tasks that answer on the admin address.
    pub(crate) admins: JoinSet<()>,
    /// Tasks in the background, to the end.
    pub(crate) _others: JoinSet<()>,
}

impl Serving {
    /// Stops: until `drain_timeout` all that runs may finish.
    pub(crate) async fn stop(mut self) {
        let daemon = self.daemon.clone();
        // Whoever may choose sends new visitors elsewhere.
        daemon.ready.store(false, Ordering::Relaxed);
        let (sessions, drain) = (daemon.registry.online(), daemon.config().limits.drain_timeout);
        let time = humantime::format_duration(drain);
        info!(event = "draining", sessions, "stopping: what runs may finish within {time}; tunnels online: {sessions}");
        service_manager::stopping(drain + OVERTIME);
        let deadline = Instant::now() + drain;

        let (cut, limit) = if self.handed_over {
            self.hand_over(deadline).await;
            daemon.shutdown.last_moment();
            let now = Instant::now();
            (now + HANDING_OVER, (now + LAST_READERS).min(deadline + OVERTIME))
        } else {
            self.let_go().await;
            let _gone = timeout(CROSSING, daemon.visitors.wait()).await;
            (deadline + FAREWELL, deadline + OVERTIME)
        };
        for live in daemon.registry.sessions() {
            live.transport.drain(DrainReason::Restart, cut.saturating_duration_since(Instant::now()));
        }
        daemon.tasks.close();
        // What has left HTTP is no task any more, but its visitor still is one.
        let ended = async { tokio::join!(daemon.tasks.wait(), daemon.visitors.wait()) };
        let finished = daemon.shutdown.see_off(ended, deadline.min(limit), limit).await;
        self.close_quic().await;
        let how = if finished { "all that ran has finished" } else { "what had not finished in time was cut off" };
        info!(event = "stopped", finished, "stopped; {how}");
    }

    /// Serves on until what runs now has ended, and then answers whoever was accepted, with the tunnels as they are.
    async fn hand_over(&mut self, deadline: Instant) {
        let began = Instant::now();
        let running = self.daemon.running.so_far();
        let _in_time = timeout_at(deadline, running.ended()).await;
        let older = self.good_moment(began, deadline).await;
        self.keep_names().await;
        // Before nobody accepts any more: what is accepted all the same, and copied as well, makes no difference to its
        // sender, who goes on with the first one who has answered (RFC 9000, section 7.2).
        for Port { socket, .. } in &self.quic {
            socket.keep();
        }
        self.listeners.shutdown().await;
        for Port { endpoint, .. } in &self.quic {
            self.listeners.spawn(listener::quic::ignore(endpoint.clone()));
        }
        self.end();
        info!(event = "handing_over", "new visitors wait for the next process");
        self.finish(&older, deadline).await;
    }

    /// Serves on until few visitors are in the middle of anything: new ones have to wait for whatever is under way when
    /// it ends. At first for a moment when nobody is, and then for ever less. Long requests that begin meanwhile may take
    /// half of the time that is left.
    async fn good_moment(&self, stopped: Instant, deadline: Instant) -> Older {
        let limit = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let (mut older, mut since) = (Older::default(), stopped);
        loop {
            let began = mem::replace(&mut since, Instant::now());
            let age = older.age(&self.daemon.running, began);
            let young = (stopped.elapsed() / 2).min(YOUNG);
            if age.is_none_or(|age| age < young) || Instant::now() >= limit {
                return older;
            }
            sleep(LOOK).await;
        }
    }

    /// Leaves the ports to whoever comes next.
    async fn let_go(&mut self) {
        // The next daemon, which may start now, must find the names that were in use.
        self.keep_names().await;
        // Before the port is free for TCP: the next daemon would get packets of our peers otherwise.
        for Port { endpoint, connections, .. } in &self.quic {
            if let Err(error) = leave(endpoint, connections) {
                warn!(%error, "cannot let go of the UDP port: {error}");
            }
        }
        self.listeners.shutdown().await;
        self.admins.shutdown().await;
        self.end();
    }

    /// Nothing new begins.
    fn end(&self) {
        self.daemon.shutdown.start();
        self.daemon.visitors.close();
    }

    /// Writes the names down for the last time: those that go offline from now on are still in use.
    async fn keep_names(&self) {
        self.keeper.abort();
        let (memory, registry) = (self.memory.clone(), self.daemon.registry.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || memory.keep(&registry)).await {
            warn!(%error, "the names in use could not be kept: {error}");
        }
    }

    /// Waits for visitors once no new ones are accepted: for what lasts only until everything else is done, since others
    /// wait for the next process, and for requests, those of the `older` ones too, not much longer than to the `deadline`.
    async fn finish(&self, older: &Older, deadline: Instant) {
        let Daemon { running, shutdown, visitors, .. } = &*self.daemon;
        let late_requests = deadline.max(Instant::now()) + LATE_REQUESTS;
        let _in_time = timeout_at(deadline, running.settled(older)).await;
        shutdown.end_time();
        let late = async {
            sleep(FAREWELL).await;
            running.settled(older).await;
        };
        let gone = async {
            tokio::select! {
                () = visitors.wait() => {}
                () = late => {}
            }
        };
        let _in_time = timeout_at(late_requests, gone).await;
    }

    /// Tells whatever is left on QUIC, and leaves to the next process whoever knocked.
    async fn close_quic(&self) {
        for Port { endpoint, .. } in &self.quic {
            // Whoever knocks now is for the next process: a refusal would be final, silence is not.
            endpoint.set_server_config(None);
            endpoint.close(VarInt::from_u32(0), b"stopped");
        }
        // What was said just before is given time to arrive.
        let idle = async {
            for Port { endpoint, .. } in &self.quic {
                endpoint.wait_idle().await;
            }
        };
        let _in_time = timeout(LAST_PACKETS, idle).await;
        let knocked: Vec<_> = self.quic.iter().flat_map(|port| port.socket.kept()).collect();
        if !knocked.is_empty()
            && let Err(error) = first_packets::leave(&self.daemon.config().state_dir, knocked)
        {
            warn!(%error, "first packets cannot be left for the next process, so their senders try again: {error}");
        }
    }
}
