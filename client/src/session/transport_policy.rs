//! The choice of the transport for the next session, and of the time for the next try of QUIC.
//!
//! It opens no connections and reads no clock: the caller says what happened, and when.

use std::time::Duration;

use cok_proto::FallbackReason;
use tokio::time::Instant;

use crate::transport::TransportChoice;

/// The longest wait between two tries of QUIC. It bounds how long a tunnel stays on WebSocket once UDP passes again.
const PROBE_LAST: Duration = Duration::from_secs(600);
/// After a QUIC session that lived this long, the waits begin from the first again. After a shorter one they go on growing,
/// so that a tunnel does not flap on a path that carries QUIC only for a while.
const STEADY: Duration = Duration::from_secs(5 * 60);
/// How long QUIC is avoided after it carried an echo but no answer to Connect.
const AVOID: Duration = Duration::from_secs(60);

/// The transport to take for the next session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Both, in a race.
    Race,
    /// QUIC alone, for this reason.
    Quic(String),
    /// The WebSocket alone, for this reason, and if QUIC was wanted also in a word for the daemon.
    Ws { reason: String, fallback: Option<FallbackReason> },
}

/// The state of the choice.
#[derive(Debug)]
pub(super) struct TransportPolicy {
    choice: TransportChoice,
    /// The proxy on the way, which no QUIC passes.
    proxy: Option<String>,
    /// The first wait until QUIC is tried again.
    first: Duration,
    /// The next wait.
    interval: Duration,
    /// The time of the move to QUIC, while the tunnel is there.
    on_quic: Option<Instant>,
    /// The tunnel is on WebSocket although QUIC was wanted.
    fallen_back: bool,
    /// When QUIC left Connect unanswered, and the error.
    unanswered: Option<(Instant, String)>,
}

impl TransportPolicy {
    pub(super) fn new(choice: TransportChoice, proxy: Option<String>, probe_interval: Duration) -> Self {
        Self {
            choice,
            proxy,
            first: probe_interval,
            interval: probe_interval,
            on_quic: None,
            fallen_back: false,
            unanswered: None,
        }
    }

    /// How to open the next session.
    pub(super) fn way(&mut self, now: Instant) -> Way {
        // A user who names a proxy wants nothing to go past it.
        if let (TransportChoice::Auto, Some(proxy)) = (self.choice, &self.proxy) {
            let reason = format!("QUIC: the proxy {proxy} carries only TCP");
            return Way::Ws { reason, fallback: Some(FallbackReason::Proxy) };
        }
        match (self.choice, self.unanswered.take()) {
            (TransportChoice::Ws, _) => Way::Ws { reason: "chosen by --transport ws".to_owned(), fallback: None },
            (TransportChoice::Quic, _) => Way::Quic("chosen by --transport quic".to_owned()),
            (TransportChoice::Auto, Some((at, why))) if now - at < AVOID => {
                Way::Ws { reason: format!("QUIC: {why}"), fallback: Some(FallbackReason::NoData) }
            }
            (TransportChoice::Auto, _) => Way::Race,
        }
    }

    /// Notes that a session is up. Returns true if the tunnel has just fallen back to WebSocket.
    pub(super) fn settled(&mut self, is_quic: bool, now: Instant) -> bool {
        if is_quic {
            (self.on_quic, self.fallen_back) = (Some(now), false);
            return false;
        }
        if let Some(since) = self.on_quic.take() {
            if now - since >= STEADY {
                self.interval = self.first;
            } else {
                self.wait_longer();
            }
        }
        let was_there = std::mem::replace(&mut self.fallen_back, self.choice == TransportChoice::Auto);
        self.fallen_back && !was_there
    }

    /// Whether a running session may be replaced by one on the other transport.
    pub(super) fn may_move(&self) -> bool {
        self.choice == TransportChoice::Auto && self.proxy.is_none()
    }

    /// The wait until the next try of QUIC: the interval, less up to a quarter. Clients that have lost QUIC together do not
    /// come back together.
    pub(super) fn probe_wait(&self) -> Duration {
        self.interval.mul_f64(0.75 + fastrand::f64() / 4.0)
    }

    /// Notes that a try of QUIC has failed.
    pub(super) fn probe_failed(&mut self) {
        self.wait_longer();
    }

    /// Notes that QUIC carried an echo, but no answer to Connect. The next try takes the WebSocket.
    pub(super) fn quic_unanswered(&mut self, why: String, now: Instant) {
        self.unanswered = Some((now, why));
    }

    fn wait_longer(&mut self) {
        self.interval = (self.interval * 2).min(PROBE_LAST.max(self.first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn auto() -> (TransportPolicy, Instant) {
        (TransportPolicy::new(TransportChoice::Auto, None, FIRST), Instant::now())
    }

    fn ws(reason: &str, fallback: Option<FallbackReason>) -> Way {
        Way::Ws { reason: reason.to_owned(), fallback }
    }

    #[test]
    fn the_waits_double_up_to_ten_minutes() {
        let (mut policy, now) = auto();
        assert!(policy.settled(false, now));
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            let interval = Duration::from_secs(seconds);
            assert_eq!(policy.interval, interval);
            for _ in 0..100 {
                assert!((interval.mul_f64(0.75)..=interval).contains(&policy.probe_wait()));
            }
            policy.probe_failed();
        }
        // A user may want longer ones.
        let mut policy = TransportPolicy::new(TransportChoice::Auto, None, PROBE_LAST * 3);
        policy.probe_failed();
        assert_eq!(policy.interval, PROBE_LAST * 3);
    }

    #[test]
    fn a_quic_that_turns_bad_soon_does_not_make_the_tunnel_flap() {
        let (mut policy, start) = auto();
        assert!(policy.settled(false, start));
        policy.probe_failed();
        assert!(!policy.settled(true, start));
        assert!(policy.settled(false, start + STEADY - SECOND));
        assert_eq!(policy.interval, FIRST * 4);
        // A good one lets the waits begin from the first.
        policy.settled(true, start);
        assert!(policy.settled(false, start + STEADY));
        assert_eq!(policy.interval, FIRST);
    }

    #[test]
    fn falling_back_is_reported_once() {
        let (mut policy, now) = auto();
        assert!(policy.settled(false, now));
        assert!(!policy.settled(false, now), "another session on WebSocket is no news");
        assert!(!policy.settled(true, now));
        assert!(policy.settled(false, now));
        let mut policy = TransportPolicy::new(TransportChoice::Ws, None, FIRST);
        assert!(!policy.settled(false, now), "the user wants no QUIC");
    }

    #[test]
    fn after_an_unanswered_connect_the_websocket_is_tried_once() {
        let (mut policy, now) = auto();
        assert_eq!(policy.way(now), Way::Race);
        policy.quic_unanswered("silence".to_owned(), now);
        assert_eq!(policy.way(now + SECOND), ws("QUIC: silence", Some(FallbackReason::NoData)));
        assert_eq!(policy.way(now + SECOND), Way::Race);
        policy.quic_unanswered("silence".to_owned(), now);
        assert_eq!(policy.way(now + AVOID), Way::Race, "that was long ago");
    }

    #[test]
    fn nothing_goes_past_a_proxy() {
        let proxy = "http://proxy:3128 of HTTPS_PROXY".to_owned();
        let mut policy = TransportPolicy::new(TransportChoice::Auto, Some(proxy.clone()), FIRST);
        let now = Instant::now();
        let why = format!("QUIC: the proxy {proxy} carries only TCP");
        assert_eq!(policy.way(now), ws(&why, Some(FallbackReason::Proxy)));
        assert!(policy.settled(false, now), "the user hears why it is not QUIC");
        assert!(!policy.may_move());
    }

    #[test]
    fn quic_and_ws_never_fall_back() {
        let now = Instant::now();
        let mut policy = TransportPolicy::new(TransportChoice::Quic, None, FIRST);
        policy.quic_unanswered("silence".to_owned(), now);
        assert_eq!(policy.way(now), Way::Quic("chosen by --transport quic".to_owned()));
        assert!(!policy.may_move());
        let mut policy = TransportPolicy::new(TransportChoice::Ws, None, FIRST);
        assert_eq!(policy.way(now), ws("chosen by --transport ws", None));
        assert!(!policy.may_move());
    }
}
