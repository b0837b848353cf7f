//! Whether this machine was asleep. A session hardly outlives that, and its end would otherwise look like a fault of the
//! server or the network.

use std::collections::VecDeque;
use std::time::Duration;

/// How often the clocks are looked at.
pub(super) const TICK: Duration = Duration::from_secs(15);
/// How far back a sleep may lie, in time awake: longer than it takes to notice that the server is gone.
const RECENT: Duration = Duration::from_secs(60);
/// The shortest sleep that counts.
const LEAST: Duration = Duration::from_secs(5);

/// What the system's clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clocks {
    /// The time since some moment, without the time asleep.
    awake: Duration,
    /// The time asleep since some moment.
    asleep: Duration,
}

/// Follows the clocks.
#[derive(Debug)]
pub(super) struct Sleep {
    /// Reads the clocks; `None` on systems that do not tell.
    read: fn() -> Option<Clocks>,
    seen: VecDeque<Clocks>,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self { read, seen: VecDeque::new() }
    }

    /// A session begins: what was before does not matter.
    pub(super) fn begin(&mut self) {
        self.seen.clear();
        self.tick();
    }

    /// Looks at the clocks.
    pub(super) fn tick(&mut self) {
        let Some(now) = (self.read)() else { return };
        // One look that is older stays, to compare with.
        while self.seen.get(1).is_some_and(|second| now.awake.saturating_sub(second.awake) >= RECENT) {
            self.seen.pop_front();
        }
        self.seen.push_back(now);
    }

    /// How long the machine was asleep lately, if it was.
    pub(super) fn lately(&mut self) -> Option<Duration> {
        self.tick();
        let (first, last) = (self.seen.front()?, self.seen.back()?);
        Some(last.asleep.saturating_sub(first.asleep)).filter(|asleep| *asleep >= LEAST)
    }
}

/// CLOCK_BOOTTIME goes on while the machine sleeps, CLOCK_MONOTONIC does not (clock_gettime(2)).
#[cfg(target_os = "linux")]
fn read() -> Option<Clocks> {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let time = clock_gettime(clock);
        Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
    };
    // In this order, so that the time between the two is no sleep.
    let (all, awake) = (read(ClockId::Boottime)?, read(ClockId::Monotonic)?);
    Some(Clocks { awake, asleep: all.saturating_sub(awake) })
}

#[cfg(not(target_os = "linux"))]
fn read() -> Option<Clocks> {
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }

    fn set(awake: u64, asleep: u64) {
        NOW.set((awake, asleep));
    }

    fn sleep() -> Sleep {
        let read = || {
            let (awake, asleep) = NOW.get();
            Some(Clocks { awake: Duration::from_secs(awake), asleep: Duration::from_secs(asleep) })
        };
        Sleep { read, seen: VecDeque::new() }
    }

    #[test]
    fn a_sleep_is_seen_for_a_while() {
        let mut sleep = sleep();
        set(1000, 5000);
        sleep.begin();
        assert_eq!(sleep.lately(), None);
        set(1010, 5068);
        assert_eq!(sleep.lately(), Some(Duration::from_secs(68)));
        for awake in (1020..1080).step_by(10) {
            set(awake, 5068);
            sleep.tick();
        }
        set(1090, 5068);
        assert_eq!(sleep.lately(), None);
        assert!(sleep.seen.len() < 20);
    }

    #[test]
    fn another_session_knows_nothing_of_it() {
        let mut sleep = sleep();
        set(1000, 0);
        sleep.begin();
        set(1001, 100);
        sleep.begin();
        set(1002, 103);
        assert_eq!(sleep.lately(), None, "three seconds are no sleep");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_has_both_clocks() {
        let (first, second) = (read().unwrap(), read().unwrap());
        assert!(second.awake >= first.awake);
        assert!(second.asleep.abs_diff(first.asleep) < LEAST);
    }
}
