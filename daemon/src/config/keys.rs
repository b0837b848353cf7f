//! The limits of a key of the configuration.

use std::num::NonZeroU32;

use cok_host::settings::Section;

use crate::admission::{KeyLimits, MOST_REQUESTS, MOST_SESSIONS, MOST_TUNNELS, Rate};

/// The most bytes a second that a limit can name: what a rate holds.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Reads the limits in a `[[keys]]` section.
pub(super) fn limits(section: &mut Section<'_>) -> KeyLimits {
    let default = KeyLimits::default();
    let (tunnels, sessions) = (default.tunnels as u64, default.sessions as u64);
    KeyLimits {
        tunnels: section.whole("max_tunnels", 1, MOST_TUNNELS, tunnels) as usize,
        sessions: section.whole("max_sessions", 1, MOST_SESSIONS, sessions) as usize,
        // Zero stands for a missing key, and is too low for one that is there.
        exchanges: Some(section.whole("max_exchanges", 1, MOST_REQUESTS, 0) as u32).filter(|most| *most > 0),
        requests: rate(section, "requests_per_second", "requests_burst", |section, key| {
            section.whole(key, 1, MOST_REQUESTS, 0)
        }),
        bytes: rate(section, "bytes_per_second", "bytes_burst", |section, key| section.bytes(key, 1, MOST_BYTES, 0)),
    }
}

/// A rate of two keys. The burst is one second's worth unless it is named.
fn rate(
    section: &mut Section<'_>,
    rate: &'static str,
    burst: &'static str,
    read: impl Fn(&mut Section<'_>, &'static str) -> u64,
) -> Option<Rate> {
    let per_second = NonZeroU32::new(read(section, rate) as u32);
    let most = NonZeroU32::new(read(section, burst) as u32);
    if most.is_some() && per_second.is_none() && !section.has(rate) {
        section.mistake(burst, &format!("is used with {rate} only"));
    }
    per_second.map(|per_second| Rate { per_second, burst: most.unwrap_or(per_second) })
}
