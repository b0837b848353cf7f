//! What a check of DNS has found.

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::Name;

/// A fact for the operator. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A record is missing.
    Missing {
        /// The zone that it belongs to, without the final dot.
        zone: String,
        /// The record in zone-file form.
        record: String,
    },
    /// A record leads elsewhere.
    Wrong(String),
    /// A record leads to an address that may forward to this machine, as a router does.
    Elsewhere(String),
    /// No server could be asked, so nothing is known.
    Unknown(String),
}

impl Finding {
    /// A missing record of a zone.
    pub(super) fn missing(zone: &Name, record: String) -> Self {
        Self::Missing { zone: zone.to_ascii().trim_end_matches('.').to_owned(), record }
    }

    /// True if visitors or the ACME server do not find this machine.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Wrong(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { zone, record } => write!(formatter, "missing in the zone {zone}: {record}"),
            Self::Wrong(what) | Self::Elsewhere(what) => formatter.write_str(what),
            Self::Unknown(why) => write!(formatter, "cannot check the records: {why}"),
        }
    }
}

/// An address record in zone-file form.
pub(super) fn address_record(name: &str, ttl: u32, address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    format!("{name} {ttl} IN {kind} {address}")
}

/// Addresses in one text.
pub(super) fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
