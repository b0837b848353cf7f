//! Rates as users write them: `10/s burst 50`, and for bytes `1MiB/s burst 8MiB`. Daemon and client read the same notation.

use std::fmt;
use std::num::NonZeroU32;

/// The highest rate and the largest burst of what is counted one by one.
pub const MAX_COUNT: u32 = 1_000_000;

/// A rate of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many come back each second.
    pub per_second: NonZeroU32,
    /// How many may go at once.
    pub burst: NonZeroU32,
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that are counted, such as requests: 1 to [`MAX_COUNT`].
    Count,
    /// Bytes, with or without KiB, MiB or GiB: 1 byte to just below 4 GiB.
    Bytes,
}

impl Rate {
    /// A rate, for constants. A zero counts as one.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let (Some(per_second), Some(burst)) = (NonZeroU32::new(per_second), NonZeroU32::new(burst)) else {
            return Self { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
        };
        Self { per_second, burst }
    }

    /// Reads a rate. Without `burst`, the unit's usual one counts ([`Unit::usual_burst`]).
    ///
    /// # Errors
    ///
    /// Says what a rate looks like.
    pub fn parse(text: &str, unit: Unit) -> Result<Self, &'static str> {
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let per_second = rate.trim().strip_suffix("/s").and_then(|number| unit.read(number)).ok_or(unit.example())?;
        let burst = match burst {
            Some(burst) => unit.read(burst).ok_or(unit.example())?,
            None => unit.usual_burst(per_second),
        };
        Ok(Self { per_second, burst })
    }

    /// Reads a rate, or `none` for no limit.
    ///
    /// # Errors
    ///
    /// Says what a rate looks like.
    pub fn parse_limit(text: &str, unit: Unit) -> Result<Option<Self>, &'static str> {
        if text.trim() == "none" { Ok(None) } else { Self::parse(text, unit).map(Some) }
    }

    /// The rate as users write it.
    #[must_use]
    pub fn written(self, unit: Unit) -> impl fmt::Display {
        Written { rate: self, unit }
    }
}

impl Unit {
    /// What a rate looks like, for messages.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Count => "a rate such as \"10/s\" or \"10/s burst 50\", with numbers from 1 to 1000000",
            Self::Bytes => "a rate such as \"1MiB/s\" or \"1MiB/s burst 8MiB\", with less than 4GiB",
        }
    }

    /// The burst of a rate that names none. A page asks for all its parts at once, so ten seconds' worth of requests may come.
    /// Of bytes it is one second's worth.
    #[must_use]
    pub fn usual_burst(self, per_second: NonZeroU32) -> NonZeroU32 {
        match self {
            Self::Count => NonZeroU32::new(per_second.get().saturating_mul(10).min(MAX_COUNT)).unwrap_or(per_second),
            Self::Bytes => per_second,
        }
    }

    /// Reads a count, or a size with its unit.
    fn read(self, text: &str) -> Option<NonZeroU32> {
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let (factor, most): (u32, u32) = match (self, text.get(digits.len()..)?) {
            (Self::Count, "") => (1, MAX_COUNT),
            (Self::Bytes, "" | "B") => (1, u32::MAX),
            (Self::Bytes, "KiB") => (1 << 10, u32::MAX),
            (Self::Bytes, "MiB") => (1 << 20, u32::MAX),
            (Self::Bytes, "GiB") => (1 << 30, u32::MAX),
            _ => return None,
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse::<u32>().ok()?.checked_mul(factor)?;
        NonZeroU32::new(number).filter(|number| number.get() <= most)
    }

    /// Writes a number with the largest unit that leaves it whole.
    fn write(self, number: NonZeroU32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = match self {
            Self::Count => &[][..],
            Self::Bytes => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")],
        };
        let number = number.get();
        let (size, name) = sizes.iter().find(|(size, _)| number.is_multiple_of(*size)).unwrap_or(&(1, ""));
        write!(f, "{}{name}", number / size)
    }
}

/// A rate with its unit.
struct Written {
    rate: Rate,
    unit: Unit,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unit.write(self.rate.per_second, f)?;
        f.write_str("/s burst ")?;
        self.unit.write(self.rate.burst, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, unit, rate, written) in [
            ("10/s", Unit::Count, Rate::new(10, 100), "10/s burst 100"),
            ("10/s burst 50", Unit::Count, Rate::new(10, 50), "10/s burst 50"),
            ("1000000/s", Unit::Count, Rate::new(1_000_000, 1_000_000), "1000000/s burst 1000000"),
            (" 1MiB/s burst 8MiB ", Unit::Bytes, Rate::new(1 << 20, 8 << 20), "1MiB/s burst 8MiB"),
            ("3GiB/s", Unit::Bytes, Rate::new(3 << 30, 3 << 30), "3GiB/s burst 3GiB"),
            ("1000/s burst 2048B", Unit::Bytes, Rate::new(1000, 2048), "1000B/s burst 2KiB"),
        ] {
            assert_eq!(Rate::parse(text, unit), Ok(rate), "{text}");
            assert_eq!(rate.written(unit).to_string(), written);
            assert_eq!(Rate::parse(written, unit), Ok(rate), "{written}");
        }
        assert_eq!(Rate::parse_limit("none", Unit::Bytes), Ok(None));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in [
            "",
            "0",
            "10",
            "0/s",
            "10/s burst 0",
            "-1/s",
            "+1/s",
            "10/min",
            "1TiB/s",
            "5GiB/s",
            "/s",
            "10/s burst",
            "10/s:50",
            "10/s burst 5 burst 6",
            "none/s",
            "1\u{e9}/s",
        ] {
            for unit in [Unit::Count, Unit::Bytes] {
                assert_eq!(Rate::parse(text, unit), Err(unit.example()), "{text}");
            }
        }
        for text in ["1000001/s", "1/s burst 1000001", "1KiB/s", "1B/s"] {
            assert_eq!(Rate::parse(text, Unit::Count), Err(Unit::Count.example()), "{text}");
        }
    }
}
