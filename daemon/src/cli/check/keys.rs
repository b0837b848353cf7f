//! Whether any API key works: those of the configuration, and those of the store.

use std::time::SystemTime;

use super::Report;
use crate::admission::wire::{KeyView, State};
use crate::cli::key::Keeper;
use crate::config::Config;

/// The most names in one line.
const MOST_NAMED: usize = 5;

/// Reports keys that have expired, and that there is none that works.
pub(super) async fn look(config: &Config, report: &mut Report) {
    let keys = match Keeper::existing(config) {
        Some(keeper) => keeper.list().await.ok(),
        None => Some(KeyView::configured(&config.admission.live.keys, SystemTime::now())),
    };
    match keys {
        Some(keys) => judge(&keys, report),
        None => report.note(format!(
            "keys: cannot read those in {}; run this as root or as the service's user",
            config.startup.state_dir.display()
        )),
    }
}

fn judge(keys: &[KeyView], report: &mut Report) {
    let expired: Vec<_> = keys.iter().filter(|key| key.state == State::Expired).collect();
    if !expired.is_empty() {
        let named: Vec<_> = expired.iter().take(MOST_NAMED).map(|key| format!("{:?}", key.name)).collect();
        let more = expired.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        report.note(format!(
            "keys: expired: {}{more}; for a new time: cokd key edit NAME --expires 90d, or `expires` in the configuration",
            named.join(", ")
        ));
    }
    if !keys.iter().any(|key| key.state == State::Valid) {
        let which = if keys.is_empty() { "there is none" } else { "none is valid" };
        report.fault(format!("keys: {which}, so no client can connect; make one: cokd key create --name laptop"));
    }
}
