//! What operators can observe: metrics and health.

mod health;
mod metrics;

pub(crate) use self::health::{Asker, Health, text};
pub(crate) use self::metrics::{Metrics, TunnelOnline};
