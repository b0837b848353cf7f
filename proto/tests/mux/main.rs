//! The multiplexer: both sides against each other, and each side against a peer that does what it should not.

mod memory;
mod model;
mod order;
mod pair;
mod rules;
mod wire;
