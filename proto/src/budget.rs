//! A budget for what a peer may send that brings no exchange forward.
//!
//! Useless work spends, progress earns, and time earns a little, so that keep-alives of a quiet connection never run dry.
//! The unit is the owner's.

use std::time::Instant;

/// An account of units.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    /// Until when time has been credited. `None` before the first spending.
    credited: Option<Instant>,
}

/// Nothing is left: the peer has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many frames that bring no exchange forward")]
pub struct Spent;

impl Budget {
    /// A full account of `most` units, to which time adds `per_second`.
    #[must_use]
    pub const fn new(most: u32, per_second: u32) -> Self {
        Self { left: most, most, per_second, credited: None }
    }

    /// Adds what progress earns. The account never holds more than its most.
    pub fn earn(&mut self, units: u32) {
        self.left = self.left.saturating_add(units).min(self.most);
    }

    /// Takes units. Time is credited only when they run short.
    pub fn spend(&mut self, units: u32, now: Instant) -> Result<(), Spent> {
        let credited = *self.credited.get_or_insert(now);
        if self.left < units {
            let passed = now.saturating_duration_since(credited);
            let earned = passed.as_micros().saturating_mul(self.per_second.into()) / 1_000_000;
            // Less than a unit is left to be credited later.
            if earned > 0 {
                self.credited = Some(now);
                self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            }
        }
        self.left = self.left.checked_sub(units).ok_or(Spent)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_account_runs_dry_and_is_filled_by_progress_up_to_its_most() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 1);
        assert_eq!(budget.spend(10, now), Ok(()));
        assert_eq!(budget.spend(1, now), Err(Spent));
        budget.earn(u32::MAX);
        assert_eq!(budget.spend(10, now), Ok(()));
        assert_eq!(budget.spend(1, now), Err(Spent));
    }

    #[test]
    fn time_adds_at_its_rate_however_often_it_is_asked() {
        let began = Instant::now();
        let mut budget = Budget::new(100, 10);
        assert_eq!(budget.spend(100, began), Ok(()));
        let spent = (1..=10_000).filter(|ms| budget.spend(1, began + Duration::from_millis(*ms)).is_ok()).count();
        assert_eq!(spent, 100);
        // A quiet hour fills it, and not more.
        let later = began + Duration::from_secs(3600);
        assert_eq!(budget.spend(100, later), Ok(()));
        assert_eq!(budget.spend(1, later), Err(Spent));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_adds_nothing() {
        let earlier = Instant::now();
        let now = earlier + Duration::from_secs(5);
        let mut budget = Budget::new(1, 1000);
        assert_eq!(budget.spend(1, now), Ok(()));
        assert_eq!(budget.spend(1, now), Err(Spent));
        assert_eq!(budget.spend(1, earlier), Err(Spent));
    }
}
