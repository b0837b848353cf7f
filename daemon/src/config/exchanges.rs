//! The settings of exchanges, in `[limits]`.

use std::time::Duration;

use cok_host::settings::Section;

use crate::exchanges::Config;

/// Reads them.
pub(super) fn exchanges(section: &mut Section<'_>) -> Config {
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const MIB: u64 = 1024 * 1024;
    let usual = Config::default();
    Config {
        stall_timeout: section.duration("stall_timeout", SECOND, HOUR, usual.stall_timeout),
        head_timeout: section.duration("head_timeout", SECOND, HOUR, usual.head_timeout),
        visitor_share: section.whole("visitor_share", 1, 100, usual.visitor_share.into()) as u32,
        max_buffered: section.bytes("max_buffered", 8 * MIB, 1024 * 1024 * MIB, usual.max_buffered as u64) as usize,
    }
}
