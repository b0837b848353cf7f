//! What the responder answers for, and the records that stand under a name.

use std::net::IpAddr;

use hickory_proto::rr::rdata::svcb::{Alpn, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CAA, HTTPS, NS, SOA, SVCB, TXT};
use hickory_proto::rr::{Name, RData, RecordType};

use super::published::Published;
use crate::dns::{challenge_name, parse_name};

/// Challenge values change from one second to the next, so nobody may keep them, nor that there are none.
const CHALLENGE_TTL: u32 = 0;
/// How long the other records may be kept, in seconds: short enough to move the daemon to another address.
const HOST_TTL: u32 = 300;
/// How long the delegation's own records may be kept, in seconds.
pub(in crate::dns) const NS_TTL: u32 = 3600;

/// Timers of the SOA record, in seconds. They are for secondaries, which there are none of: common values.
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 86400;

/// A setting that cannot stand in a zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a DNS name: {why}")]
pub struct ZoneError {
    /// What was given.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// The zone that the responder answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its top, in lower case.
    apex: Name,
    /// Where the challenge values stand: the apex itself or a name below it.
    challenge: Name,
    /// The name server of the NS and SOA records.
    name_server: Name,
    /// The mailbox of the SOA record.
    mailbox: Name,
    /// What the names of the whole domain have; nothing if only the challenge's name is answered for.
    host: Option<Host>,
}

/// What the base name and every name below it have, where the whole domain is delegated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// A and AAAA records.
    pub addresses: Vec<IpAddr>,
    /// Which authorities may issue certificates: CAA records at the base name, such as `letsencrypt.org`. None leaves it
    /// to everyone.
    pub issuers: Vec<String>,
    /// Protocols of the HTTPS record, such as `h3` and `h2`; none for no such record.
    pub alpn: Vec<String>,
    /// The port that visitors use, if it is not 443. Their browsers then ask for `_8443._https.<name>`, and those that
    /// come without a port are sent to it.
    pub port: Option<u16>,
}

/// What stands under a name.
pub(super) enum Found {
    /// These records with their time to live, of the type that was asked for. None means that the name exists and has
    /// no such record.
    Records(Vec<RData>, u32),
    /// No such name in the zone.
    NoName,
    /// Not in the zone.
    Elsewhere,
}

impl Zone {
    /// For the challenge's name alone. `apex` is the name that is delegated: `_acme-challenge.<domain>` itself, or the
    /// target of a CNAME record that stands there.
    pub fn challenge(domain: &str, apex: Option<&str>, name_server: Option<&str>) -> Result<Self, ZoneError> {
        let apex = parse(apex.unwrap_or(&challenge_name(domain)))?;
        Self::new(domain, apex.clone(), apex, name_server, None)
    }

    /// For the whole domain, the challenge's name within it.
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

    /// The name that the parent zone has to delegate, with the root's dot.
    pub fn apex(&self) -> String {
        self.apex.to_ascii()
    }

    /// The record that the parent zone needs, in zone-file form.
    pub fn delegation(&self) -> String {
        format!("{} {NS_TTL} IN NS {}", self.apex.to_ascii(), self.name_server.to_ascii())
    }

    /// Looks a name in lower case up.
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

    /// Every name below the apex is a host, as below a wildcard record; names of services such as `_dmarc` are none.
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
            // The port in the name is the one to use (RFC 9460, section 9.1).
            ([port, b"_https"], Some(own)) if *port == format!("_{own}").as_bytes() => {
                let record = if kind == RecordType::HTTPS { host.https(None) } else { None };
                Found::Records(record.into_iter().collect(), HOST_TTL)
            }
            // A resolver that shows no more of a name than it must asks for this on its way (RFC 9156).
            ([b"_https"], Some(_)) => Found::Records(Vec::new(), HOST_TTL),
            _ => Found::NoName,
        }
    }

    pub(super) fn soa(&self, published: &Published) -> SOA {
        let negative = if self.host.is_some() { HOST_TTL } else { CHALLENGE_TTL };
        SOA::new(self.name_server.clone(), self.mailbox.clone(), published.serial, REFRESH, RETRY, EXPIRE, negative)
    }

    /// How long it may be kept that a name or record is not there (RFC 2308, section 5): the SOA record's time to live.
    pub(super) fn negative_ttl(&self, name: &Name) -> u32 {
        if self.host.is_none() || self.challenge.zone_of(name) { CHALLENGE_TTL } else { HOST_TTL }
    }

    pub(in crate::dns) fn apex_name(&self) -> &Name {
        &self.apex
    }

    pub(in crate::dns) fn name_server(&self) -> &Name {
        &self.name_server
    }

    /// What the whole domain has; nothing if only the challenge's name is answered for.
    pub(in crate::dns) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }
}

impl Host {
    /// Of ANY it gives the addresses alone, as one set is enough (RFC 8482, section 4.1).
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
            // Whoever asks for a name below climbs up to the base name's (RFC 8659, section 3).
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
        // The root as target: the owner's own addresses (RFC 9460, section 2.5.2).
        Some(RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters))))
    }
}

/// A name in lower case, with the root's dot whether written or not.
fn parse(text: &str) -> Result<Name, ZoneError> {
    parse_name(text).map_err(|why| ZoneError { name: text.to_owned(), why })
}
