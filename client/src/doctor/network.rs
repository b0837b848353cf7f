//! The network up to the server: names, addresses, TCP, UDP and QUIC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cok_host::dial::first_of;
use cok_transport::quic;
use tokio::time::sleep;

use super::{Check, Outcome};
use crate::dial::{self, Cause};
use crate::server::names_this_machine;
use crate::text::io_reason;
use crate::transport::TransportChoice;

/// Timeout of the question whether UDP passes. It leaves room for two lost packets.
const UDP: Duration = Duration::from_secs(2);
/// How long the largest datagram is looked for, and how long it stays the same at the end.
const SEARCH: Duration = Duration::from_millis(1500);
const SETTLED: Duration = Duration::from_millis(300);
/// The bytes of QUIC's first packets, which must pass whole (RFC 9000, section 14).
const FIRST_PACKETS: u16 = 1200;

const NO_UDP: &str = "let UDP pass to this port; until then, --transport auto takes a WebSocket";

/// What the checks have found.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// The server takes TCP connections, or the proxy leads to it.
    pub(super) has_tcp: bool,
    /// QUIC carries data.
    pub(super) has_quic: bool,
    /// Why QUIC was not tried.
    pub(super) without_quic: Option<String>,
}

/// Checks everything below TLS, and QUIC.
pub(super) async fn check(config: &dial::Config, report: &mut impl FnMut(Check)) -> Network {
    if let Some(proxy) = &config.proxy {
        return through_proxy(config, &proxy.to_string(), report).await;
    }
    let Some(addresses) = resolve(config, report).await else {
        for name in ["ipv4", "ipv6", "tcp", "udp", "quic", "quic_echo", "path_mtu", "proxy"] {
            report(Check::skipped(name, "the server has no address"));
        }
        return Network::default();
    };
    let has_tcp = tcp(config, &addresses, names_this_machine(config.server.host()), report).await;
    let mut found = Network { has_tcp, ..Network::default() };
    if config.transport == TransportChoice::Ws {
        let why = "--transport ws does without";
        for name in ["udp", "quic", "quic_echo", "path_mtu"] {
            report(Check::skipped(name, why));
        }
        found.without_quic = Some(why.to_owned());
    } else {
        found.has_quic = quic(config, &addresses, report).await;
    }
    report(Check::skipped("proxy", "none is named"));
    found
}

/// A proxy hides all but itself.
async fn through_proxy(config: &dial::Config, proxy: &str, report: &mut impl FnMut(Check)) -> Network {
    report(Check::skipped("dns", "the proxy leads to the server"));
    for name in ["ipv4", "ipv6", "tcp"] {
        report(Check::skipped(name, "the proxy connects to the server"));
    }
    for name in ["udp", "quic", "quic_echo", "path_mtu"] {
        report(Check::skipped(name, "the proxy carries only TCP"));
    }
    let began = Instant::now();
    let opened = dial::stream(config, &[]).await;
    match &opened {
        Ok(_) => report(Check::ok("proxy", format!("{proxy} leads to the server")).took(began.elapsed())),
        Err(cause) => report(Check::caused("proxy", config, cause)),
    }
    Network { has_tcp: opened.is_ok(), has_quic: false, without_quic: Some("the proxy carries only TCP".to_owned()) }
}

async fn resolve(config: &dial::Config, report: &mut impl FnMut(Check)) -> Option<Vec<SocketAddr>> {
    let began = Instant::now();
    let addresses = match dial::addresses(config).await {
        Ok(addresses) => addresses,
        Err(cause) => {
            report(Check::caused("dns", config, &cause));
            return None;
        }
    };
    let (host, list) = (config.server.host(), listed(&addresses));
    report(if let Some(address) = config.connect_to {
        Check::skipped("dns", format!("--connect-to names {address}"))
    } else if host.parse::<std::net::IpAddr>().is_ok() {
        Check::skipped("dns", "the server is named by its address")
    } else {
        Check::ok("dns", format!("{host} is {list}")).took(began.elapsed())
    });
    Some(addresses)
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether any address takes a TCP connection. The addresses of this machine itself are only assumed, so one will do.
async fn tcp(
    config: &dial::Config,
    addresses: &[SocketAddr],
    are_assumed: bool,
    report: &mut impl FnMut(Check),
) -> bool {
    let mut fastest: Option<(SocketAddr, Duration)> = None;
    let mut failure = None;
    let mut checks = Vec::new();
    for (name, is_v4) in [("ipv4", true), ("ipv6", false)] {
        let family: Vec<SocketAddr> = addresses.iter().copied().filter(|address| address.is_ipv4() == is_v4).collect();
        let shown = if is_v4 { "IPv4" } else { "IPv6" };
        if family.is_empty() {
            checks.push(Check::skipped(name, format!("the server has no {shown} address")));
            continue;
        }
        let began = Instant::now();
        match first_of(&family, dial::dial_tcp).await.map_err(dial::furthest) {
            Ok(stream) => {
                let (time, address) = (began.elapsed(), stream.peer_addr().unwrap_or(family[0]));
                if fastest.is_none_or(|(_, fastest)| time < fastest) {
                    fastest = Some((address, time));
                }
                checks.push(Check::ok(name, format!("{} answers", address.ip())).took(time));
            }
            Err(cause @ Cause::NoWay { has_none: true, .. }) => {
                checks.push(Check::skipped(name, format!("this machine has no {shown}: {cause}")));
                failure.get_or_insert(cause);
            }
            Err(cause) => {
                checks.push(Check::caused(name, config, &cause));
                failure = Some(cause);
            }
        }
    }
    if are_assumed && fastest.is_some() {
        for check in checks.iter_mut().filter(|check| check.outcome == Outcome::Failed) {
            (check.outcome, check.advice) = (Outcome::Skipped, None);
        }
    }
    checks.push(match (fastest, failure) {
        (Some((address, time)), _) => Check::ok("tcp", format!("connected to {address}")).took(time),
        (None, Some(cause)) => Check::caused("tcp", config, &cause),
        (None, None) => Check::skipped("tcp", "the server has no address"),
    });
    checks.into_iter().for_each(report);
    fastest.is_some()
}

/// Asks whether UDP passes.
async fn udp(addresses: &[SocketAddr]) -> Check {
    let mut id = [0; 8];
    if let Err(error) = getrandom::fill(&mut id) {
        return Check::skipped("udp", error.to_string());
    }
    let asked = first_of(addresses, async |address| {
        quic::reaches(address, id, UDP).await.map(|time| (address, time)).map_err(|error| (address, error))
    });
    match asked.await {
        Ok((address, time)) => Check::ok("udp", format!("{address} answers")).took(time),
        Err(failures) => {
            let why = match failures.first() {
                Some((address, error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                    format!("no answer from {address} within {} s", UDP.as_secs())
                }
                Some((address, error)) => format!("{address}: {}", io_reason(error)),
                None => "the server has no address".to_owned(),
            };
            Check::failed("udp", why, NO_UDP)
        }
    }
}

/// Whether a handshake of QUIC with this failure was answered, if only by a refusal. UDP passes then.
fn is_answer(cause: &Cause) -> bool {
    !matches!(
        cause,
        Cause::NoAnswer { .. } | Cause::NoUdp(_) | Cause::NoWay { .. } | Cause::Refused(_) | Cause::Unresolved(_)
    )
}

/// Whether QUIC carries data. Checks UDP below it, and the size of its packets.
async fn quic(config: &dial::Config, addresses: &[SocketAddr], report: &mut impl FnMut(Check)) -> bool {
    let mut udp = udp(addresses).await;
    let began = Instant::now();
    let handshake = dial::handshake(config, addresses).await;
    let time = began.elapsed();
    // The question may be lost, or a filter may know QUIC alone.
    if udp.outcome != Outcome::Ok && handshake.as_ref().err().is_none_or(is_answer) {
        udp = Check::ok("udp", "QUIC is answered");
    }
    let has_udp = udp.outcome == Outcome::Ok;
    report(udp);
    let link = match handshake {
        Ok(link) => link,
        Err(cause) => {
            let is_silent = matches!(cause, Cause::NoAnswer { .. });
            report(if is_silent && !has_udp {
                Check::failed("quic", cause.to_string(), NO_UDP)
            } else {
                Check::caused("quic", config, &cause)
            });
            report(Check::skipped("quic_echo", "there is no QUIC connection"));
            report(if is_silent && has_udp {
                Check::failed(
                    "path_mtu",
                    format!("UDP passes, but QUIC's packets of {FIRST_PACKETS} bytes probably do not pass whole"),
                    "raise the MTU of the VPN or the interface on the way to 1280 or more; until then, --transport auto \
                     takes a WebSocket",
                )
            } else {
                Check::skipped("path_mtu", "there is no QUIC connection")
            });
            return false;
        }
    };
    report(Check::ok("quic", "the handshake succeeded").took(time));
    let began = Instant::now();
    let link = match dial::echo(link).await {
        Ok(link) => link,
        Err(cause) => {
            report(Check::failed("quic_echo", cause.to_string(), NO_UDP));
            report(Check::skipped("path_mtu", "QUIC carries no data"));
            return false;
        }
    };
    report(Check::ok("quic_echo", "data comes back").took(began.elapsed()));
    let size = largest(&link).await;
    report(Check::ok("path_mtu", format!("datagrams of {size} bytes pass whole")));
    true
}

/// The largest datagram that a connection finds in a while.
async fn largest(link: &quic::Link) -> u16 {
    let (began, mut since, mut size) = (Instant::now(), Instant::now(), link.datagram());
    while began.elapsed() < SEARCH && since.elapsed() < SETTLED {
        sleep(Duration::from_millis(20)).await;
        if link.datagram() != size {
            (since, size) = (Instant::now(), link.datagram());
        }
    }
    size
}
