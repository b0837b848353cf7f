//! The order of a stop, from top to bottom.
//!
//! A daemon that bound its own sockets closes them at once, so that its successor can bind them. Sockets of the service
//! manager outlive the process, but the successor starts only after this process has ended. So the daemon keeps serving
//! while older requests are in flight. Visitors who come during the short rest wait in the sockets' queues.

use std::mem;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::requests::Epochs;
use super::{Drain, Phase, Port, detached, initials};
use crate::host::notify;

/// The daemon hands over when no request is older than this: most younger requests end soon.
const YOUNG: Duration = Duration::from_secs(1);

/// The interval at which the age of the oldest request is checked.
const POLL: Duration = Duration::from_millis(10);

/// Time for visitors to learn that long-lived exchanges end. It fits the rest of a WebSocket frame and a closing
/// handshake of three round trips of 300 ms.
const FAREWELL: Duration = Duration::from_secs(1);

/// Extra time for requests that began during the drain. New visitors wait that long, too.
const LATE_REQUESTS: Duration = Duration::from_secs(2);

/// Grace for requests already in flight when GOAWAY is sent: a round trip to the other side of the world. Without it
/// they would get 503.
const CROSSING: Duration = Duration::from_millis(300);

/// Time for sessions without visitors to receive the Drain.
const SESSIONS_LEAVE: Duration = Duration::from_millis(250);

/// Time for visitors to read their responses once nothing else delays the next process.
const LAST_READERS: Duration = Duration::from_secs(5);

/// The most that a stop may exceed the drain timeout. It is longer than the time for late requests.
const OVERTIME: Duration = Duration::from_secs(3);

/// Time for QUIC peers to receive CONNECTION_CLOSE.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// The parts of a serving daemon that a stop needs.
pub(crate) struct Stop {
    pub(crate) drain: Arc<Drain>,
    /// True if the public sockets come from the service manager.
    pub(crate) activated: bool,
    /// Tasks that accept on the public sockets.
    pub(crate) listeners: JoinSet<()>,
    /// The UDP ports.
    pub(crate) ports: Vec<Port>,
    /// Tasks that answer on the admin address.
    pub(crate) admin: JoinSet<()>,
    /// The folder for parked Initials.
    pub(crate) state_dir: PathBuf,
    /// Saves the names in use for the next process. Awaited once.
    pub(crate) save_names: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Asks every session to drain within a time.
    pub(crate) drain_sessions: Box<dyn Fn(Duration) + Send + Sync>,
}

impl Stop {
    /// Stops the daemon. Requests in flight may finish within the drain timeout.
    pub(crate) async fn run(mut self) {
        let limit = self.drain.timeout();
        let deadline = Instant::now() + limit;
        self.drain.enter(Phase::Draining);
        notify::stopping(limit + OVERTIME);

        let cut = if self.activated { self.hand_over(deadline).await } else { self.let_go(deadline).await };
        (self.drain_sessions)(cut.sessions.saturating_duration_since(Instant::now()));
        let finished = self.see_off(deadline.min(cut.visitors), cut.visitors).await;
        self.close_quic().await;
        let how = if finished { "all that ran has finished" } else { "what had not finished in time was cut off" };
        info!(event = "stopped", finished, "stopped; {how}");
    }

    /// Keeps serving until the current requests have ended. Then accepts no new visitors and lets the accepted ones
    /// finish.
    async fn hand_over(&mut self, deadline: Instant) -> CutAt {
        let began = Instant::now();
        let current = self.drain.requests.close_epoch();
        let _in_time = timeout_at(deadline, current.ended()).await;
        let older = self.good_moment(began, deadline).await;
        self.save_names.as_mut().await;
        // Parking starts before the last visitor is accepted. A packet that is both parked and answered does no harm:
        // its sender uses the first answer (RFC 9000, section 7.2).
        for Port { socket, .. } in &self.ports {
            socket.layer().park();
        }
        self.listeners.shutdown().await;
        for port in &self.ports {
            self.listeners.spawn(port.clone().ignore_new());
        }
        self.go_away();
        info!(event = "handing_over", "new visitors wait for the next process");
        self.finish(&older, deadline).await;
        self.drain.enter(Phase::Cut);
        let now = Instant::now();
        CutAt { sessions: now + SESSIONS_LEAVE, visitors: (now + LAST_READERS).min(deadline + OVERTIME) }
    }

    /// Keeps serving until few requests are in flight, since new visitors will wait for all of them. The allowed age of
    /// the oldest request grows with time. Long requests that begin meanwhile may take half of the remaining time.
    async fn good_moment(&mut self, stopped: Instant, deadline: Instant) -> Epochs {
        let limit = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let (mut older, mut since) = (Epochs::default(), stopped);
        loop {
            let began = mem::replace(&mut since, Instant::now());
            let age = older.oldest_age(&self.drain.requests, began);
            let young = (stopped.elapsed() / 2).min(YOUNG);
            if age.is_none_or(|age| age < young) || Instant::now() >= limit {
                return older;
            }
            sleep(POLL).await;
        }
    }

    /// Waits for the accepted visitors to finish. Long-lived exchanges end last, but soon, since others wait for the
    /// next process. Requests, also those of `older` epochs, get little more time than until `deadline`.
    async fn finish(&mut self, older: &Epochs, deadline: Instant) {
        let Drain { requests, visitors, .. } = &*self.drain;
        let late_requests = deadline.max(Instant::now()) + LATE_REQUESTS;
        let _in_time = timeout_at(deadline, requests.settled(older)).await;
        self.drain.enter(Phase::Farewell);
        let late = async {
            sleep(FAREWELL).await;
            requests.settled(older).await;
        };
        let gone = async {
            tokio::select! {
                () = visitors.wait() => {}
                () = late => {}
            }
        };
        let _in_time = timeout_at(late_requests, gone).await;
    }

    /// Gives up the ports, for a successor that may start now.
    async fn let_go(&mut self, deadline: Instant) -> CutAt {
        // The successor must find the names in use.
        self.save_names.as_mut().await;
        // UDP goes before TCP: a successor binds TCP first, and must not receive packets of our peers.
        for Port { endpoint, connections, .. } in &self.ports {
            if let Err(error) = detached::detach(endpoint, connections) {
                warn!(%error, "cannot let go of the UDP port: {error}");
            }
        }
        self.listeners.shutdown().await;
        self.admin.shutdown().await;
        self.go_away();
        let _gone = timeout(CROSSING, self.drain.visitors.wait()).await;
        CutAt { sessions: deadline + FAREWELL, visitors: deadline + OVERTIME }
    }

    /// Accepts nothing new from here on.
    fn go_away(&self) {
        self.drain.enter(Phase::GoingAway);
        self.drain.visitors.close();
        self.drain.tasks.close();
    }

    /// Waits until everything has ended. At `deadline` the rest is asked to end, and at `limit` it is cut. Returns true
    /// if all of it ended by itself.
    async fn see_off(&mut self, deadline: Instant, limit: Instant) -> bool {
        // An upgraded connection has no task any more, but its visitor still holds a token.
        let mut ended = pin!(async { tokio::join!(self.drain.tasks.wait(), self.drain.visitors.wait()) });
        if timeout_at(deadline, &mut ended).await.is_ok() {
            return true;
        }
        self.drain.enter(Phase::Cut);
        timeout_at(limit, ended).await.is_ok()
    }

    /// Closes the remaining QUIC connections, and leaves new peers to the next process.
    async fn close_quic(&mut self) {
        for Port { endpoint, .. } in &self.ports {
            // New peers get no answer and try again at the next process. A refusal would be final.
            endpoint.set_server_config(None);
            endpoint.close(VarInt::from_u32(0), b"stopped");
        }
        let idle = async {
            for Port { endpoint, .. } in &self.ports {
                endpoint.wait_idle().await;
            }
        };
        let _in_time = timeout(LAST_PACKETS, idle).await;
        let parked: Vec<_> = self.ports.iter().flat_map(|port| port.socket.layer().parked()).collect();
        if !parked.is_empty()
            && let Err(error) = initials::leave(&self.state_dir, parked)
        {
            warn!(%error, "cannot leave first packets to the next process: {error}; their senders try again");
        }
    }
}

/// The time at which everything is cut.
struct CutAt {
    sessions: Instant,
    visitors: Instant,
}
