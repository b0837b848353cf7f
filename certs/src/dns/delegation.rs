//! Checks whether the zones above hold the records that lead to the embedded responder, and names those that are
//! missing.
//!
//! It asks those zones' own servers, so no cache answers, and it asks nothing of the responder itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::client::{ask, question};
use super::embedded::{NS_TTL, Zone};
use super::finding::{Finding, address_record, list};
use super::lookup::{NameServer, Resolver, Unknown, alias};
use super::{challenge_name, parse_name};

/// The longest that the whole check may take. With servers that answer, it takes a second or two.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// Checks all records above a zone that an ACME server needs to find it. The result is empty if all are right.
/// `resolver` replaces the system's.
pub async fn advise(zone: &Zone, domain: &str, resolver: Option<SocketAddr>) -> Vec<Finding> {
    match Resolver::chosen(resolver).await {
        Ok(resolver) => advise_by(&resolver, zone, domain).await,
        Err(error) => vec![Finding::Unknown(error.to_string())],
    }
}

async fn advise_by(resolver: &Resolver, zone: &Zone, domain: &str) -> Vec<Finding> {
    let mut look = Look { resolver, zone, findings: Vec::new() };
    let whole = async {
        if let Err(error) = look.check_alias(domain).await {
            look.findings.push(Finding::Unknown(error));
        }
        if let Err(error) = look.check_delegation().await {
            look.findings.push(Finding::Unknown(error));
        }
    };
    if timeout(LONGEST_LOOK, whole).await.is_err() {
        look.findings.push(Finding::Unknown(format!("it took longer than {} s", LONGEST_LOOK.as_secs())));
    }
    look.findings
}

struct Look<'a> {
    resolver: &'a Resolver,
    zone: &'a Zone,
    findings: Vec<Finding>,
}

/// The records of a delegation in the parent zone.
struct Delegation {
    servers: Vec<Name>,
    /// Names with their addresses there.
    glue: Vec<(Name, IpAddr)>,
}

impl Look<'_> {
    /// If the zone is not named after the challenge, a CNAME record must lead from the challenge to it.
    async fn check_alias(&mut self, domain: &str) -> Result<(), String> {
        let (challenge, apex) = (parse_name(&challenge_name(domain))?, self.zone.apex_name());
        if self.zone.host().is_some() || challenge == *apex {
            return Ok(());
        }
        let (parent, answer) = self.ask_above(&challenge, RecordType::CNAME).await?;
        match alias(&answer, &challenge) {
            Some(target) if target == *apex => {}
            Some(target) => self.findings.push(Finding::Wrong(format!(
                "the CNAME record at {challenge} leads to {target}, where this daemon does not answer; it should be: {}",
                cname(&challenge, apex)
            ))),
            None => self.missing(&parent, cname(&challenge, apex)),
        }
        Ok(())
    }

    /// The zone must be delegated to our name server, and that needs an address.
    async fn check_delegation(&mut self) -> Result<(), String> {
        let (apex, server) = (self.zone.apex_name(), self.zone.name_server());
        let (parent, answer) = self.ask_above(apex, RecordType::NS).await?;
        if let Some(target) = alias(&answer, apex) {
            self.findings.push(Finding::Wrong(format!(
                "a CNAME record at {apex} leads to {target}: set challenge_name to that name, or replace the record by: {}",
                self.zone.delegation()
            )));
            return Ok(());
        }
        let delegation = Delegation::read(&answer, apex);
        if !delegation.servers.contains(server) {
            for other in &delegation.servers {
                self.findings.push(Finding::Wrong(format!(
                    "{apex} is delegated to {other}, which is not this daemon's name ({server})"
                )));
            }
            self.missing(&parent, self.zone.delegation());
        }
        let addresses = self.check_addresses(&parent, &delegation).await?;
        if delegation.servers.contains(server) {
            for other in delegation.servers.iter().filter(|other| *other != server) {
                let others = self.resolver.addresses(other).await.unwrap_or_default();
                // Many operators give the same machine a second name where two are required.
                if !others.iter().all(|address| addresses.contains(address)) {
                    self.findings.push(Finding::Wrong(format!(
                        "{apex} is delegated to {other} as well; only this daemon has the values, so remove that record"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The addresses of our name server. Below the delegation they are in the parent zone (glue), otherwise in another.
    async fn check_addresses(&mut self, parent: &Name, delegation: &Delegation) -> Result<Vec<IpAddr>, String> {
        let (apex, server) = (self.zone.apex_name(), self.zone.name_server());
        let mine = self.zone.host().map(|host| host.addresses.as_slice()).unwrap_or_default();
        let (zone, found) = if apex.zone_of(server) {
            let glue = delegation.glue.iter().filter(|(name, _)| name == server).map(|(_, address)| *address);
            (parent.clone(), glue.collect())
        } else {
            let found = self.resolver.addresses(server).await.map_err(|error| error.to_string())?;
            let target = self.resolver.target(server).await.map_err(|error| error.to_string())?;
            if target != *server {
                self.findings.push(Finding::Wrong(format!(
                    "{server} is a CNAME record; a name server's name has to have addresses itself (RFC 2181, section \
                     10.3)"
                )));
            }
            let zone = if found.is_empty() { self.resolver.zone(server).await } else { Ok(parent.clone()) };
            (zone.map_err(|error| error.to_string())?, found)
        };
        if found.is_empty() {
            if mine.is_empty() {
                self.missing(&zone, format!("{server} {NS_TTL} IN A <the public address of this machine>"));
            }
            for address in mine {
                self.missing(&zone, address_record(&server.to_ascii(), NS_TTL, *address));
            }
        } else if !mine.is_empty() && !found.iter().any(|address| mine.contains(address)) {
            let (found, mine) = (list(&found), list(mine));
            self.findings
                .push(Finding::Wrong(format!("{server} has the address {found}, and not this machine's {mine}")));
        }
        Ok(found)
    }

    fn missing(&mut self, zone: &Name, record: String) {
        self.findings.push(Finding::missing(zone, record));
    }

    /// The answer of the parent zone's servers about a name, with the parent zone.
    async fn ask_above(&self, name: &Name, kind: RecordType) -> Result<(Name, Message), String> {
        let words = |error: Unknown| error.to_string();
        let parent = self.resolver.zone(&name.base_name()).await.map_err(words)?;
        let mut why = String::new();
        for NameServer { name: server, addresses } in self.resolver.servers(&parent).await.map_err(words)? {
            for address in addresses {
                match ask(address, question(name, kind, false), None).await {
                    Ok(answer) if is_about(&answer, name) => return Ok((parent, answer)),
                    Ok(answer) => {
                        why = format!("{server} ({address}) answers {} for {name}", answer.response_code);
                        if let Some(cut) =
                            answer.authorities.iter().find(|record| record.record_type() == RecordType::NS)
                        {
                            why = format!("{server} ({address}) delegates {}, which {name} lies in", cut.name);
                        }
                    }
                    Err(failure) => why = failure.to_string(),
                }
            }
        }
        Err(why)
    }
}

impl Delegation {
    fn read(answer: &Message, apex: &Name) -> Self {
        let servers = answer.answers.iter().chain(&answer.authorities).filter(|record| record.name == *apex);
        let servers = servers.filter_map(|record| match &record.data {
            RData::NS(server) => Some(server.0.to_lowercase()),
            _ => None,
        });
        let glue = answer.additionals.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some((record.name.clone(), IpAddr::from(address.0))),
            RData::AAAA(address) => Some((record.name.clone(), IpAddr::from(address.0))),
            _ => None,
        });
        Self { servers: servers.collect(), glue: glue.collect() }
    }
}

/// True if the answer is about the name itself: its records, their absence, or its delegation.
fn is_about(answer: &Message, name: &Name) -> bool {
    let known = matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    known
        && (answer.authoritative
            || answer.authorities.iter().any(|record| record.record_type() == RecordType::NS && record.name == *name))
}

fn cname(from: &Name, to: &Name) -> String {
    format!("{from} {NS_TTL} IN CNAME {to}")
}

#[cfg(test)]
mod tests;
