//! Turns to send over QUIC: tunnels take turns, and within a tunnel its exchanges do.
//!
//! Quinn serves all streams of a priority alike, and wakes all writers that wait for room at once. So a tunnel with 500
//! downloads would get 500 times as much as a tunnel with one. Here each tunnel has a clock, the bytes that it has sent,
//! and the tunnel whose clock is behind goes first: its streams get the higher priority in quinn, and writers of other
//! tunnels let its waiting writers pass. A session with exchanges of only one tunnel skips all that, but the first bytes of
//! each exchange still go ahead of bodies.

use std::collections::HashMap;

use super::settings::SEND_WINDOW;

/// Bytes of an exchange that go ahead of bodies: its head, and the first bytes behind it.
pub(super) const FIRST_BYTES: u64 = 16 * 1024;
/// The least room in quinn's send buffers while several tunnels have work.
const LEAST_SEND_WINDOW: u64 = 256 * 1024;
/// Bytes of a clock for each step of priority.
const STEP: u64 = 64 * 1024;
/// The priority of first bytes, on top of that of bodies. No clock gets this far ahead of another one.
const FIRST_BONUS: i32 = 1 << 20;
/// The priority of bodies in a session with exchanges of one tunnel. First bytes have the priority 0.
pub(super) const BODY: i32 = -1;
/// The control stream's priority, above all others.
pub(super) const CONTROL: i32 = i32::MAX;

/// The tunnels of a session that have, or had, exchanges. It is empty while the session has none.
#[derive(Debug)]
pub(super) struct Turns {
    tunnels: HashMap<u32, Tunnel>,
    /// How many of them have exchanges.
    active: usize,
    /// The clock that is furthest ahead.
    latest: u64,
    /// The room in quinn's send buffers.
    send_window: u64,
}

#[derive(Debug, Default)]
struct Tunnel {
    exchanges: usize,
    clock: u64,
    /// Writers that wait for room.
    waiting: usize,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { tunnels: HashMap::new(), active: 0, latest: 0, send_window: SEND_WINDOW }
    }

    /// Whether several tunnels have exchanges.
    pub(super) fn is_contended(&self) -> bool {
        self.active > 1
    }

    /// An exchange of this tunnel begins.
    pub(super) fn opened(&mut self, tunnel: u32) {
        let tunnel = self.tunnels.entry(tunnel).or_default();
        tunnel.exchanges += 1;
        self.active += usize::from(tunnel.exchanges == 1);
    }

    /// An exchange of this tunnel is over.
    pub(super) fn ended(&mut self, tunnel: u32) {
        let Some(tunnel) = self.tunnels.get_mut(&tunnel) else { return };
        tunnel.exchanges = tunnel.exchanges.saturating_sub(1);
        self.active -= usize::from(tunnel.exchanges == 0);
        if self.active == 0 {
            self.tunnels = HashMap::new();
            self.latest = 0;
        }
    }

    /// The priority of an exchange that has sent so many bytes. A clock is never further behind than what quinn's send
    /// buffers hold, so that a tunnel cannot save up turns.
    pub(super) fn priority(&mut self, tunnel: u32, sent: u64) -> i32 {
        let least = self.latest.saturating_sub(self.send_window);
        let Some(tunnel) = self.tunnels.get_mut(&tunnel) else { return 0 };
        tunnel.clock = tunnel.clock.max(least);
        let steps = i32::try_from(tunnel.clock / STEP).unwrap_or(i32::MAX - FIRST_BONUS);
        let first = if sent < FIRST_BYTES { FIRST_BONUS } else { 0 };
        first - steps
    }

    /// Whether a writer of this tunnel should let another tunnel's pass, whose clock is behind.
    pub(super) fn lets_pass(&self, tunnel: u32) -> bool {
        let Some(own) = self.tunnels.get(&tunnel).map(|tunnel| tunnel.clock) else { return false };
        self.tunnels.iter().any(|(id, other)| *id != tunnel && other.waiting > 0 && other.clock < own)
    }

    /// A writer of this tunnel waits for room, or waits no more.
    pub(super) fn set_waiting(&mut self, tunnel: u32, waits: bool) {
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel) {
            tunnel.waiting = if waits { tunnel.waiting + 1 } else { tunnel.waiting.saturating_sub(1) };
        }
    }

    /// A writer of this tunnel has handed over so many bytes.
    pub(super) fn sent(&mut self, tunnel: u32, bytes: u64) {
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel) {
            tunnel.clock += bytes;
            self.latest = self.latest.max(tunnel.clock);
        }
    }

    /// Sets the room in quinn's send buffers: all of it for one tunnel, and for several twice what the path carries. More
    /// would only make their turns late. Returns it if it changes.
    pub(super) fn adjust(&mut self, congestion_window: u64) -> Option<u64> {
        let shared = congestion_window.saturating_mul(2).clamp(LEAST_SEND_WINDOW, SEND_WINDOW);
        let window = if self.is_contended() { shared } else { SEND_WINDOW };
        (std::mem::replace(&mut self.send_window, window) != window).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_that_has_sent_less_goes_first() {
        let mut turns = Turns::new();
        turns.opened(1);
        turns.sent(1, 100 * SEND_WINDOW);
        assert!(!turns.is_contended());
        turns.opened(2);
        assert!(turns.is_contended());
        let (bulk, late) = (turns.priority(1, SEND_WINDOW), turns.priority(2, SEND_WINDOW));
        assert!(late > bulk, "{late} {bulk}");
        assert!(turns.priority(1, 0) > late, "first bytes go ahead of bodies");
        assert!(CONTROL > turns.priority(2, 0));
        assert!(!turns.lets_pass(1), "nobody waits");
        turns.set_waiting(2, true);
        assert!(turns.lets_pass(1) && !turns.lets_pass(2));
        // It may be ahead by what it missed lately, and no more.
        turns.sent(2, SEND_WINDOW + 1);
        assert!(!turns.lets_pass(1));
        assert_eq!(turns.adjust(1 << 20), Some(2 << 20));
        turns.ended(2);
        assert_eq!(turns.adjust(1 << 20), Some(SEND_WINDOW));
        turns.ended(1);
        assert!(turns.tunnels.is_empty());
    }
}
