//! When a certificate is valid, and when its authority suggests to renew it.

use serde::{Deserialize, Serialize};

/// The period in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// In seconds since 1970.
    pub not_before: i64,
    /// In seconds since 1970.
    pub not_after: i64,
}

impl Validity {
    /// True if the certificate is about to expire, or has.
    pub(super) fn is_emergency(self, now: i64) -> bool {
        now >= self.emergency()
    }

    /// When the last tenth of the lifetime begins.
    pub(super) fn emergency(self) -> i64 {
        self.not_after - self.lifetime() / 10
    }

    pub(super) fn lifetime(self) -> i64 {
        self.not_after.saturating_sub(self.not_before).max(0)
    }
}

/// The period in which the authority suggests to renew a certificate (RFC 9773, section 4.2), in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Its start.
    pub(super) start: i64,
    /// Its end.
    pub(super) end: i64,
}
