//! File descriptors of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// Raises the limit of descriptors as far as it may be, and returns it.
pub(crate) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    if limit.current != most
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
    {
        debug!(%error, "the limit of descriptors stays");
        return count(limit.current);
    }
    count(most)
}

fn count(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
