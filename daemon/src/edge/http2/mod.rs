//! HTTP/2 under the library: which frames pass, so that frames without progress cannot occupy the daemon. It changes nothing
//! that passes, and leaves every rule of the protocol to the library.

mod frames;
mod gathering;
mod stream;

pub(super) use self::gathering::Gathering;
pub(super) use self::stream::Budgeted;
