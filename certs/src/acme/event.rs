//! What renewal reports to its caller.

use super::validity::Validity;

/// What happened, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This certificate is served from now on.
    Serving(Validity),
    /// It is a new one.
    Issued,
    /// An attempt failed.
    Failed,
}
