//! Captured exchanges as the interface shows them. The names of the fields here are those of the JSON; they are described in
//! `client/INSPECTOR.md` and stay.

mod body;
mod detail;
mod exported;
mod matching;
mod message;
mod summary;

pub(super) use self::body::{ShownBody, plain};
pub(super) use self::detail::Detail;
pub(super) use self::exported::{curl, har_entry};
pub(super) use self::matching::matches;
pub(super) use self::message::MessagePage;
pub(crate) use self::summary::Summary;
