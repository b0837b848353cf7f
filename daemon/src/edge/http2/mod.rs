//! HTTP/2 under the library: which frames pass, so that frames without progress cannot occupy the daemon. Only small DATA
//! frames are merged. All else passes as it came, and every rule of the protocol is left to the library.

mod frames;
mod gathering;
mod merge;
mod stream;

pub(super) use self::gathering::Gathering;
pub(super) use self::stream::Budgeted;
