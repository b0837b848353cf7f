//! Who gets in, and how much of the daemon each may take: connection limits, tunnel quotas and API keys.

pub(crate) mod connections;
pub(crate) mod keys;
pub(crate) mod quota;
