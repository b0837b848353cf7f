//! The time of day, in seconds since 1970.

use std::time::SystemTime;

use time::OffsetDateTime;

/// Now, in seconds since 1970; 0 if the clock is set to before that.
pub fn unix_now() -> i64 {
    unix(SystemTime::now())
}

/// Formats a moment in seconds since 1970 for people. One that is out of range stays a number.
pub fn date(at: i64) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(at) else { return at.to_string() };
    format!("{} {:02}:{:02}:{:02} UTC", moment.date(), moment.hour(), moment.minute(), moment.second())
}

/// Converts a moment to seconds since 1970. Earlier ones become 0, and those that are out of range `i64::MAX`.
pub(crate) fn unix(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00:00 UTC");
        assert_eq!(date(i64::MAX), i64::MAX.to_string());
    }
}
