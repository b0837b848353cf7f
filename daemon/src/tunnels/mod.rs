//! Tunnels: how clients connect, which session serves which name, and the names that outlive the process.

pub(crate) mod accept;
pub(crate) mod directory;
pub(crate) mod snapshot;
