//! Sessions over real QUIC on loopback: what passes, what is cancelled, how a session ends, and what a hostile peer gets.

mod abuse;
mod endings;
mod pair;
mod passing;
