//! The multiplexer: both sides against each other, and each side against a peer that breaks rules.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

mod breaks;
mod memory;
mod model;
mod order;
mod pair;
mod rules;
mod tunnels;
mod upgrades;
mod wire;
