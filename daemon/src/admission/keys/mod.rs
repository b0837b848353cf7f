//! API keys: who may open tunnels, and under which names. Keys come from the configuration and from the store; the rest
//! of the daemon sees only [`KeyStore`] and the [`Grant`]s that it gives.

mod book;
mod follow;
mod grant;
mod id;
mod record;
mod row;
mod table;
pub(crate) mod wire;

pub(crate) use self::book::{KeyBook, KeyError};
pub(crate) use self::grant::Grant;
pub(crate) use self::record::{KeyRecord, filler, is_key_name};
pub(crate) use self::table::KeyStore;

#[cfg(test)]
mod tests;
