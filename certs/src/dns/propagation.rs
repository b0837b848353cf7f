//! Waits until values can be seen at all servers of a zone, since an ACME server may ask any of them.
//!
//! It advises: whatever it finds or not, the order goes on.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::client::{ask, question};
use super::lookup::{NameServer, Resolver, Unknown};
use crate::one_line::one_line;

/// How long the servers are waited for. Most providers have all of theirs within a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// How long it may take to find out which servers there are.
const LONGEST_SEARCH: Duration = Duration::from_secs(15);
/// The pause after the first look, which doubles after each of the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And does not grow beyond this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a server knows.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    All,
    NotYet,
    /// It does not tell, so that there is nothing to wait for.
    Unknown(String),
}

/// Resolves once all values stand at a name on all its servers, or once waiting longer is of no use. `primary` is a
/// server that is known already.
pub(super) async fn settled(name: &Name, values: &[String], primary: Option<NameServer>) {
    let resolver = Resolver::system().await;
    settled_by(resolver, name, values, primary, LONGEST_WAIT).await;
}

async fn settled_by(
    resolver: Result<Resolver, Unknown>,
    name: &Name,
    values: &[String],
    primary: Option<NameServer>,
    longest_wait: Duration,
) {
    let mut servers: Vec<_> = primary.into_iter().collect();
    let (name, found) = match timeout(LONGEST_SEARCH, search(resolver, name)).await {
        Ok((target, found)) => (target, found.map_err(|error| error.to_string())),
        Err(_) => (name.clone(), Err("the resolver is too slow".to_owned())),
    };
    match found {
        Ok(found) => servers.extend(found),
        Err(why) if servers.is_empty() => {
            let why = one_line(&why);
            warn!(event = "not_looked", %name, why, "cannot see whether the TXT records at {name} are there; going on: {why}");
            return;
        }
        Err(why) => debug!(%name, why, "looking at the primary name server alone"),
    }
    let mut strange = Vec::new();
    if timeout(longest_wait, watch(&mut servers, &name, values, &mut strange)).await.is_err() {
        let servers = servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ");
        warn!(event = "not_seen", %name, servers, "the TXT records at {name} are not seen at {servers}; going on");
    } else if !strange.is_empty() {
        let why = one_line(&strange.join("; "));
        warn!(event = "not_looked", %name, why, "cannot see at every server whether the TXT records at {name} are there: {why}");
    }
}

/// Looks again and again until no server lacks a value. Of `servers` those are left that do; `strange` gets what keeps
/// others from telling.
async fn watch(servers: &mut Vec<NameServer>, name: &Name, values: &[String], strange: &mut Vec<String>) {
    let values: Arc<[String]> = values.into();
    let mut pause = FIRST_PAUSE;
    loop {
        // All at once, as one that is away takes its time to show it.
        let mut looks = JoinSet::new();
        for server in servers.clone() {
            let (name, values) = (name.clone(), Arc::clone(&values));
            looks.spawn(async move {
                let seen = look(&server, &name, &values).await;
                (server, seen)
            });
        }
        while let Some(looked) = looks.join_next().await {
            let Ok((server, seen)) = looked else { continue };
            match seen {
                Seen::NotYet => continue,
                Seen::All => debug!(%name, server = server.name, "all TXT records are there"),
                Seen::Unknown(why) => strange.push(why),
            }
            servers.retain(|other| *other != server);
        }
        if servers.is_empty() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The name that the values stand at and its servers.
async fn search(resolver: Result<Resolver, Unknown>, name: &Name) -> (Name, Result<Vec<NameServer>, Unknown>) {
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(error) => return (name.clone(), Err(error)),
    };
    let target = resolver.target(name).await.unwrap_or_else(|_| name.clone());
    let servers = async { resolver.servers(&resolver.zone(&target).await?).await };
    let servers = servers.await;
    (target, servers)
}

/// Asks the addresses of a server until one answers.
async fn look(server: &NameServer, name: &Name, values: &[String]) -> Seen {
    let mut why = format!("{} has no address", server.name);
    for address in &server.addresses {
        match ask(*address, question(name, RecordType::TXT, false), None).await {
            Ok(answer) if matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                let there: Vec<Vec<u8>> = answer
                    .answers
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::TXT(text) => Some(text.txt_data.concat()),
                        _ => None,
                    })
                    .collect();
                let all = values.iter().all(|value| there.iter().any(|text| text == value.as_bytes()));
                return if all { Seen::All } else { Seen::NotYet };
            }
            Ok(answer) => why = format!("{} answers {}", server.name, answer.response_code),
            Err(failure) => why = failure.to_string(),
        }
    }
    Seen::Unknown(why)
}

#[cfg(test)]
mod tests;
