//! Sessions over real QUIC on loopback: traffic, cancelling, endings and hostile peers.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

mod abuse;
mod endings;
mod fairness;
mod pair;
mod passing;
