//! Captured exchanges as the interface shows them. The names of the fields here are those of the JSON; they are described in
//! `client/INSPECTOR.md` and stay.

mod body;
mod detail;
mod exported;
mod matching;
mod message;
pub(super) mod secrets;
mod summary;

pub(super) use self::detail::Detail;
pub(super) use self::matching::matches;
pub(super) use self::message::MessagePage;
pub(crate) use self::summary::Summary;

/// Whether secrets are shown as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    Masked,
    Revealed,
}
