//! The congestion controller of our connections, for TCP and QUIC.

mod bbr;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use quinn::congestion::{ControllerFactory, CubicConfig};

use self::bbr::BbrConfig;

/// A congestion controller (RFC 9002, section 7; RFC 9406 for TCP).
///
/// On a path without loss both fill the line. Mobile paths lose 1 to 2 % of packets at random. CUBIC takes each loss
/// for a full queue, and falls to a twentieth of the rate there. BBR measures rate and round trip instead, so it is the
/// default (figures: `tests/bench/README.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438), the default of the kernel and of quinn.
    Cubic,
    /// BBR, which models the path and does not react to single losses.
    #[default]
    Bbr,
}

impl Congestion {
    /// The name in the configuration and in Linux's `TCP_CONGESTION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig),
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
