//! The time of day.

use std::time::SystemTime;

/// Now, in seconds since 1970; 0 by a clock that is set before that.
pub fn unix_now() -> i64 {
    unix(SystemTime::now())
}

/// A moment in seconds since 1970; 0 for those before, and the last there is for those that are too late.
pub(crate) fn unix(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
