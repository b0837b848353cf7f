//! What renewal reports to its caller.

use super::validity::Validity;

/// A step of renewal, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// From now on a certificate of this validity is served.
    Serving(Validity),
    /// A new certificate was issued.
    Issued,
    /// An attempt failed.
    Failed,
}
