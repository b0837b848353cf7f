//! How rates are written: `10/s`, `10/s burst 50`, and for bytes `1MiB/s burst 8MiB`.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

use crate::admission::Rate;

/// What a rate looks like, for messages.
pub(crate) const NOTATION: &str = "a rate such as \"10/s\", \"10/s burst 50\" or \"0\" for no limit";
/// The same for bytes.
pub(crate) const BYTE_NOTATION: &str = "a rate such as \"1MiB/s\", \"1MiB/s burst 8MiB\" or \"0\" for no limit";

/// Bytes are counted in units of this size: a rate of many bytes would have no precise time for one.
pub(super) const BYTE_UNIT: u32 = 1024;

impl Rate {
    /// Reads a rate; `None` stands for no limit. Without `burst`, as many may go at once as come back in a second.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let wrong = || format!("got \"{}\"", text.escape_debug());
        if text.trim() == "0" {
            return Ok(None);
        }
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let rate = rate.trim().strip_suffix("/s").ok_or_else(wrong)?;
        let per_second = number(rate).ok_or_else(wrong)?;
        let burst = burst.map_or(Some(per_second), number).ok_or_else(wrong)?;
        Ok(Some(Self { per_second, burst }))
    }

    /// A rate, for constants.
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        let (Some(per_second), Some(burst)) = (NonZeroU32::new(per_second), NonZeroU32::new(burst)) else {
            return Self { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
        };
        Self { per_second, burst }
    }

    /// How fast single ones come back, and how many may go at once.
    pub(super) fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }

    /// The same for bytes, in units of [`BYTE_UNIT`].
    pub(super) fn byte_quota(self) -> Quota {
        let nanos = 1_000_000_000 * u64::from(BYTE_UNIT) / u64::from(self.per_second.get());
        let burst = NonZeroU32::new(self.burst.get() / BYTE_UNIT).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_nanos(nanos.max(1));
        Quota::with_period(period).map_or_else(|| Quota::per_second(burst), |quota| quota.allow_burst(burst))
    }

    /// In how many seconds an empty bucket is full, rounded up.
    pub(crate) fn window(self) -> u32 {
        self.burst.get().div_ceil(self.per_second.get())
    }
}

/// A count, or a size with its unit.
fn number(text: &str) -> Option<NonZeroU32> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u32 = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    NonZeroU32::new(digits.parse::<u32>().ok()?.checked_mul(factor)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, per_second, burst) in [
            ("10/s", 10, 10),
            ("10/s burst 50", 10, 50),
            (" 1MiB/s burst 8MiB", 1 << 20, 8 << 20),
            ("3GiB/s", 3 << 30, 3 << 30),
        ] {
            assert_eq!(Rate::parse(text), Ok(Some(Rate::new(per_second, burst))), "{text}");
        }
        assert_eq!(Rate::parse("0"), Ok(None));
        for text in ["", "10", "0/s", "10/s burst 0", "-1/s", "10/min", "1TiB/s", "5GiB/s", "/s", "10/s burst"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_precise() {
        for per_second in [1024, 100_000, 1 << 30] {
            let quota = Rate::new(per_second, 1 << 20).byte_quota();
            let rate = f64::from(BYTE_UNIT) / quota.replenish_interval().as_secs_f64();
            assert!((rate / f64::from(per_second) - 1.0).abs() < 0.002, "{per_second}: {rate}");
            assert_eq!(quota.burst_size().get(), 1024);
        }
    }
}
