//! Waits until all servers of a zone publish the values, since an ACME server may ask any of them.
//!
//! It never fails: the order goes on whatever it finds.

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

/// The longest wait for the servers. Most providers take less than a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// The longest search for the zone's servers.
const LONGEST_SEARCH: Duration = Duration::from_secs(15);
/// The pause after the first look. It doubles after each of the next...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ...up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The result of a look at one server.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    All,
    NotYet,
    /// It gives no usable answer, so waiting for it is useless.
    Unknown(String),
}

/// Resolves once all servers of a name publish the values, or once waiting is useless. `primary` is a known server.
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
    let mut unclear = Vec::new();
    if timeout(longest_wait, watch(&mut servers, &name, values, &mut unclear)).await.is_err() {
        let servers = servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ");
        warn!(event = "not_seen", %name, servers, "the TXT records at {name} are not seen at {servers}; going on");
    } else if !unclear.is_empty() {
        let why = one_line(&unclear.join("; "));
        warn!(event = "not_looked", %name, why, "cannot see at every server whether the TXT records at {name} are there: {why}");
    }
}

/// Looks repeatedly until no server lacks a value. `servers` keeps those that do. `unclear` collects why others give no
/// usable answer.
async fn watch(servers: &mut Vec<NameServer>, name: &Name, values: &[String], unclear: &mut Vec<String>) {
    let values: Arc<[String]> = values.into();
    let mut pause = FIRST_PAUSE;
    loop {
        // All at once, since an unreachable server answers late.
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
                Seen::Unknown(why) => unclear.push(why),
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

/// The name that holds the values, and its servers.
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

/// Asks the addresses of a server one by one until it answers.
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
