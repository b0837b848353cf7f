//! What operators can observe: requests, metrics and health.

mod access_log;
mod ending;
mod health;
mod history;
mod metrics;
mod observers;
mod record;
mod trace;

pub(crate) use self::access_log::{AccessLog, Config as AccessLogConfig, Destination};
pub(crate) use self::ending::Ending;
pub(crate) use self::health::{Asker, Component, Condition, Health, Report, text};
pub(crate) use self::history::{BytesSoFar, POINT, Point};
pub(crate) use self::metrics::{
    Config as MetricsConfig, Figures, Form, Greeting, HandshakeOutcome, Limit, Metrics, Rate, Return, Security,
    SessionOpen, TunnelOnline,
};
pub(crate) use self::observers::Observers;
pub(crate) use self::record::{Lasting, Phases, Record};
pub(crate) use self::trace::Trace;
