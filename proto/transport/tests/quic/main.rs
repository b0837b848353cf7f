//! Sessions over real QUIC on loopback: what passes, what is cancelled, how a session ends, and what a hostile peer gets.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

mod abuse;
mod endings;
mod pair;
mod passing;
