//! Certificates by ACME (RFC 8555): orders one, keeps it in the store, and renews it in time.
//!
//! Traffic never waits for it. How TXT records are published is up to a [`Solver`](crate::dns::Solver).

mod account;
mod attempt;
mod caught;
mod directory;
mod event;
mod http;
mod ledger;
mod order;
mod plan;
mod problem;
mod renewer;
mod requested;
mod rollover;
mod settings;
mod state;
mod status;
mod validity;
mod window;

pub use self::event::Event;
pub use self::renewer::Renewer;
pub use self::settings::{Settings, check_ca_file};
pub use self::state::State;
pub use self::status::{Status, status};
pub use self::validity::Validity;
