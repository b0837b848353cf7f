//! Path liveness: whether the path of an established session still carries anything.
//!
//! Both sides judge silence by the datagrams that the connection has received, and ask before they give a verdict. The
//! verdicts differ. A client moves away from a bad path ([`PathLiveness`]). A daemon holds its visitors until the
//! client is heard again ([`PeerLiveness`]). Neither ends the session; QUIC's idle time-out does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::ConnectionStats;

use super::shared::Shared;

/// How long nothing was received on a path.
#[derive(Debug)]
struct Silence {
    /// Datagrams received so far.
    received: u64,
    since: Instant,
}

impl Silence {
    fn new(now: Instant) -> Self {
        Self { received: 0, since: now }
    }

    /// Takes a sample; whether anything was received since the last one.
    fn sample(&mut self, stats: &ConnectionStats, now: Instant) -> bool {
        let received = stats.udp_rx.datagrams;
        let heard = received != self.received;
        if heard {
            *self = Self { received, since: now };
        }
        heard
    }

    fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

// ---- the client's verdict ----

/// How often the client samples the path.
const CLIENT_SAMPLE: Duration = Duration::from_millis(500);
/// Silence after which the client asks while exchanges are open.
const CLIENT_ASK_BUSY: Duration = Duration::from_secs(2);
/// Silence after which the client asks otherwise. It is above the keep-alive interval, since each answer counts as a
/// sign of life.
const CLIENT_ASK_IDLE: Duration = Duration::from_secs(5);
/// How long the daemon's answer may take: three round trips of a bad mobile path.
const CLIENT_ANSWER: Duration = Duration::from_secs(3);

/// Watches a session's path, so that a client can move away from a path that carries nothing before the session times
/// out.
pub struct PathLiveness(Arc<Shared>);

impl PathLiveness {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Resolves with the reason once the path has turned bad: silence, and no answer to an echo probe. It never
    /// resolves for a good path. An ended session looks bad too, so watch for its end as well. May be called again.
    pub async fn turned_bad(&self) -> String {
        let mut silence = Silence::new(Instant::now());
        silence.sample(&self.0.connection.stats(), Instant::now());
        loop {
            tokio::time::sleep(CLIENT_SAMPLE).await;
            let ask_after = if self.0.open_exchanges() > 0 { CLIENT_ASK_BUSY } else { CLIENT_ASK_IDLE };
            let heard = silence.sample(&self.0.connection.stats(), Instant::now());
            if heard || silence.lasts(Instant::now()) < ask_after {
                continue;
            }
            if !self.answers().await {
                return format!("nothing came over UDP for {:.1} s", silence.lasts(Instant::now()).as_secs_f64());
            }
            silence.sample(&self.0.connection.stats(), Instant::now());
        }
    }

    /// Sends a Ping on the control stream; whether a Pong comes in time.
    async fn answers(&self) -> bool {
        let mut pongs = self.0.pongs.subscribe();
        pongs.mark_unchanged();
        self.0.lock().ping = true;
        self.0.attention.notify_one();
        tokio::time::timeout(CLIENT_ANSWER, pongs.changed()).await.is_ok()
    }
}

impl fmt::Debug for PathLiveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathLiveness").field("peer", &self.0.connection.remote_address()).finish_non_exhaustive()
    }
}

// ---- the daemon's verdict ----

/// How often the daemon samples a session. A request that is not acknowledged is noticed after as long.
const DAEMON_SAMPLE: Duration = Duration::from_secs(1);
/// How often it samples once the client was asked.
const DAEMON_SAMPLE_ASKED: Duration = Duration::from_millis(250);
/// Silence after which the daemon asks. A client shows a sign of life every 2.5 s, so it has missed its turn by then.
const DAEMON_ASK_IDLE: Duration = Duration::from_secs(4);
/// How long the client's answer may take. A wrong verdict costs little: requests wait until the client is heard again.
const DAEMON_ANSWER: Duration = Duration::from_millis(1500);

/// Judges whether a client is still there.
///
/// A killed client closes its TCP connection, but its QUIC connection only ends by the idle time-out. Requests would be
/// lost until then. So the daemon asks a client that should have shown a sign of life.
#[derive(Debug)]
pub(super) struct PeerLiveness {
    silence: Silence,
    /// Datagrams that had been sent by the first silent sample. Acknowledgements of the last received ones are among
    /// them, and need no answer.
    sent: Option<u64>,
    asked: Option<Instant>,
    next: Instant,
}

/// The action that a sample of a session requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the client was heard, or had no reason to send.
    Fine,
    /// Ask the client: it should have been heard.
    Ask,
    /// Hold visitors: the client was asked and has not answered.
    Silent,
}

impl PeerLiveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { silence: Silence::new(now), sent: None, asked: None, next: now + DAEMON_SAMPLE }
    }

    /// True from the question until the client is heard.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// When the next sample is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn sample(&mut self, stats: &ConnectionStats, now: Instant) -> Verdict {
        if self.silence.sample(stats, now) {
            (self.sent, self.asked, self.next) = (None, None, now + DAEMON_SAMPLE);
            return Verdict::Fine;
        }
        let sent = stats.udp_tx.datagrams;
        let before = *self.sent.get_or_insert(sent);
        let verdict = match self.asked {
            None if sent > before || self.silence.lasts(now) >= DAEMON_ASK_IDLE => {
                self.asked = Some(now);
                Verdict::Ask
            }
            Some(asked) if now.duration_since(asked) >= DAEMON_ANSWER => Verdict::Silent,
            _ => Verdict::Fine,
        };
        self.next = now + if self.asked.is_some() { DAEMON_SAMPLE_ASKED } else { DAEMON_SAMPLE };
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(received: u64, sent: u64) -> ConnectionStats {
        let mut stats = ConnectionStats::default();
        stats.udp_rx.datagrams = received;
        stats.udp_tx.datagrams = sent;
        stats
    }

    #[test]
    fn a_client_that_does_not_answer_is_silent_until_it_is_heard() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut liveness = PeerLiveness::new(began);
        assert_eq!(liveness.sample(&stats(3, 3), at(1000)), Verdict::Fine);
        // Our last acknowledgement needs no answer.
        assert_eq!(liveness.sample(&stats(3, 4), at(2000)), Verdict::Fine);
        assert_eq!(liveness.sample(&stats(3, 4), at(3000)), Verdict::Fine);
        assert_eq!(liveness.sample(&stats(3, 5), at(4000)), Verdict::Ask);
        assert_eq!(liveness.next(), at(4250));
        assert_eq!(liveness.sample(&stats(3, 6), at(4250)), Verdict::Fine);
        assert_eq!(liveness.sample(&stats(3, 7), at(5500)), Verdict::Silent);
        assert_eq!(liveness.sample(&stats(4, 7), at(5750)), Verdict::Fine);
        assert_eq!(liveness.next(), at(6750));
    }

    #[test]
    fn an_idle_client_is_asked_after_it_missed_its_sign_of_life() {
        let began = Instant::now();
        let mut liveness = PeerLiveness::new(began);
        for second in 1..4 {
            assert_eq!(liveness.sample(&stats(0, 0), began + Duration::from_secs(second)), Verdict::Fine);
        }
        assert_eq!(liveness.sample(&stats(0, 0), began + Duration::from_secs(4)), Verdict::Ask);
    }
}
