//! The settings of `[names]`.

use cok_host::settings::Section;

use crate::names::Subdomain;
use crate::tunnels::NameRules;

/// The settings of names, by part.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) rules: NameRules,
    /// Whether visitors can't find out which names exist.
    pub(super) hide: bool,
}

/// Reads `[names]`.
pub(super) fn names(mut section: Section<'_>) -> Names {
    let default = NameRules::default();
    let reserved = section.list("reserved", "a name such as \"www\"", |text| Subdomain::parse(text).ok());
    let names = Names {
        rules: NameRules {
            reserved: reserved.map_or(default.reserved, |names| names.into_iter().collect()),
            max_per_key: section.whole("max_per_key", 1, 100_000, default.max_per_key as u64) as usize,
        },
        hide: section.flag("hide", false),
    };
    section.finish();
    names
}
