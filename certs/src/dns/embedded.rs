//! A DNS responder in this process. It answers for `_acme-challenge.<domain>`, or for the whole domain, once the parent
//! zone delegates that to it.
//!
//! It is no general name server: it has one zone made from a few settings, and no cache, transfer or recursion.

mod answer;
mod limit;
mod published;
mod responder;
mod serve;
mod zone;

pub use self::answer::Over;
pub use self::responder::Embedded;
pub use self::serve::{Sockets, bind, serve};
pub(super) use self::zone::NS_TTL;
pub use self::zone::{Host, Zone, ZoneError};

#[cfg(test)]
mod tests;
