//! Maps from the ids of exchanges and tunnels.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by id. Each request looks several up, and a general hash would take longer than the rest of the lookup.
pub type ById<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Spreads the bits of an id. No more is needed, because ids rise one by one. A client can choose tunnel ids that collide.
/// There are at most a thousand of them, and they slow its own session alone.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Multiplication by the golden ratio's fraction moves the low bits, which differ, to the high ones.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
