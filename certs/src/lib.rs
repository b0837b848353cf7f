//! Certificates: where they come from ([`Authority`], [`files`], [`acme`]) and which one a connection gets
//! ([`CertResolver`]).
//!
//! Certificates by ACME (RFC 8555) are kept in a [`store`], and proven by records in [`dns`]. The crate knows nothing
//! of tunnels.

pub mod acme;
mod authority;
mod clock;
pub mod dns;
mod error;
pub mod files;
mod https;
mod one_line;
mod resolver;
pub mod store;

pub use authority::Authority;
pub use clock::{date, unix_now};
pub use error::Error;
pub use one_line::one_line;
pub use resolver::CertResolver;
