//! Rates as the token buckets keep them.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

use crate::admission::Rate;

/// Bytes are counted in units of this size: a rate of many bytes would have no precise time for one.
pub(super) const BYTE_UNIT: u32 = 1024;

/// How fast single ones come back, and how many may go at once.
pub(super) fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// The same for bytes, in units of [`BYTE_UNIT`].
pub(super) fn byte_quota(rate: Rate) -> Quota {
    let nanos = 1_000_000_000 * u64::from(BYTE_UNIT) / u64::from(rate.per_second.get());
    let burst = NonZeroU32::new(rate.burst.get() / BYTE_UNIT).unwrap_or(NonZeroU32::MIN);
    let period = Duration::from_nanos(nanos.max(1));
    Quota::with_period(period).map_or_else(|| Quota::per_second(burst), |quota| quota.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_precise() {
        for per_second in [1024, 100_000, 1 << 30] {
            let quota = byte_quota(Rate::new(per_second, 1 << 20));
            let rate = f64::from(BYTE_UNIT) / quota.replenish_interval().as_secs_f64();
            assert!((rate / f64::from(per_second) - 1.0).abs() < 0.002, "{per_second}: {rate}");
            assert_eq!(quota.burst_size().get(), 1024);
        }
    }
}
