//! Durations, sizes and dates as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in one or two units: `0.3 ms`, `12 ms`, `1.2 s`, `68 s`, `2 min 5 s`, `3 h 20 min`, `28 days`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{large} {one}"),
        small => format!("{large} {one} {small} {other}"),
    };
    match seconds {
        0 if time < Duration::from_millis(10) => format!("{} ms", tenths(time.as_secs_f64() * 1000.0)),
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{} s", tenths(time.as_secs_f64())),
        // Up to two minutes, seconds are easier to compare.
        10..120 => format!("{seconds} s"),
        120..HOUR => two(seconds / MINUTE, "min", seconds % MINUTE, "s"),
        HOUR..DAY => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
        _ if seconds < 2 * DAY => two(1, "day", (seconds - DAY) / HOUR, "h"),
        _ => format!("{} days", seconds / DAY),
    }
}

/// A number with a decimal place if needed.
fn tenths(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// A number of bytes, with a decimal prefix: `17 B`, `1.2 kB`, `34 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be shown as 1000.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// The date and time of an instant in UTC, to the second: `2026-11-29 10:42:07 UTC`.
pub fn date_time(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / DAY, unix_seconds % DAY);
    let (year, month, day) = civil(days);
    let (hours, minutes, seconds) = (seconds / HOUR, seconds % HOUR / MINUTE, seconds % MINUTE);
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

/// The seconds since 1970 of a time of this machine's clock; 0 before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The date that is so many days after 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_or_two_units() {
        for (milliseconds, shown) in [
            (0, "0 ms"),
            (3, "3 ms"),
            (12, "12 ms"),
            (999, "999 ms"),
            (1250, "1.2 s"),
            (68_000, "68 s"),
            (119_999, "119 s"),
            (125_000, "2 min 5 s"),
            (180_000, "3 min"),
            (12_000_000, "3 h 20 min"),
            (86_400_000, "1 day"),
            (90_000_000, "1 day 1 h"),
            (28 * 86_400_000, "28 days"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), shown);
        }
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        for (count, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1234, "1.2 kB"),
            (34_000, "34 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (34_000_000, "34 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_948_927, "2026-11-29 10:42:07 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date_time(seconds), shown);
        }
    }
}
