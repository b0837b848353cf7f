//! Which congestion controller a connection of ours uses, on TCP and on QUIC alike.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};

/// A congestion controller (RFC 9002, section 7; RFC 9406 for TCP).
///
/// On a path without loss both fill the line. Under 1 to 2 % of random loss, as mobile and wireless paths have it, CUBIC
/// falls to a twentieth of the rate, since it takes every loss for a full queue; BBR goes by measured rate and round trip,
/// which is why it is the default (figures: `tests/bench/README.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438): the kernel's usual one, and quinn's.
    Cubic,
    /// BBR, which models the path instead of reacting to loss.
    #[default]
    Bbr,
}

impl Congestion {
    /// The name as users and Linux's `TCP_CONGESTION` know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Congestion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cubic" => Ok(Self::Cubic),
            "bbr" => Ok(Self::Bbr),
            other => Err(format!("expected bbr or cubic, not \"{other}\"")),
        }
    }
}
