//! The tunnels of a running daemon, and their changes as they happen. It outlasts a restart of the daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::admin::{Daemon, Events, Unanswered};
use super::exit::DEFAULT_CONFIG;
use crate::admin::wire::{Gone, Status, TrafficOf, Tunnel};
use crate::admin::{EVENTS, GONE, RESYNC, STATUS, TRAFFIC, TUNNEL, TUNNELS};
use crate::config::{self, Config};

/// The most changes that wait to be shown. The daemon holds back the rest, and says at some point that some were missed.
const MOST_WAITING: usize = 64;
/// The pause before the next attempt to reach a daemon that has left.
const AGAIN: Duration = Duration::from_secs(1);

/// Which daemon is asked.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// The configuration file, of which only state_dir and [admin] token_file are read
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's state directory, without a look at the configuration file
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "admin"])]
    state_dir: Option<PathBuf>,
    /// The daemon's admin address, to ask there instead of at the socket in its state directory
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl DaemonArgs {
    /// The daemon.
    pub(super) fn daemon(&self) -> anyhow::Result<Daemon> {
        Ok(match (self.admin, &self.state_dir) {
            // Only changes need the token, and this user may not be able to read it.
            (Some(address), _) => Config::load(&self.config)
                .ok()
                .and_then(|config| Daemon::of(&config, Some(address)).ok())
                .unwrap_or(Daemon::Address(address, None)),
            (None, Some(state_dir)) => Daemon::Socket(state_dir.clone()),
            (None, None) => Daemon::Socket(config::state_dir(&self.config)?),
        })
    }
}

/// Something that has happened.
#[derive(Debug)]
pub(super) enum Change {
    /// The tunnel is new, or another session serves it now.
    Tunnel(Box<Tunnel>),
    /// The name is not known any more.
    Gone(String),
    /// What these tunnels have carried so far.
    Traffic(Vec<TrafficOf>),
    /// The daemon as a whole.
    Status(Box<Status>),
    /// The daemon does not answer, for this reason. It is asked again.
    Lost(anyhow::Error),
}

/// What the daemon says.
#[derive(Debug)]
enum Said {
    All(Vec<Tunnel>),
    One(Change),
}

/// The tunnels of a daemon.
#[derive(Debug)]
pub(super) struct Live {
    said: mpsc::Receiver<Said>,
    tunnels: BTreeMap<String, Tunnel>,
    /// Changes that were found by a look at the whole list, the first at the end.
    found: Vec<Change>,
}

impl Live {
    /// Begins to follow a daemon, which must be there.
    pub(super) async fn begin(daemon: Daemon) -> anyhow::Result<Self> {
        let events = listen(&daemon).await?;
        let (sender, said) = mpsc::channel(MOST_WAITING);
        tokio::spawn(follow(daemon, events, sender));
        Ok(Self { said, tunnels: BTreeMap::new(), found: Vec::new() })
    }

    /// All tunnels, by name.
    pub(super) fn tunnels(&self) -> &BTreeMap<String, Tunnel> {
        &self.tunnels
    }

    /// The next change. `tunnels` has it already. `None` if there will be none. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.found.pop() {
                return Some(change);
            }
            match self.said.recv().await? {
                Said::All(list) => self.replace(list),
                Said::One(change) => {
                    self.apply(&change);
                    return Some(change);
                }
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Tunnel(tunnel) => {
                self.tunnels.insert(tunnel.name.clone(), (**tunnel).clone());
            }
            Change::Gone(name) => {
                self.tunnels.remove(name);
            }
            Change::Traffic(rows) => {
                for row in rows {
                    if let Some(tunnel) = self.tunnels.get_mut(&row.name) {
                        tunnel.traffic = row.traffic;
                    }
                }
            }
            Change::Status(_) | Change::Lost(_) => {}
        }
    }

    /// Takes the whole list, and finds what has changed meanwhile.
    fn replace(&mut self, list: Vec<Tunnel>) {
        let now: BTreeMap<_, _> = list.into_iter().map(|tunnel| (tunnel.name.clone(), tunnel)).collect();
        let mut found: Vec<_> =
            self.tunnels.keys().filter(|name| !now.contains_key(*name)).cloned().map(Change::Gone).collect();
        let same = |tunnel: &Tunnel| {
            let before = self.tunnels.get(&tunnel.name);
            before.is_some_and(|before| (before.state, &before.session) == (tunnel.state, &tunnel.session))
        };
        found
            .extend(now.values().filter(|tunnel| !same(tunnel)).map(|tunnel| Change::Tunnel(Box::new(tunnel.clone()))));
        found.reverse();
        (self.tunnels, self.found) = (now, found);
    }
}

/// Passes on what the daemon says, for as long as somebody takes it. A daemon that has left is asked again.
async fn follow(daemon: Daemon, first: Events, to: mpsc::Sender<Said>) {
    let mut events = Some(first);
    while !to.is_closed() {
        let Some(stream) = &mut events else {
            events = listen(&daemon).await.ok();
            if events.is_none() {
                sleep(AGAIN).await;
            }
            continue;
        };
        let said = match next(&daemon, stream).await {
            Ok(Some(said)) => said,
            Ok(None) => continue,
            Err(error) => {
                events = None;
                Said::One(Change::Lost(error))
            }
        };
        if to.send(said).await.is_err() {
            return;
        }
    }
}

/// The next thing that the daemon says. `None` if it is of no use here.
async fn next(daemon: &Daemon, events: &mut Events) -> anyhow::Result<Option<Said>> {
    let (name, data) = events.next().await?;
    Ok(Some(match name.as_str() {
        RESYNC => Said::All(list(daemon).await?),
        TUNNEL => Said::One(Change::Tunnel(Box::new(read(&data)?))),
        GONE => Said::One(Change::Gone(read::<Gone>(&data)?.name)),
        TRAFFIC => Said::One(Change::Traffic(read(&data)?)),
        STATUS => Said::One(Change::Status(Box::new(read(&data)?))),
        // A later daemon may say more.
        _ => return Ok(None),
    }))
}

/// The list of all tunnels.
pub(super) async fn list(daemon: &Daemon) -> anyhow::Result<Vec<Tunnel>> {
    let (status, text) =
        daemon.ask(Method::GET, TUNNELS, Vec::new()).await.map_err(|error| unanswered(daemon, error))?;
    ensure!(status != StatusCode::NOT_FOUND, "the daemon at {daemon} is older than this command; restart it");
    ensure!(
        status == StatusCode::OK,
        "the daemon at {daemon} answered {status}: {}",
        String::from_utf8_lossy(&text).trim()
    );
    read(&text)
}

async fn listen(daemon: &Daemon) -> anyhow::Result<Events> {
    daemon.listen(EVENTS).await.map_err(|error| unanswered(daemon, error))
}

fn read<T: DeserializeOwned>(data: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(data).context("the daemon's answer is not understood")
}

/// Why a daemon does not answer, with advice.
pub(super) fn unanswered(daemon: &Daemon, error: Unanswered) -> anyhow::Error {
    match error {
        Unanswered::Unreachable(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            anyhow!("cannot ask the daemon at {daemon}: {error}; run this as its user or as root")
        }
        Unanswered::Unreachable(error) => anyhow!("no daemon answers at {daemon}: {error}"),
        Unanswered::Lost(error) => error.context(format!("the daemon at {daemon}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Reachable, Traffic};
    use crate::admission::wire::Moment;

    fn tunnel(name: &str, session: &str) -> Tunnel {
        Tunnel {
            name: name.to_owned(),
            url: format!("https://{name}.tunnel.test"),
            state: Reachable::Online,
            since: Moment(std::time::SystemTime::UNIX_EPOCH),
            key_id: "k".to_owned(),
            key_name: None,
            session: Some(session.to_owned()),
            transport: Some("quic".to_owned()),
            client_version: None,
            client_address: None,
            traffic: Traffic::default(),
        }
    }

    #[tokio::test]
    async fn a_look_at_the_whole_list_finds_what_was_missed() {
        let (_sender, said) = mpsc::channel(1);
        let mut live = Live { said, tunnels: BTreeMap::new(), found: Vec::new() };
        live.replace(vec![tunnel("a", "1"), tunnel("b", "1"), tunnel("c", "1")]);
        live.found.clear();
        live.replace(vec![tunnel("a", "1"), tunnel("c", "2"), tunnel("d", "1")]);
        let mut found = Vec::new();
        while !live.found.is_empty() {
            found.push(match live.next().await.unwrap() {
                Change::Gone(name) => format!("-{name}"),
                Change::Tunnel(tunnel) => format!("+{}", tunnel.name),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(found, ["-b", "+c", "+d"]);
        assert_eq!(live.tunnels().keys().collect::<Vec<_>>(), ["a", "c", "d"]);
    }
}
