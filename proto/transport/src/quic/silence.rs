//! Daemon: whether a client is still there.
//!
//! A client that is killed closes its TCP connection, but of its QUIC connection nobody hears until the idle time-out.
//! Until then requests would be sent to nobody. So a client that should have shown a sign of life is asked for one.

use std::time::{Duration, Instant};

use quinn::ConnectionStats;

/// How often a session is looked at: as soon as this after a request, it is noticed that nothing was acknowledged.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same once the client was asked.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A client shows a sign of life every 2.5 s; one that was silent for this long has missed its turn, and is asked.
const ASK_IDLE: Duration = Duration::from_secs(4);
/// How long its answer may take. A wrong guess costs only that requests wait until the client is heard again.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// What the looks at a session have shown.
#[derive(Debug)]
pub(super) struct Silence {
    received: u64,
    heard: Instant,
    /// Datagrams that had been sent when nothing new had come for one look, acknowledgements of the last ones among them.
    sent: Option<u64>,
    asked: Option<Instant>,
    next: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it was heard, or had no reason to be.
    Fine,
    /// It should have been heard: ask.
    Ask,
    /// It was asked and has not answered.
    Silent,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { received: 0, heard: now, sent: None, asked: None, next: now + LOOK_EVERY }
    }

    /// Whether it was asked and may still answer in time, or has not.
    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// When to look next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn look(&mut self, stats: &ConnectionStats, now: Instant) -> Verdict {
        let (received, sent) = (stats.udp_rx.datagrams, stats.udp_tx.datagrams);
        if received != self.received {
            *self = Self { received, ..Self::new(now) };
            return Verdict::Fine;
        }
        let before = *self.sent.get_or_insert(sent);
        let verdict = match self.asked {
            None if sent > before || now.duration_since(self.heard) >= ASK_IDLE => {
                self.asked = Some(now);
                Verdict::Ask
            }
            Some(asked) if now.duration_since(asked) >= ANSWER_WITHIN => Verdict::Silent,
            _ => Verdict::Fine,
        };
        self.next = now + if self.asked.is_some() { LOOK_AGAIN } else { LOOK_EVERY };
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
    fn whoever_does_not_answer_is_asked_and_then_silent_until_heard() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut silence = Silence::new(began);
        assert_eq!(silence.look(&stats(3, 3), at(1000)), Verdict::Fine);
        // The last acknowledgement of ours is no question.
        assert_eq!(silence.look(&stats(3, 4), at(2000)), Verdict::Fine);
        assert_eq!(silence.look(&stats(3, 4), at(3000)), Verdict::Fine);
        assert_eq!(silence.look(&stats(3, 5), at(4000)), Verdict::Ask);
        assert_eq!(silence.next(), at(4250));
        assert_eq!(silence.look(&stats(3, 6), at(4250)), Verdict::Fine);
        assert_eq!(silence.look(&stats(3, 7), at(5500)), Verdict::Silent);
        assert_eq!(silence.look(&stats(4, 7), at(5750)), Verdict::Fine);
        assert_eq!(silence.next(), at(6750));
    }

    #[test]
    fn an_idle_client_is_asked_once_it_has_missed_its_turn() {
        let began = Instant::now();
        let mut silence = Silence::new(began);
        for second in 1..4 {
            assert_eq!(silence.look(&stats(0, 0), began + Duration::from_secs(second)), Verdict::Fine);
        }
        assert_eq!(silence.look(&stats(0, 0), began + Duration::from_secs(4)), Verdict::Ask);
    }
}
