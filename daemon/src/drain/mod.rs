//! How the daemon goes away: the phases that all parts watch, the requests in flight, and what is left to the next process.

pub(crate) mod detached;
pub(crate) mod initials;
pub(crate) mod phase;
pub(crate) mod requests;
pub(crate) mod stop;
