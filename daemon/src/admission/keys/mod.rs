//! API keys: who may open tunnels, and under which names. Keys come from the configuration and from the store; the rest
//! of the daemon sees only [`KeyStore`] and the [`Grant`]s that it gives.

mod grant;
mod id;
mod record;
mod table;

pub(crate) use self::grant::Grant;
pub(crate) use self::record::{KeyRecord, filler};
pub(crate) use self::table::KeyStore;

#[cfg(test)]
mod tests;
