//! The zone that the responder answers for: which records each name has.

use std::net::IpAddr;

use hickory_proto::rr::rdata::svcb::{Alpn, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CAA, HTTPS, NS, SOA, SVCB, TXT};
use hickory_proto::rr::{Name, RData, RecordType};

use super::published::Published;
use crate::dns::{challenge_name, parse_name};

/// The time to live of challenge values, and of their absence. They change within seconds, so no resolver may cache
/// them.
const CHALLENGE_TTL: u32 = 0;
/// The time to live of the other records, in seconds: short enough to move the daemon to another address.
const HOST_TTL: u32 = 300;
/// The time to live of the delegation's records, in seconds.
pub(in crate::dns) const NS_TTL: u32 = 3600;

/// Timers of the SOA record, in seconds. Only secondaries use them, and there are none, so these are common values.
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 86400;

/// A setting that is not a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a DNS name: {why}")]
pub struct ZoneError {
    /// The given text.
    pub name: String,
    /// What to correct.
    pub why: String,
}

/// The zone that the responder answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its topmost name, in lower case.
    apex: Name,
    /// The name of the challenge values: the apex or a name below it.
    challenge: Name,
    /// The name server of the NS and SOA records.
    name_server: Name,
    /// The mailbox of the SOA record.
    mailbox: Name,
    /// The records of all names if the whole domain is delegated. `None` if only the challenge is.
    host: Option<Host>,
}

/// The records of the base name and of every name below, if the whole domain is delegated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// A and AAAA records.
    pub addresses: Vec<IpAddr>,
    /// The authorities that may issue certificates, as CAA records of the base name, such as `letsencrypt.org`. Without
    /// any, every authority may.
    pub issuers: Vec<String>,
    /// The protocols in the HTTPS record, such as `h3` and `h2`. Without any, there is no such record.
    pub alpn: Vec<String>,
    /// The visitors' port, if it is not 443. Browsers then ask for `_8443._https.<name>`, and those without a port in
    /// the URL are sent to it.
    pub port: Option<u16>,
}

/// The content of a name.
pub(super) enum Found {
    /// The records of the requested type, with their time to live. An empty list means that the name exists without
    /// such a record.
    Records(Vec<RData>, u32),
    /// The zone has no such name.
    NoName,
    /// The name is not in the zone.
    Elsewhere,
}

impl Zone {
    /// A zone for the challenge alone. `apex` is the delegated name: `_acme-challenge.<domain>` itself, or the target
    /// of its CNAME record.
    pub fn challenge(domain: &str, apex: Option<&str>, name_server: Option<&str>) -> Result<Self, ZoneError> {
        let apex = parse(apex.unwrap_or(&challenge_name(domain)))?;
        Self::new(domain, apex.clone(), apex, name_server, None)
    }

    /// A zone for the whole domain, including the challenge.
    pub fn whole(domain: &str, name_server: Option<&str>, host: Host) -> Result<Self, ZoneError> {
        for issuer in &host.issuers {
            parse(issuer)?;
        }
        Self::new(domain, parse(domain)?, parse(&challenge_name(domain))?, name_server, Some(host))
    }

    fn new(
        domain: &str,
        apex: Name,
        challenge: Name,
        name_server: Option<&str>,
        host: Option<Host>,
    ) -> Result<Self, ZoneError> {
        let name_server = parse(name_server.unwrap_or(domain))?;
        let mailbox = parse(&format!("hostmaster.{domain}"))?;
        Ok(Self { apex, challenge, name_server, mailbox, host })
    }

    /// The name that the parent zone has to delegate, with the final dot.
    pub fn apex(&self) -> String {
        self.apex.to_ascii()
    }

    /// The record that the parent zone needs, in zone-file form.
    pub fn delegation(&self) -> String {
        format!("{} {NS_TTL} IN NS {}", self.apex.to_ascii(), self.name_server.to_ascii())
    }

    /// Looks up a name in lower case.
    pub(super) fn find(&self, name: &Name, kind: RecordType, published: &Published) -> Found {
        if !self.apex.zone_of(name) {
            return Found::Elsewhere;
        }
        let at_apex = *name == self.apex;
        match kind {
            RecordType::SOA | RecordType::ANY if at_apex => {
                return Found::Records(vec![RData::SOA(self.soa(published))], self.negative_ttl(name));
            }
            RecordType::NS if at_apex => {
                return Found::Records(vec![RData::NS(NS(self.name_server.clone()))], NS_TTL);
            }
            _ => {}
        }
        if *name == self.challenge {
            let records = match kind {
                RecordType::TXT | RecordType::ANY => {
                    published.values.iter().map(|value| RData::TXT(TXT::new(vec![value.clone()]))).collect()
                }
                _ => Vec::new(),
            };
            return Found::Records(records, CHALLENGE_TTL);
        }
        match &self.host {
            Some(host) => self.find_host(host, name, kind, at_apex),
            None => Found::NoName,
        }
    }

    /// Every name below the apex is a host, as with a wildcard record. Names of services such as `_dmarc` do not exist.
    fn find_host(&self, host: &Host, name: &Name, kind: RecordType, at_apex: bool) -> Found {
        let below = usize::from(name.num_labels().saturating_sub(self.apex.num_labels()));
        let labels: Vec<&[u8]> = name.iter().take(below).collect();
        let services = labels.iter().take_while(|label| label.starts_with(b"_")).count();
        let (services, hosts) = labels.split_at(services);
        if hosts.iter().any(|label| label.starts_with(b"_")) {
            return Found::NoName;
        }
        match (services, host.port) {
            ([], _) => Found::Records(host.records(kind, at_apex), HOST_TTL),
            // The name holds the port (RFC 9460, section 9.1).
            ([port, b"_https"], Some(own)) if *port == format!("_{own}").as_bytes() => {
                let record = if kind == RecordType::HTTPS { host.https(None) } else { None };
                Found::Records(record.into_iter().collect(), HOST_TTL)
            }
            // A resolver with query name minimisation asks for this on its way (RFC 9156).
            ([b"_https"], Some(_)) => Found::Records(Vec::new(), HOST_TTL),
            _ => Found::NoName,
        }
    }

    pub(super) fn soa(&self, published: &Published) -> SOA {
        let negative = if self.host.is_some() { HOST_TTL } else { CHALLENGE_TTL };
        SOA::new(self.name_server.clone(), self.mailbox.clone(), published.serial, REFRESH, RETRY, EXPIRE, negative)
    }

    /// How long a resolver may cache that a name or record is absent: the SOA record's time to live (RFC 2308, section
    /// 5).
    pub(super) fn negative_ttl(&self, name: &Name) -> u32 {
        if self.host.is_none() || self.challenge.zone_of(name) { CHALLENGE_TTL } else { HOST_TTL }
    }

    pub(in crate::dns) fn apex_name(&self) -> &Name {
        &self.apex
    }

    pub(in crate::dns) fn name_server(&self) -> &Name {
        &self.name_server
    }

    /// The records of all names if the whole domain is delegated.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }
}

impl Host {
    /// A query for ANY gets the addresses alone, since one record set is enough (RFC 8482, section 4.1).
    fn records(&self, kind: RecordType, at_apex: bool) -> Vec<RData> {
        match kind {
            RecordType::A | RecordType::AAAA | RecordType::ANY => self
                .addresses
                .iter()
                .map(|address| match address {
                    IpAddr::V4(address) => RData::A(A(*address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
                })
                .filter(|record| kind == RecordType::ANY || record.record_type() == kind)
                .collect(),
            RecordType::HTTPS => self.https(self.port).into_iter().collect(),
            // For a name below, resolvers climb up to the base name's records (RFC 8659, section 3).
            RecordType::CAA if at_apex => self
                .issuers
                .iter()
                .filter_map(|issuer| parse(issuer).ok())
                .map(|mut issuer| {
                    issuer.set_fqdn(false);
                    RData::CAA(CAA::new_issue(false, Some(issuer), Vec::new()))
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn https(&self, port: Option<u16>) -> Option<RData> {
        if self.alpn.is_empty() {
            return None;
        }
        let mut parameters = vec![(SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(self.alpn.clone())))];
        parameters.extend(port.map(|port| (SvcParamKey::Port, SvcParamValue::Port(port))));
        // The root as target stands for the owner name itself (RFC 9460, section 2.5.2).
        Some(RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters))))
    }
}

/// Parses a name into lower case, with the final dot.
fn parse(text: &str) -> Result<Name, ZoneError> {
    parse_name(text).map_err(|why| ZoneError { name: text.to_owned(), why })
}
