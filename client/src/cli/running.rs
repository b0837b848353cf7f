//! The open tunnels of the program, and what a reload changes about them.
//!
//! A reload applies as a whole or not at all. Tunnels that it does not change do not notice it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::access_flags::load_revoked;
use super::failure::said;
use super::overview::Overview;
use super::plan::{Invocation, Label, Plan, Planned};
use super::program::called;
use crate::client::{Client, OpenTunnel};

/// The client and its open tunnels.
#[derive(Debug)]
pub(super) struct Running<'a> {
    invocation: &'a Invocation,
    client: Client,
    overview: &'a Overview,
    /// What is open.
    plan: Plan,
    /// The tunnels by their names, each with its service.
    open: BTreeMap<Option<String>, (OpenTunnel, Planned)>,
}

/// What a reload has changed: the names of tunnels in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    opened: Vec<String>,
    closed: Vec<String>,
    changed: Vec<String>,
    /// Changed settings that only a restart applies.
    restart: Vec<String>,
}

/// Why a reload has changed nothing, a line for each mistake.
#[derive(Debug)]
pub(super) struct NotReloaded(pub(super) Vec<String>);

impl<'a> Running<'a> {
    /// Opens the tunnels of a plan.
    pub(super) fn open(
        invocation: &'a Invocation,
        plan: Plan,
        client: Client,
        overview: &'a Overview,
    ) -> anyhow::Result<Self> {
        let mut running = Self { invocation, client, overview, plan, open: BTreeMap::new() };
        for (label, planned) in running.plan.tunnels.clone() {
            running.apply_one(label, planned)?;
        }
        Ok(running)
    }

    /// Reads the file again and changes the tunnels that differ. Logs what has changed, or why nothing has.
    pub(super) fn reload(&mut self) -> Result<Changes, NotReloaded> {
        if !self.invocation.has_tunnels_of_file() {
            let why = "the tunnel is from the command line, not from a file, so there is nothing to reload";
            info!(event = "nothing_to_reload", "{why}");
            return Ok(Changes::default());
        }
        let changes = self.invocation.plan_again().and_then(|plan| self.apply(plan));
        match changes {
            Ok(changes) => {
                info!(event = "reloaded", opened = ?changes.opened, closed = ?changes.closed, changed = ?changes.changed, "{}", changes.tunnels());
                if let Some(restart) = changes.needs_restart() {
                    warn!(event = "restart_needed", settings = ?changes.restart, "{restart}");
                }
                Ok(changes)
            }
            Err(why) => {
                let mistakes = said(&why);
                for reason in &mistakes {
                    error!(event = "not_reloaded", reason, "not reloaded, nothing has changed: {reason}");
                }
                Err(NotReloaded(mistakes))
            }
        }
    }

    /// Reads again which share links are revoked, and tells the daemon.
    pub(super) fn apply_revocations(&mut self) -> anyhow::Result<()> {
        let revoked = load_revoked(&self.invocation.state_dir()?)?;
        let planned = self.plan.tunnels.values_mut().chain(self.open.values_mut().map(|(_, planned)| planned));
        for planned in planned.filter(|planned| planned.rules.share.is_some()) {
            planned.rules.share_revoked.clone_from(&revoked);
        }
        for (tunnel, planned) in self.open.values() {
            if planned.rules.share.is_some() {
                planned.rules.check().map_err(|why| anyhow!(why))?;
                tunnel.set_rules(planned.rules.clone());
            }
        }
        info!(event = "links_revoked", count = revoked.len(), "share links are revoked");
        Ok(())
    }

    /// Names decide which tunnel is which, so a tunnel whose section is renamed stays.
    fn apply(&mut self, plan: Plan) -> anyhow::Result<Changes> {
        let changes = Changes::between(&self.plan, &plan);
        let kept: BTreeSet<_> = plan.tunnels.values().map(|planned| planned.subdomain.clone()).collect();
        let is_kept = |(name, _): &(Option<String>, _)| kept.contains(name);
        let (open, gone): (Vec<_>, Vec<_>) = mem::take(&mut self.open).into_iter().partition(is_kept);
        self.open = open.into_iter().collect();
        for (_, (tunnel, _)) in gone {
            self.overview.closed(tunnel.handle());
            tunnel.close();
        }
        self.plan.tunnels = plan.tunnels;
        for (label, planned) in self.plan.tunnels.clone() {
            self.apply_one(label, planned)?;
        }
        Ok(changes)
    }

    /// Opens a tunnel, or changes the open one with its name.
    fn apply_one(&mut self, label: Label, planned: Planned) -> anyhow::Result<()> {
        let options = self.invocation.tunnel(&label, &planned);
        if let Some((tunnel, service)) = self.open.get_mut(&planned.subdomain) {
            if !service.same_service(&planned) {
                tunnel.set_service(options)?;
            }
            if service.rules != planned.rules {
                tunnel.set_rules(planned.rules.clone());
            }
            self.overview.opened(tunnel.handle(), label, &planned.target);
            *service = planned;
            return Ok(());
        }
        let tunnel = self.client.open(options)?;
        self.overview.opened(tunnel.handle(), label, &planned.target);
        self.open.insert(planned.subdomain.clone(), (tunnel, planned));
        Ok(())
    }
}

impl Changes {
    fn between(old: &Plan, new: &Plan) -> Self {
        let without = |these: &Plan, others: &Plan| {
            let labels = these.tunnels.keys().filter(|label| !others.tunnels.contains_key(*label));
            labels.cloned().map(Option::unwrap_or_default).collect()
        };
        let changed =
            new.tunnels.iter().filter(|(label, planned)| old.tunnels.get(*label).is_some_and(|old| old != *planned));
        Self {
            opened: without(new, old),
            closed: without(old, new),
            changed: changed.map(|(label, _)| label.clone().unwrap_or_default()).collect(),
            restart: old.restarts(new).into_iter().map(str::to_owned).collect(),
        }
    }

    /// What has happened to the tunnels.
    fn tunnels(&self) -> String {
        let parts: Vec<String> = [("opened", &self.opened), ("closed", &self.closed), ("changed", &self.changed)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if parts.is_empty() {
            "reloaded: no tunnel has changed".to_owned()
        } else {
            format!("reloaded: {}", parts.join("; "))
        }
    }

    /// The settings that have not changed, and what to do.
    fn needs_restart(&self) -> Option<String> {
        let settings = self.restart.join(", ");
        (!settings.is_empty())
            .then(|| format!("a running client cannot change {settings}: restart {} to apply this", called()))
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tunnels())?;
        match self.needs_restart() {
            Some(restart) => write!(f, "; {restart}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_has_changed() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(Changes::default().to_string(), "reloaded: no tunnel has changed");
        let changes = Changes { opened: names(&["a", "b"]), changed: names(&["c"]), ..Changes::default() };
        assert_eq!(changes.to_string(), "reloaded: opened a, b; changed c");
        let changes = Changes { closed: names(&["a"]), restart: names(&["server", "transport"]), ..Changes::default() };
        assert_eq!(
            changes.to_string(),
            "reloaded: closed a; a running client cannot change server, transport: restart cok-client to apply this"
        );
    }
}
