//! Durations as users write them, on the command line and in the file.

use std::time::Duration;

/// A time such as `90s` or `2min`; a bare number is seconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; say for example 90s")),
    }
}

/// A time between two tries, which can't be none.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        interval => Ok(interval),
    }
}
