//! What operators see of the daemon: metrics, health and the admin address.

pub(crate) mod admin;
pub(crate) mod metrics;
