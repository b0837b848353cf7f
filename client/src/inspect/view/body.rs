//! Bodies: as they passed, without their content codings, and as people read them.
use http::HeaderMap;
use serde::Serialize;

use crate::inspect::Shared;
use crate::inspect::live::Side;
use crate::inspect::store::Entry;

/// A body as people read it.
#[derive(Debug, Serialize)]
pub(in crate::inspect) struct ShownBody {}

/// The first bytes of a body without its content codings; as they passed, if those cannot be undone.
pub(in crate::inspect) fn decoded(
    shared: &Shared,
    entry: &Entry,
    side: Side,
    _head: Option<&HeaderMap>,
    limit: usize,
) -> Vec<u8> {
    entry.part(side).read(&shared.store.spool, limit).unwrap_or_default().to_vec()
}
