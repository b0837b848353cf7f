//! Certificates: where they come from ([`Authority`], [`files`]) and which one a connection gets ([`CertResolver`]).
//!
//! Knows nothing of tunnels. Certificates by ACME (RFC 8555) are ordered and renewed by [`acme`] and kept in a [`store`].

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
