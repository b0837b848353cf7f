//! The limits of a key of the configuration.

use cok_host::settings::Section;
use cok_proto::rate::Unit;

use super::rates::limit;
use crate::admission::{KeyLimits, MOST_EXCHANGES, MOST_SESSIONS, MOST_TUNNELS};

/// Reads the limits in a `[[keys]]` section.
pub(super) fn limits(section: &mut Section<'_>) -> KeyLimits {
    let default = KeyLimits::default();
    let (tunnels, sessions) = (default.tunnels as u64, default.sessions as u64);
    KeyLimits {
        tunnels: section.whole("max_tunnels", 1, MOST_TUNNELS, tunnels) as usize,
        sessions: section.whole("max_sessions", 1, MOST_SESSIONS, sessions) as usize,
        // Zero stands for a missing key, and is too low for one that is there.
        exchanges: Some(section.whole("max_exchanges", 1, MOST_EXCHANGES, 0) as u32).filter(|most| *most > 0),
        requests: limit(section, "requests", Unit::Count, None),
        bytes: limit(section, "bytes", Unit::Bytes, None),
    }
}
