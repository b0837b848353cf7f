//! Whether any API key works: those of the configuration, and those of the store.

use std::io::ErrorKind;
use std::time::SystemTime;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Report;
use crate::admission::wire::{KeyView, State};
use crate::cli::key::Keeper;
use crate::config::Config;

/// The most names in one line.
const MOST_NAMED: usize = 5;

/// Reports keys that have expired, and that there is none that works.
pub(super) async fn look(config: &Config, report: &mut Report) {
    let listed = match Keeper::existing(config) {
        Some(keeper) if may_not_read(&keeper) => {
            report.note(&format!(
                "keys: you may not read those in {}; run this as root or as the service's user",
                config.startup.state_dir.display()
            ));
            return;
        }
        Some(keeper) => keeper.list().await,
        None => Ok(KeyView::configured(&config.admission.live.keys, SystemTime::now())),
    };
    match listed {
        Ok(keys) => judge(&keys, report),
        Err(failure) => report.fault(&format!("keys: {failure}")),
    }
}

/// True if only the rights of this user are in the way.
fn may_not_read(keeper: &Keeper) -> bool {
    match keeper {
        Keeper::Daemon(_) => false,
        Keeper::Store(store, _) => {
            matches!(access(store.path(), Access::READ_OK | Access::WRITE_OK), Err(Errno::ACCESS))
        }
        Keeper::Unreachable(_, kind) => *kind == ErrorKind::PermissionDenied,
    }
}

fn judge(keys: &[KeyView], report: &mut Report) {
    let expired: Vec<_> = keys.iter().filter(|key| key.state == State::Expired).collect();
    if !expired.is_empty() {
        let named: Vec<_> = expired.iter().take(MOST_NAMED).map(|key| format!("{:?}", key.name)).collect();
        let more = expired.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        report.note(&format!(
            "keys: expired: {}{more}; for a new time: cokd key edit NAME --expires 90d, or `expires` in the configuration",
            named.join(", ")
        ));
    }
    if !keys.iter().any(|key| key.state == State::Valid) {
        let which = if keys.is_empty() { "there is none" } else { "none is valid" };
        report.fault(&format!("keys: {which}, so no client can connect; make one: cokd key create --name laptop"));
    }
}
