//! Publishes TXT records at the operator's own name server, by dynamic updates (RFC 2136) signed with a shared key
//! (TSIG, RFC 8945).
//!
//! It changes single records, so values of others stay. The base name and its wildcard need two values at one name.

mod key;
mod refusal;
mod update;

use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::lookup_host;

use self::refusal::refusal;
use self::update::{Change, Place};
use super::client::{Failure, ask, question};
use super::lookup::{DNS_PORT, LONGEST_CHAIN, NameServer, Resolver, alias};
use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};

pub use self::key::{Key, is_algorithm};

/// The longest string of a TXT record (RFC 1035, section 3.3). An ACME value has 43 bytes.
const LONGEST_VALUE: usize = 255;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The primary name server: a host or address, with a port if it is not 53.
    pub server: String,
    /// The zone to change. Without it, the server is asked for it.
    pub zone: Option<String>,
    /// The key that signs updates. Without it, the server can judge them by their address alone.
    pub key: Option<Key>,
}

/// The solver.
#[derive(Debug)]
pub struct Rfc2136 {
    challenge: Name,
    host: String,
    port: u16,
    zone: Option<Name>,
    key: Option<Key>,
}

/// True if the text names a server as in [`Settings::server`].
pub fn is_server(text: &str) -> bool {
    split(text).is_some()
}

impl Rfc2136 {
    /// A solver for the challenges of a domain.
    pub fn new(domain: &str, settings: Settings) -> Result<Self, SolverError> {
        let name = |text: &str| {
            parse_name(text).map_err(|why| SolverError::Setup(format!("{text:?} is not a DNS name: {why}")))
        };
        let (host, port) = split(&settings.server).ok_or_else(|| {
            SolverError::Setup(format!(
                "{:?} is no DNS server: give its name or address, and its port if it is not {DNS_PORT}",
                settings.server
            ))
        })?;
        Ok(Self {
            challenge: name(&challenge_name(domain))?,
            host,
            port,
            zone: settings.zone.as_deref().map(name).transpose()?,
            key: settings.key,
        })
    }

    async fn change(&self, value: &str, change: Change) -> Result<(), SolverError> {
        if value.len() > LONGEST_VALUE {
            return Err(SolverError::Unavailable(format!(
                "the ACME server asks for a TXT record of {} bytes; at most {LONGEST_VALUE} are possible",
                value.len()
            )));
        }
        let place = self.place().await?;
        let (server, answer) = self.ask(&place.update(value, change)).await?;
        if answer.response_code == ResponseCode::NoError {
            return Ok(());
        }
        Err(refusal(server, &place, self.key.as_ref(), &answer))
    }

    /// Where the challenge's values belong: at its own name, or at the target of its CNAME record.
    async fn place(&self) -> Result<Place, SolverError> {
        let mut name = self.challenge.clone();
        for _ in 0..LONGEST_CHAIN {
            let (server, answer) = self.ask(&question(&name, RecordType::SOA, false)).await?;
            if let Some(target) = alias(&answer, &name) {
                name = target;
                continue;
            }
            let soa = answer.answers.iter().chain(&answer.authorities).find(|record| {
                record.record_type() == RecordType::SOA && answer.authoritative && record.name.zone_of(&name)
            });
            if let Some(zone) = self.zone.clone().or_else(|| soa.map(|soa| soa.name.clone())) {
                if soa.is_none()
                    && let Some(target) = known_elsewhere(&name).await
                {
                    name = target;
                    continue;
                }
                if !zone.zone_of(&name) {
                    return Err(SolverError::Setup(format!(
                        "{name} is not in the zone {zone}, which is to be changed"
                    )));
                }
                let served = soa.is_some_and(|soa| soa.name == zone);
                return Ok(Place { zone, name, served });
            }
            if answer.response_code == ResponseCode::NotAuth {
                let zone = name.clone();
                return Err(refusal(server, &Place { zone, name, served: false }, self.key.as_ref(), &answer));
            }
            match known_elsewhere(&name).await {
                Some(target) => name = target,
                None => {
                    return Err(SolverError::Setup(format!(
                        "{server} serves no zone that {name} is in (it answers {}): name the primary server of that \
                         zone, or let a CNAME record there lead into a zone that it serves",
                        answer.response_code
                    )));
                }
            }
        }
        Err(SolverError::Setup(format!("the CNAME records at {} form a loop", self.challenge)))
    }

    /// Sends a message to the first address of the server that answers.
    async fn ask(&self, message: &Message) -> Result<(SocketAddr, Message), SolverError> {
        let mut last = None;
        for address in self.addresses().await? {
            match ask(address, message.clone(), self.key.as_ref().map(|key| &key.0)).await {
                Ok(answer) => return Ok((address, answer)),
                Err(failure) => last = Some(failure),
            }
        }
        Err(match last {
            Some(Failure::Request(why)) => SolverError::Setup(why),
            Some(failure) => SolverError::Unavailable(failure.to_string()),
            None => SolverError::Unavailable(format!("the DNS server {} has no address", self.host)),
        })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, SolverError> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| {
            SolverError::Unavailable(format!("the DNS server {} has no address: {error}", self.host))
        })?;
        Ok(found.collect())
    }
}

impl Solver for Rfc2136 {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Add))
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Remove))
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            // The primary has the values, or `present` would have failed. Its secondaries get them a little later.
            let name = self.place().await.map_or_else(|_| self.challenge.clone(), |place| place.name);
            let addresses = self.addresses().await.unwrap_or_default();
            let primary = NameServer { name: self.host.clone(), addresses };
            propagation::settled(&name, values, Some(primary)).await;
        })
    }
}

/// The target of a CNAME record in a zone that our server does not serve.
async fn known_elsewhere(name: &Name) -> Option<Name> {
    let target = Resolver::system().await.ok()?.target(name).await.ok()?;
    (target != *name).then_some(target)
}

/// Parses `host`, `host:port`, an address, or an address in brackets with a port.
fn split(server: &str) -> Option<(String, u16)> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    if let Ok(address) = server.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        return Some((address.to_string(), DNS_PORT));
    }
    let (host, port) = match server.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (server, DNS_PORT),
    };
    parse_name(host).is_ok().then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str, zone: Option<&str>) -> Settings {
        Settings { server: server.to_owned(), zone: zone.map(str::to_owned), key: None }
    }

    #[test]
    fn a_server_is_a_host_or_an_address_with_or_without_a_port() {
        for (text, host, port) in [
            ("ns1.example.com", "ns1.example.com", 53),
            ("ns1.example.com:5353", "ns1.example.com", 5353),
            ("192.0.2.1", "192.0.2.1", 53),
            ("192.0.2.1:5353", "192.0.2.1", 5353),
            ("2001:db8::1", "2001:db8::1", 53),
            ("[2001:db8::1]", "2001:db8::1", 53),
            ("[2001:db8::1]:5353", "2001:db8::1", 5353),
        ] {
            assert_eq!(split(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in ["", ":53", "host:", "host:x", "host:99999", "a..b", "[::1", "1.2.3.4:53:53"] {
            let result = Rfc2136::new("tunnel.example.com", settings(text, None));
            // An unclosed bracket is accepted; all else is refused.
            assert!(text == "[::1" || matches!(result, Err(SolverError::Setup(_))), "{text}");
        }
        assert!(Rfc2136::new("a..b", settings("192.0.2.1", None)).is_err());
        assert!(Rfc2136::new("a.example", settings("192.0.2.1", Some("b..c"))).is_err());
    }
}
