//! Rates: how much may come in a time, by owner. Every rate is a token bucket; all buckets are in one bounded table.
//!
//! Requests over a rate are refused, bytes are delayed. Neither takes a lock that all requests share.

mod quotas;
mod table;
mod turns;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cok_http::visitor::{network, network_bits};
use governor::Quota;
use ipnet::IpNet;

use self::quotas::{BYTE_UNIT, byte_quota, quota};
use self::table::{Bucket, Kind, Table};
pub(crate) use self::turns::{Turn, Turns};
use super::{KeyRecord, Rate};
use crate::names::Subdomain;

/// The pace of refusals for wrong keys of one address: 200 of them take a minute.
const FAILED_KEY_EVERY: Duration = Duration::from_millis(320);
/// The longest time that a refusal waits: as long as 256 of them take.
const LONGEST_REFUSAL: Duration = Duration::from_secs(82);
/// The longest time that bytes wait for their tunnel's or key's rate.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Settings of rates. `None` is no limit. A reload changes them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Requests of one visitor address (IPv4, or IPv6 /64) to all tunnels. 1/s to 1,000,000/s, default 10,000/s with
    /// a burst of 100,000: a large office stays far below, and one machine can't keep the daemon to itself.
    pub(crate) requests_per_address: Option<Rate>,
    /// Requests to one tunnel, from all visitors. Default none.
    pub(crate) requests_per_tunnel: Option<Rate>,
    /// Requests to all tunnels of a key that has no rate of its own. Default none.
    pub(crate) requests_per_key: Option<Rate>,
    /// Bytes of bodies of one tunnel, both directions together. Default none. Those above it wait.
    pub(crate) bytes_per_tunnel: Option<Rate>,
    /// Bytes of bodies of all tunnels of a key that has no rate of its own. Default none.
    pub(crate) bytes_per_key: Option<Rate>,
    /// New connections of one address, over TCP and QUIC. Default 1,000/s with a burst of 10,000. Those above it are
    /// closed before TLS.
    pub(crate) connections_per_address: Option<Rate>,
    /// TLS and QUIC handshakes of one address. Default 300/s with a burst of 5,000: a handshake costs some 0.5 ms of
    /// processor time. Those above it wait, for at most half of `handshake_timeout`.
    pub(crate) handshakes_per_address: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            requests_per_address: Some(Rate::new(10_000, 100_000)),
            requests_per_tunnel: None,
            requests_per_key: None,
            bytes_per_tunnel: None,
            bytes_per_key: None,
            connections_per_address: Some(Rate::new(1000, 10_000)),
            handshakes_per_address: Some(Rate::new(300, 5000)),
        }
    }
}

/// The rates of one daemon.
#[derive(Debug)]
pub(crate) struct Rates {
    settings: ArcSwap<Settings>,
    table: Arc<Table>,
    handshakes: Turns,
}

#[derive(Debug)]
struct Settings {
    config: Config,
    /// Networks without rates for connections and handshakes: a proxy carries many visitors.
    exempt: Vec<IpNet>,
}

/// A request over a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// The owner of the rate.
    pub(crate) whose: Whose,
    /// The rate.
    pub(crate) rate: Rate,
    /// When the next request may come.
    pub(crate) wait: Duration,
}

/// The owner of a rate that a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The visitor's address.
    Visitor,
    /// The tunnel.
    Tunnel,
    /// The key of the tunnel.
    Key,
}

/// A tunnel, as its buckets know it. It has 64 bits: with 128, the boxed future of a request would need an alignment that
/// costs time in the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelNumber(u64);

/// A connection over a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many new connections from one address")]
pub(crate) struct TooFast;

impl Rates {
    /// Rates of a daemon on a machine with this many processors. Handshakes may use half of them.
    pub(super) fn new(config: Config, exempt: Vec<IpNet>, processors: usize) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(Settings { config, exempt }),
            table: Arc::new(Table::new()),
            handshakes: Turns::new(processors / 2),
        })
    }

    /// Applies new settings.
    pub(super) fn reload(&self, config: Config, exempt: Vec<IpNet>) {
        self.settings.store(Arc::new(Settings { config, exempt }));
    }

    // ---- requests ----

    /// The number of a tunnel.
    pub(crate) fn number(&self, name: &Subdomain) -> TunnelNumber {
        TunnelNumber(self.table.owner(name))
    }

    /// Counts a request of a visitor at this address.
    pub(crate) fn visitor(&self, address: IpAddr) -> Result<(), Exceeded> {
        let rate = self.settings.load().config.requests_per_address;
        self.request(Kind::VisitorRequests, network_bits(address), rate, Whose::Visitor)
    }

    /// Counts a request to a tunnel, and to its key if a client serves the tunnel.
    pub(crate) fn tunnel(&self, tunnel: TunnelNumber, key: Option<&KeyRecord>) -> Result<(), Exceeded> {
        let settings = self.settings.load();
        let config = &settings.config;
        self.request(Kind::TunnelRequests, tunnel.0.into(), config.requests_per_tunnel, Whose::Tunnel)?;
        let Some(key) = key else { return Ok(()) };
        let Some(rate) = key.limits.requests.or(config.requests_per_key) else { return Ok(()) };
        self.request(Kind::KeyRequests, self.table.owner(&key.id).into(), Some(rate), Whose::Key)
    }

    /// Counts a request of a visitor at this address against the rate that the tunnel's client has set for its visitors.
    pub(crate) fn visitor_of_tunnel(&self, tunnel: TunnelNumber, address: IpAddr, rate: Rate) -> Result<(), Exceeded> {
        let owner = self.table.owner((tunnel.0, network_bits(address)));
        self.request(Kind::VisitorOfTunnel, owner.into(), Some(rate), Whose::Visitor)
    }

    fn request(&self, kind: Kind, owner: u128, rate: Option<Rate>, whose: Whose) -> Result<(), Exceeded> {
        let Some(rate) = rate else { return Ok(()) };
        let taken = self.table.take(Bucket { kind, owner }, quota(rate), NonZeroU32::MIN);
        taken.map_err(|wait| Exceeded { whose, rate, wait })
    }

    // ---- bytes ----

    /// The rates that a tunnel's bytes have; `None` if there are none.
    pub(crate) fn bytes(&self, tunnel: TunnelNumber, key: &KeyRecord) -> Option<ByteRates> {
        let settings = self.settings.load();
        let config = &settings.config;
        let bucket = |kind, owner, rate: Rate| (Bucket { kind, owner }, byte_quota(rate));
        let tunnel = config.bytes_per_tunnel.map(|rate| bucket(Kind::TunnelBytes, tunnel.0.into(), rate));
        let key_rate = key.limits.bytes.or(config.bytes_per_key);
        let key = key_rate.map(|rate| bucket(Kind::KeyBytes, self.table.owner(&key.id).into(), rate));
        let any = tunnel.is_some() || key.is_some();
        any.then(|| ByteRates { table: self.table.clone(), buckets: [tunnel, key], uncounted: 0 })
    }

    // ---- connections ----

    /// Counts a new connection from this address.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<(), TooFast> {
        let settings = self.settings.load();
        let Some(rate) = settings.config.connections_per_address else { return Ok(()) };
        let Some(owner) = settings.owner(address) else { return Ok(()) };
        let bucket = Bucket { kind: Kind::Connections, owner };
        self.table.take(bucket, quota(rate), NonZeroU32::MIN).map_err(|_| TooFast)
    }

    /// Whether a peer that has not proved its address may begin a handshake without doing so. Its bucket is none that the
    /// real owner of the address needs.
    pub(crate) fn unproved_handshake(&self, address: IpAddr) -> Result<(), TooFast> {
        let settings = self.settings.load();
        let Some(rate) = settings.config.handshakes_per_address else { return Ok(()) };
        let Some(owner) = settings.owner(address) else { return Ok(()) };
        let bucket = Bucket { kind: Kind::UnprovedHandshakes, owner };
        self.table.take(bucket, quota(rate), NonZeroU32::MIN).map_err(|_| TooFast)
    }

    /// How long a handshake with this address has to wait for its rate. `Err` if that is longer than `limit`.
    pub(crate) fn handshake(&self, address: IpAddr, limit: Duration) -> Result<Duration, TooFast> {
        let settings = self.settings.load();
        let Some(rate) = settings.config.handshakes_per_address else { return Ok(Duration::ZERO) };
        let Some(owner) = settings.owner(address) else { return Ok(Duration::ZERO) };
        let bucket = Bucket { kind: Kind::Handshakes, owner };
        self.table.charge(bucket, quota(rate), 1, limit).map_err(|_| TooFast)
    }

    /// Waits until the daemon may compute a handshake with this address.
    pub(crate) async fn turn(&self, address: IpAddr) -> Turn {
        self.handshakes.turn(network(address)).await
    }

    // ---- keys ----

    /// How long the refusal of a wrong key from this address has to wait; `None` if too many wait already.
    pub(super) fn failed_key(&self, address: IpAddr) -> Option<Duration> {
        let bucket = Bucket { kind: Kind::FailedKeys, owner: network_bits(address) };
        let quota = Quota::with_period(FAILED_KEY_EVERY)?;
        self.table.charge(bucket, quota, 1, LONGEST_REFUSAL).ok()
    }
}

impl Settings {
    /// The owner of an address's buckets; `None` if it is exempt.
    fn owner(&self, address: IpAddr) -> Option<u128> {
        let canonical = address.to_canonical();
        let exempt = self.exempt.iter().any(|network| network.contains(&canonical));
        (!exempt).then(|| network_bits(address))
    }
}

/// The rates of a tunnel's bytes, for one exchange.
#[derive(Debug)]
pub(crate) struct ByteRates {
    table: Arc<Table>,
    buckets: [Option<(Bucket, Quota)>; 2],
    /// Bytes that are no whole unit yet.
    uncounted: u32,
}

impl ByteRates {
    /// Counts bytes that have passed, and says how long the next ones have to wait.
    pub(crate) fn passed(&mut self, bytes: usize) -> Duration {
        let bytes = u64::from(self.uncounted) + bytes as u64;
        self.uncounted = (bytes % u64::from(BYTE_UNIT)) as u32;
        let units = u32::try_from(bytes / u64::from(BYTE_UNIT)).unwrap_or(u32::MAX);
        if units == 0 {
            return Duration::ZERO;
        }
        let charge = |(bucket, quota): &(Bucket, Quota)| {
            self.table.charge(*bucket, *quota, units, LONGEST_PAUSE).unwrap_or(LONGEST_PAUSE)
        };
        self.buckets.iter().flatten().map(charge).max().unwrap_or_default()
    }
}

impl Clone for ByteRates {
    /// The same rates, for the other direction of an exchange.
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), buckets: self.buckets, uncounted: 0 }
    }
}

#[cfg(test)]
mod tests;
