//! The section `[metrics]`.

use cok_host::settings::Section;

use crate::observe::MetricsConfig;

/// Reads the section.
pub(super) fn metrics(mut section: Section<'_>) -> MetricsConfig {
    let config = MetricsConfig { tunnel_labels: section.whole("tunnel_labels", 0, 10_000, 0) as usize };
    section.finish();
    config
}
