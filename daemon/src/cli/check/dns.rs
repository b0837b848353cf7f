//! Whether DNS leads visitors and the ACME server to this machine.

use std::net::{IpAddr, SocketAddr};

use cok_certs::dns::embedded::Zone;
use cok_certs::dns::visitors::{FamilyAddresses, VisitorAddresses};
use cok_certs::dns::{Finding, delegation, visitors};

use super::{CheckArgs, Report};
use crate::certificates::{Dns, Tls};
use crate::config::Config;
use crate::host::notify;

/// The first port that needs no privilege; the service has none.
const FIRST_FREE_PORT: u16 = 1024;

/// Reports records that are missing or lead elsewhere. With certificates of its own authority the daemon is for tests, and
/// its names need not be in DNS.
pub(super) async fn look(config: &Config, args: &CheckArgs, report: &mut Report) {
    let domain = config.startup.domain.as_str();
    let zone = match &config.certificates.source {
        Tls::SelfSigned => return,
        Tls::Files { .. } => None,
        Tls::Acme(acme) => match &acme.dns {
            Dns::Embedded(zone) => Some(&**zone),
            _ => None,
        },
    };
    if zone.is_some()
        && config.listen.startup.addresses.dns.iter().any(|address| address.port() < FIRST_FREE_PORT)
        && let Some(command) = notify::dns_socket_advice()
    {
        report.fault(&format!(
            "DNS: the service cannot open its port itself, and cokd-dns.socket is not enabled: {command}"
        ));
    }
    // With the whole domain, cokd itself answers for all names.
    let mut findings = if zone.is_some_and(|zone| zone.host().is_some()) {
        Vec::new()
    } else {
        visitors::advise(domain, &here(config, args), args.resolver).await
    };
    if let Some(zone) = zone {
        let more = delegation::advise(zone, domain, args.resolver).await;
        let news = more.into_iter().filter(|finding| !is_repeated(finding, &findings, domain)).collect::<Vec<_>>();
        findings.extend(news);
    }
    if findings.is_empty() {
        report.note(&format!("DNS: all records that lead here are there: {}", shown(domain, zone)));
    }
    for finding in findings {
        let line = format!("DNS: {finding}");
        if finding.is_fault() { report.fault(&line) } else { report.note(&line) }
    }
}

/// True if findings about visitors say the same: the name server of the challenge is often the domain itself.
fn is_repeated(finding: &Finding, findings: &[Finding], domain: &str) -> bool {
    let about_domain = |finding: &Finding| {
        matches!(finding, Finding::Missing { record, .. }
            if record.starts_with(&format!("{domain}. ")) && (record.contains(" IN A ") || record.contains(" IN AAAA ")))
    };
    findings.contains(finding) || (about_domain(finding) && findings.iter().any(about_domain))
}

fn shown(domain: &str, zone: Option<&Zone>) -> String {
    match zone {
        Some(zone) if zone.host().is_some() => zone.delegation(),
        Some(zone) => format!("{domain}, *.{domain} and {}", zone.delegation()),
        None => format!("{domain} and *.{domain}"),
    }
}

/// The addresses that visitors should be led to.
fn here(config: &Config, args: &CheckArgs) -> VisitorAddresses {
    let own: Vec<IpAddr> = if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
    let listening: Vec<_> =
        own.into_iter().filter(|address| is_admitted(*address, &config.listen.startup.addresses.https)).collect();
    let given: Vec<_> = args.addresses.iter().map(IpAddr::to_canonical).collect();
    let behind = !config.edge.trusted_proxies.is_empty() || !config.admission.live.proxy_protocol.is_empty();
    let [v4, v6] = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is_of: fn(&IpAddr) -> bool| {
        let of = |addresses: &[IpAddr]| addresses.iter().copied().filter(is_of).collect::<Vec<_>>();
        family(&of(&given), &of(&listening), behind || (!given.is_empty() && !given.iter().any(is_of)))
    });
    VisitorAddresses { v4, v6 }
}

/// The addresses of one family. `others` is true if a router or a load balancer may have further ones.
fn family(given: &[IpAddr], listening: &[IpAddr], others: bool) -> FamilyAddresses {
    let public: Vec<_> =
        if given.is_empty() { listening.iter().copied().filter(is_public).collect() } else { given.to_vec() };
    FamilyAddresses { own: [given, listening].concat(), complete: !public.is_empty() && !others, public }
}

/// True if the daemon answers at an address of this machine. An IPv6 wildcard takes IPv4 as well.
fn is_admitted(address: IpAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|listen| {
        let listen = listen.ip().to_canonical();
        listen == address || (listen.is_unspecified() && (listen.is_ipv6() || address.is_ipv4()))
    })
}

/// True for an address that the whole internet can reach, as far as its number tells.
pub(super) fn is_public(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            // 100.64.0.0/10 is shared by the customers of a provider (RFC 6598).
            let shared = first == 100 && (64..128).contains(&second);
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || shared
                // Protocol assignments, measurements of networks, and what is reserved (RFC 6890).
                || (first, second, third) == (192, 0, 0)
                || (first == 198 && second & 0xfe == 18)
                || first >= 240)
        }
        // Global unicast (RFC 4291, section 2.4).
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_differ_from_others() {
        let public = |text: &str| is_public(&text.parse().unwrap());
        for address in ["192.0.2.1", "192.0.1.1", "198.20.0.1", "100.128.0.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(public(address), "{address}");
        }
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn only_addresses_that_the_daemon_listens_at_count() {
        let admitted = |address: &str, listen: &[&str]| {
            let listen: Vec<_> = listen.iter().map(|address| address.parse().unwrap()).collect();
            is_admitted(address.parse().unwrap(), &listen)
        };
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(admitted(address, &["[::]:443"]), "{address}");
            assert!(admitted(address, &["192.0.2.1:443", "[2001:db8::1]:443"]), "{address}");
            assert!(!admitted(address, &["127.0.0.1:443", "192.0.2.2:443"]), "{address}");
        }
        assert!(admitted("192.0.2.1", &["0.0.0.0:443"]) && !admitted("2001:db8::1", &["0.0.0.0:443"]));
    }

    #[test]
    fn a_family_is_complete_if_its_public_address_is_known() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let (own, given) = (parse(&["127.0.0.1", "10.0.0.1", "192.0.2.1"]), parse(&["198.51.100.7"]));
        let known = family(&[], &own, false);
        assert!(known.complete && known.public == parse(&["192.0.2.1"]) && known.own == own);
        assert!(!family(&[], &own, true).complete);
        assert!(!family(&[], &own[..2], false).complete);
        let forwarded = family(&given, &own[..2], false);
        assert!(forwarded.complete && forwarded.public == given && forwarded.own.len() == 3);
    }
}
