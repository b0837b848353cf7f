//! Exchanges by their ids.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::ExchangeKey;

/// The live exchanges by id.
pub(super) type IdMap = HashMap<u32, ExchangeKey, BuildHasherDefault<IdHasher>>;

/// Spreads the bits of an id. No more is needed: ids rise one by one, and at most `max_exchanges` are kept.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

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
