//! What operators can observe: metrics, health and the admin address.

mod admin;
mod health;
mod metrics;

pub(crate) use self::admin::{Admin, RELOAD, Reload};
pub(crate) use self::health::{Asker, Health};
pub(crate) use self::metrics::{Metrics, TunnelOnline};
