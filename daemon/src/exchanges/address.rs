//! Which addresses count as one visitor.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv6Addr};

/// The network that counts as one visitor. For IPv6 this is a /64, the smallest that a site gets (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// A number that spreads addresses over the shards of a table.
pub(super) fn hash(address: IpAddr) -> usize {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish() as usize
}
