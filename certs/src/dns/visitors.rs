//! Checks whether the domain and the names under it lead visitors to this machine, and names the records that are missing.
//!
//! It asks the zone's own servers, so no cache answers. It opens no connection to the addresses that it finds.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::client::{ask, question};
use super::embedded::NS_TTL;
use super::finding::{Finding, address_record, list};
use super::lookup::{Resolver, Unknown, alias};
use super::parse_name;

/// The longest that the whole check may take. With servers that answer, it takes a second or two.
const LONGEST_LOOK: Duration = Duration::from_secs(20);

/// Where visitors should arrive, for each family of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisitorAddresses {
    /// Those of IPv4.
    pub v4: FamilyAddresses,
    /// Those of IPv6.
    pub v6: FamilyAddresses,
}

/// Where visitors should arrive over IPv4, or over IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyAddresses {
    /// Addresses of this machine, or those that lead to it.
    pub own: Vec<IpAddr>,
    /// Those of them that records should have. Without any, they are not known.
    pub public: Vec<IpAddr>,
    /// True if no other address leads here, as those of a router or a load balancer do.
    pub complete: bool,
}

impl VisitorAddresses {
    fn families(&self) -> [&FamilyAddresses; 2] {
        [&self.v4, &self.v6]
    }

    fn public(&self) -> impl Iterator<Item = IpAddr> {
        self.families().into_iter().flat_map(|family| family.public.iter().copied())
    }
}

/// Checks the addresses of a domain and of the names directly under it. The result is empty if all are right. `resolver`
/// replaces the system's.
pub async fn advise(domain: &str, here: &VisitorAddresses, resolver: Option<SocketAddr>) -> Vec<Finding> {
    match Resolver::chosen(resolver).await {
        Ok(resolver) => advise_by(&resolver, domain, here).await,
        Err(error) => vec![Finding::Unknown(error.to_string())],
    }
}

async fn advise_by(resolver: &Resolver, domain: &str, here: &VisitorAddresses) -> Vec<Finding> {
    // No resolver has an answer for this name yet.
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let any_name = format!("cokd-check-{:x}.{domain}", moment.as_micros());
    let mut findings = Vec::new();
    let whole = async {
        for (asked, shown) in [(domain, format!("{domain}.")), (&any_name, format!("*.{domain}."))] {
            match found(resolver, asked).await {
                Ok((zone, addresses)) => judge(&zone, &shown, &addresses, here, &mut findings),
                Err(why) => {
                    findings.push(Finding::Unknown(why));
                    return;
                }
            }
        }
    };
    if timeout(LONGEST_LOOK, whole).await.is_err() {
        findings.push(Finding::Unknown(format!("it took longer than {} s", LONGEST_LOOK.as_secs())));
    }
    findings
}

/// Compares the addresses of a name with those of this machine, each family on its own. A machine may have a public IPv6
/// address of its own, while a router has the IPv4 one.
fn judge(zone: &Name, shown: &str, found: &[IpAddr], here: &VisitorAddresses, findings: &mut Vec<Finding>) {
    if found.is_empty() {
        findings.extend(records(shown, here).into_iter().map(|record| Finding::missing(zone, record)));
        return;
    }
    let (found_v4, found_v6): (Vec<_>, Vec<_>) = found.iter().copied().partition(IpAddr::is_ipv4);
    for (found, family) in [(found_v4, &here.v4), (found_v6, &here.v6)] {
        findings.extend(judge_family(shown, &found, family, here));
    }
}

/// The same for the addresses of one family.
fn judge_family(shown: &str, found: &[IpAddr], family: &FamilyAddresses, here: &VisitorAddresses) -> Option<Finding> {
    let others: Vec<_> = found.iter().copied().filter(|address| !family.own.contains(address)).collect();
    let first = others.first()?;
    let leads = list(&others);
    if others.len() < found.len() {
        return Some(Finding::Elsewhere(format!(
            "{shown} leads here, and to {leads} as well; that has to forward to this machine"
        )));
    }
    if family.complete && !family.public.is_empty() {
        let right: Vec<_> = family.public.iter().map(|address| address_record(shown, NS_TTL, *address)).collect();
        return Some(Finding::Wrong(format!(
            "{shown} leads to {leads}, and not to this machine; it should be: {}",
            right.join(" and ")
        )));
    }
    let own = if family.public.is_empty() { &family.own } else { &family.public };
    let own = if own.is_empty() { here.public().collect() } else { own.clone() };
    let own = if own.is_empty() { String::new() } else { format!(" ({})", list(&own)) };
    Some(Finding::Elsewhere(format!(
        "{shown} leads to {leads}, which has to forward to this machine{own}; --address {first} says that it does"
    )))
}

/// The records that a name without any should have. Most machines with a private IPv4 address share a public one. IPv6
/// has no such habit.
fn records(shown: &str, here: &VisitorAddresses) -> Vec<String> {
    let is_shared = here.v4.public.is_empty() && here.v4.own.iter().any(|address| !address.is_loopback());
    let mut records = Vec::new();
    if is_shared || here.public().next().is_none() {
        records.push(format!("{shown} {NS_TTL} IN A <the public address of this machine>"));
    }
    records.extend(here.public().map(|address| address_record(shown, NS_TTL, address)));
    records
}

/// The addresses of a name, as the servers of its zone have them, and that zone.
async fn found(resolver: &Resolver, name: &str) -> Result<(Name, Vec<IpAddr>), String> {
    let words = |error: Unknown| error.to_string();
    let name = parse_name(name)?;
    let zone = resolver.zone(&name).await.map_err(words)?;
    let mut why = String::new();
    for server in resolver.servers(&zone).await.map_err(words)? {
        for address in server.addresses {
            match asked_at(resolver, address, &name).await {
                Ok(addresses) => return Ok((zone, addresses)),
                Err(failure) => why = failure,
            }
        }
    }
    Err(why)
}

/// The addresses of a name at one server of its zone. It follows an alias by the resolver.
async fn asked_at(resolver: &Resolver, server: SocketAddr, name: &Name) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = ask(server, question(name, kind, false), None).await.map_err(|failure| failure.to_string())?;
        let known = matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        if !known || !answer.authoritative {
            return Err(format!("{server} gives no answer of its own for {name}: {}", answer.response_code));
        }
        if let Some(target) = alias(&answer, name) {
            return resolver.addresses(&target).await.map_err(|error| error.to_string());
        }
        addresses.extend(answer.answers.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::from(address.0)),
            RData::AAAA(address) => Some(IpAddr::from(address.0)),
            _ => None,
        }));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::knot::{self, Knot};

    const MINE: &str = "192.0.2.1";
    const MINE_6: &str = "2001:db8::1";

    fn family(own: &[&str], public: &[&str], complete: bool) -> FamilyAddresses {
        let parse = |texts: &[&str]| texts.iter().map(|address| address.parse().unwrap()).collect();
        FamilyAddresses { own: parse(own), public: parse(public), complete }
    }

    fn here(complete: bool) -> VisitorAddresses {
        VisitorAddresses {
            v4: family(&[MINE, "10.0.0.1"], &[MINE], complete),
            v6: family(&[MINE_6], &[MINE_6], complete),
        }
    }

    /// A machine whose IPv4 address is a router's.
    fn behind_a_router() -> VisitorAddresses {
        VisitorAddresses { v4: family(&["127.0.0.1", "10.0.0.1"], &[], true), v6: family(&[MINE_6], &[MINE_6], true) }
    }

    async fn lines(records: &str, here: &VisitorAddresses) -> Vec<String> {
        let records = format!("@ 60 IN NS ns\nns 60 IN A 127.0.0.1\n{records}");
        let zone = knot::Zone { name: "example.com", records: &records, settings: "" };
        let server = Knot::start("127.0.0.1", "", &[zone]);
        let mut resolver = Resolver::at(server.address);
        resolver.port = server.address.port();
        advise_by(&resolver, "tunnel.example.com", here).await.iter().map(Finding::to_string).collect()
    }

    #[tokio::test]
    async fn both_names_need_an_address_of_this_machine() {
        let both = format!("tunnel 60 IN A {MINE}\n*.tunnel 60 IN A {MINE}\n*.tunnel 60 IN AAAA {MINE_6}");
        assert_eq!(lines(&both, &here(true)).await, [""; 0]);
        let alias = format!("tunnel 60 IN A {MINE}\n*.tunnel 60 IN CNAME tunnel");
        assert_eq!(lines(&alias, &here(true)).await, [""; 0]);
        let missing = |record: &str| format!("missing in the zone example.com: {record}");
        assert_eq!(
            lines(&format!("tunnel 60 IN A {MINE}"), &here(true)).await,
            [
                missing(&format!("*.tunnel.example.com. 3600 IN A {MINE}")),
                missing(&format!("*.tunnel.example.com. 3600 IN AAAA {MINE_6}")),
            ]
        );
        let unknown = VisitorAddresses::default();
        assert_eq!(
            lines("", &unknown).await,
            ["tunnel", "*.tunnel"].map(|name| {
                missing(&format!("{name}.example.com. 3600 IN A <the public address of this machine>"))
            })
        );
    }

    #[tokio::test]
    async fn addresses_of_other_machines_are_named() {
        let elsewhere = format!("tunnel 60 IN A 192.0.2.9\n*.tunnel 60 IN A {MINE}\n*.tunnel 60 IN A 192.0.2.9");
        let found = lines(&elsewhere, &here(true)).await;
        assert_eq!(
            found,
            [
                "tunnel.example.com. leads to 192.0.2.9, and not to this machine; it should be: tunnel.example.com. 3600 \
                 IN A 192.0.2.1",
                "*.tunnel.example.com. leads here, and to 192.0.2.9 as well; that has to forward to this machine",
            ]
        );
        let found = lines("tunnel 60 IN A 192.0.2.9\n*.tunnel 60 IN CNAME tunnel", &behind_a_router()).await;
        let forwards = "leads to 192.0.2.9, which has to forward to this machine (127.0.0.1, 10.0.0.1)";
        assert!(found.len() == 2 && found[0].contains(forwards), "{found:?}");
        // Both families are named if there is none.
        let found = lines("", &behind_a_router()).await;
        assert!(
            found.len() == 4
                && found[0].ends_with("tunnel.example.com. 3600 IN A <the public address of this machine>")
        );
        assert!(found[1].ends_with("tunnel.example.com. 3600 IN AAAA 2001:db8::1"), "{found:?}");
    }

    #[test]
    fn only_what_is_certain_is_a_fault() {
        let zone = parse_name("example.com").unwrap();
        let judge_at = |here: &VisitorAddresses, found: &[&str]| {
            let found: Vec<IpAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
            let mut findings = Vec::new();
            judge(&zone, "tunnel.example.com.", &found, here, &mut findings);
            findings.iter().any(Finding::is_fault)
        };
        let judged = |found: &[&str], complete| judge_at(&here(complete), found);
        assert!(judged(&[], true) && judged(&[], false) && judged(&["192.0.2.9"], true));
        assert!(!judged(&["192.0.2.9"], false) && !judged(&["192.0.2.9", MINE], true) && !judged(&["10.0.0.1"], true));
        // Each family on its own.
        let judged = |found: &[&str]| judge_at(&behind_a_router(), found);
        assert!(!judged(&["192.0.2.9"]) && !judged(&["192.0.2.9", MINE_6]));
        assert!(judged(&["192.0.2.9", "2001:db8::9"]) && judged(&["2001:db8::9"]) && judged(&[]));
    }
}
