//! Sessions over memory, WebSocket and real QUIC on loopback: tunnels, traffic, cancelling, endings and hostile peers.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

mod abuse;
mod breaks;
mod carried;
mod endings;
mod fairness;
mod pair;
mod passing;
mod tunnels;
mod upgrades;
