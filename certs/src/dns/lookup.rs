//! Finds zones and their servers through a resolver: the system's, or a given one.
//!
//! It has no cache.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::client::{Failure, ask, question};

/// The file with the system's resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most resolvers of that file, as in glibc (MAXNS).
const MOST_RESOLVERS: usize = 3;
/// The port of name servers.
pub(super) const DNS_PORT: u16 = 53;
/// The most servers of a zone that are asked for.
const MOST_SERVERS: usize = 13;
/// The most addresses of a server that are used.
const MOST_ADDRESSES: usize = 4;
/// The longest chain of CNAME records. A longer one is taken for a loop.
pub(super) const LONGEST_CHAIN: usize = 8;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    /// The system has no resolver.
    #[error("{RESOLV_CONF} names no resolver: {0}")]
    NoResolver(String),
    /// The resolver could not be asked.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The resolver refused an answer.
    #[error("the resolver {resolver} answers {code} when asked for {kind} of {name}")]
    Refused {
        /// The resolver.
        resolver: SocketAddr,
        /// The question.
        name: Name,
        /// The question.
        kind: RecordType,
        /// Its response code.
        code: ResponseCode,
    },
    /// The resolver knows no zone of this name.
    #[error("the resolver knows no zone that {0} is in")]
    NoZone(Name),
    /// The resolver knows no address of the zone's servers.
    #[error("the resolver knows no address of a name server of the zone {0}")]
    NoServers(Name),
}

/// The resolvers to ask. Each is asked if the one before it fails.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    resolvers: Vec<SocketAddr>,
    /// The port of the servers that are found. Tests cannot use port 53.
    pub(super) port: u16,
}

/// A server of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameServer {
    /// Its name, or its address if it was given as an address.
    pub(super) name: String,
    /// Its addresses, of which one is enough.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Resolver {
    /// The system's resolvers.
    pub(super) async fn system() -> Result<Self, Unknown> {
        let path = Path::new(RESOLV_CONF);
        let text = tokio::fs::read_to_string(path).await.map_err(|error| Unknown::NoResolver(error.to_string()))?;
        let resolvers = nameservers(&text);
        if resolvers.is_empty() {
            return Err(Unknown::NoResolver("no line `nameserver` with an address".to_owned()));
        }
        Ok(Self { resolvers, port: DNS_PORT })
    }

    /// The resolver at `address`, or else the system's.
    pub(super) async fn chosen(address: Option<SocketAddr>) -> Result<Self, Unknown> {
        match address {
            Some(address) => Ok(Self::at(address)),
            None => Self::system().await,
        }
    }

    /// The resolver at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { resolvers: vec![address], port: DNS_PORT }
    }

    /// A resolver's answer. The absence of a name or record is an answer.
    pub(super) async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Message, Unknown> {
        let mut last = Unknown::NoResolver(String::new());
        for resolver in &self.resolvers {
            match ask(*resolver, question(name, kind, true), None).await {
                Ok(answer) if matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let (name, code) = (name.clone(), answer.response_code);
                    last = Unknown::Refused { resolver: *resolver, name, kind, code };
                }
                Err(failure) => last = failure.into(),
            }
        }
        Err(last)
    }

    /// The topmost name of the zone that a name is in.
    pub(super) async fn zone(&self, name: &Name) -> Result<Name, Unknown> {
        let mut at = name.clone();
        while !at.is_root() {
            let answer = match self.look_up(&at, RecordType::SOA).await {
                Ok(answer) => answer,
                // The zone at this name may be broken while the one above it works.
                Err(Unknown::Refused { .. }) => Message::query(),
                Err(error) => return Err(error),
            };
            let found = answer
                .answers
                .iter()
                .chain(&answer.authorities)
                // Behind a CNAME record, it is the SOA record of another zone.
                .find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(&at));
            match found {
                Some(record) if !record.name.is_root() => return Ok(record.name.clone()),
                _ => at = at.base_name(),
            }
        }
        Err(Unknown::NoZone(name.clone()))
    }

    /// The servers of a zone that have an address.
    pub(super) async fn servers(&self, zone: &Name) -> Result<Vec<NameServer>, Unknown> {
        let answer = self.look_up(zone, RecordType::NS).await?;
        let mut servers = Vec::new();
        for record in answer.answers.iter().take(MOST_SERVERS) {
            let RData::NS(name) = &record.data else { continue };
            let addresses = self.addresses(&name.0).await.unwrap_or_default();
            if !addresses.is_empty() {
                let addresses = addresses.into_iter().map(|address| (address, self.port).into()).collect();
                servers.push(NameServer { name: name.0.to_ascii(), addresses });
            }
        }
        if servers.is_empty() { Err(Unknown::NoServers(zone.clone())) } else { Ok(servers) }
    }

    /// The addresses of a host; empty if it has none.
    pub(super) async fn addresses(&self, host: &Name) -> Result<Vec<IpAddr>, Unknown> {
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = self.look_up(host, kind).await?;
            addresses.extend(answer.answers.iter().filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::from(address.0)),
                RData::AAAA(address) => Some(IpAddr::from(address.0)),
                _ => None,
            }));
        }
        addresses.truncate(MOST_ADDRESSES);
        Ok(addresses)
    }

    /// The target of the CNAME records at a name. Without any, it is the name itself.
    pub(super) async fn target(&self, name: &Name) -> Result<Name, Unknown> {
        let mut at = name.clone();
        for _ in 0..LONGEST_CHAIN {
            let answer = self.look_up(&at, RecordType::CNAME).await?;
            match alias(&answer, &at) {
                Some(target) => at = target,
                None => break,
            }
        }
        Ok(at)
    }
}

/// The target of a name's CNAME record in an answer.
pub(super) fn alias(answer: &Message, name: &Name) -> Option<Name> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
        _ => None,
    })
}

/// Parses the lines `nameserver` of resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        // An address with an interface (`fe80::1%eth0`) is left out.
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| (address, DNS_PORT).into())
        .take(MOST_RESOLVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 # x\n\
                    nameserver\nnameserver host.example\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"];
        assert_eq!(nameservers(text), expected.map(|address| address.parse::<SocketAddr>().unwrap()));
        assert!(nameservers("").is_empty());
    }
}
