//! The end of a certificate's validity, held against the clocks: it tells a wrong certificate from a wrong clock.

use std::fmt;
use std::time::{Duration, SystemTime};

use cok_host::figures::{date_time, duration, unix_seconds};

/// An end of a certificate's validity, and what the clocks say, all in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The end; `None` if it is not known.
    pub(super) at: Option<u64>,
    /// This machine's clock.
    pub(super) here: u64,
    /// The server's clock, once it was asked.
    pub(super) there: Option<u64>,
}

/// How far two clocks may be apart.
const CLOCKS_AGREE: u64 = 300;

impl Limit {
    /// A certificate's limit, held against this machine's clock.
    pub(super) fn of(at: Option<u64>) -> Self {
        Self { at, here: unix_seconds(SystemTime::now()), there: None }
    }

    /// The server's clock, if the certificate is valid by it and the clocks differ. A certificate that is invalid by both clocks
    /// is invalid.
    pub(super) fn other_clock(&self) -> Option<u64> {
        let (at, there) = (self.at?, self.there?);
        let is_valid_there = if self.here > at { there <= at } else { there >= at };
        (is_valid_there && there.abs_diff(self.here) > CLOCKS_AGREE).then_some(there)
    }

    /// From the text of an error of rustls, which ends in the limit and the seconds between.
    pub(super) fn of_text(why: &str) -> Self {
        let rest = why.split_once("not valid after ").or_else(|| why.split_once("not valid before "));
        let digits = rest.and_then(|(_, rest)| rest.split(' ').next());
        Self::of(digits.and_then(|digits| digits.parse().ok()))
    }

    /// Says what is wrong, as long as no clock is to blame.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>, what: &str, then: &str) -> fmt::Result {
        if let Some(there) = self.other_clock() {
            let apart = duration(Duration::from_secs(there.abs_diff(self.here)));
            let side = if there > self.here { "behind" } else { "ahead of" };
            let (here, there) = (date_time(self.here), date_time(there));
            return write!(
                f,
                "this machine's clock is {apart} {side} the server's: it says {here}, the server's {there}"
            );
        }
        match self.at {
            Some(at) => {
                let apart = duration(Duration::from_secs(at.abs_diff(self.here)));
                write!(f, "its certificate {what} {}, {apart} {then}", date_time(at))
            }
            None => write!(f, "its certificate {}", if then == "ago" { "has expired" } else { "is not valid yet" }),
        }
    }
}
