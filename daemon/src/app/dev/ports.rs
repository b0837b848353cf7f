//! The ports of `cokd dev`, chosen before anything listens. None is the target's port: the site would forward to
//! itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cok_client::Target;
use serde::Serialize;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Usage;

/// The HTTPS port unless the user names one.
const HTTPS: u16 = 8443;
/// How many ephemeral ports are tried until one is free for both TCP and UDP.
const TRIES: usize = 100;
/// Time limit to resolve a target's name. Local names resolve at once.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// The ports that the user names; 0 stands for any free one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) https: Option<u16>,
    pub(super) http: Option<u16>,
}

/// Where `cokd dev` listens on loopback.
#[derive(Debug, Serialize)]
pub(super) struct Ports {
    /// HTTPS over TCP and QUIC over UDP.
    pub(super) https: u16,
    /// Plain HTTP, if the user asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<u16>,
    /// Health and metrics.
    pub(super) admin: u16,
    /// Says why HTTPS is not on its default port, unless the user chose the port.
    #[serde(skip)]
    pub(super) notice: Option<String>,
}

impl Ports {
    /// Chooses the ports. Fails if a port that the user names is taken or is the target's.
    pub(super) async fn choose(wanted: Wanted, target: &Target) -> anyhow::Result<Self> {
        let Wanted { https, http } = wanted;
        if http == Some(https.unwrap_or(HTTPS)) && http != Some(0) {
            return Err(
                Usage("HTTPS and plain HTTP can't share a port: change --https-port or --http-port".into()).into()
            );
        }
        let mut reserved: Vec<u16> = [address(target).map(|(_, port)| port), http].into_iter().flatten().collect();
        let mut notice = None;
        let https = match https {
            Some(0) => free(&mut reserved)?,
            Some(port) => named(port, "--https-port", target).await?,
            None if check(HTTPS).is_err() => {
                let port = free(&mut reserved)?;
                notice =
                    Some(format!("port {HTTPS} is taken, so HTTPS is on port {port}; --https-port chooses another"));
                port
            }
            None if is_own(target, HTTPS).await => {
                let advice = "start your service first if it has that port, or choose another one by --https-port";
                return Err(leads_to_itself(target, HTTPS, advice).into());
            }
            None => HTTPS,
        };
        reserved.push(https);
        let http = match http {
            Some(0) => Some(free(&mut reserved)?),
            Some(port) => Some(named(port, "--http-port", target).await?),
            None => None,
        };
        Ok(Self { https, http, admin: free(&mut reserved)?, notice })
    }
}

/// A port that the user names by an option.
async fn named(port: u16, option: &str, target: &Target) -> anyhow::Result<u16> {
    if is_own(target, port).await {
        return Err(leads_to_itself(target, port, &format!("choose another port by {option}")).into());
    }
    check(port).map_err(|taken| anyhow!("{taken}; choose another port by {option}, or 0 for a free one"))?;
    Ok(port)
}

fn leads_to_itself(target: &Target, port: u16, advice: &str) -> Usage {
    Usage(format!("cannot forward to {target}: cokd dev itself listens on port {port}; {advice}"))
}

/// Reserves a port that is free for all listeners and not in `reserved`.
fn free(reserved: &mut Vec<u16>) -> anyhow::Result<u16> {
    for _ in 0..TRIES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        drop(listener);
        if !reserved.contains(&port) && check(port).is_ok() {
            reserved.push(port);
            return Ok(port);
        }
    }
    bail!("no port is free for both TCP and UDP on 127.0.0.1; choose one by --https-port")
}

/// Fails if another program has the port, also on ::1, which browsers try first for names under .localhost. Other
/// errors show when the daemon binds the port.
fn check(port: u16) -> Result<(), String> {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(ip, port);
        let tcp = TcpListener::bind(address).map(drop);
        let udp = UdpSocket::bind(address).map(drop);
        for (result, kind) in [(tcp, ""), (udp, " (UDP)")] {
            match result {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(format!("cannot listen on {address}{kind}: {error}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether the target is a port of this machine's loopback addresses, however its host is spelled.
async fn is_own(target: &Target, port: u16) -> bool {
    match address(target) {
        Some((host, its_port)) => its_port == port && is_loopback(host).await,
        None => false,
    }
}

/// A target's host and port; `None` for a Unix socket.
fn address(target: &Target) -> Option<(&str, u16)> {
    match target {
        Target::Http(address) | Target::Https(address) | Target::H2c(address) => Some((&address.host, address.port)),
        Target::Unix(_) | Target::Service(_) => None,
    }
}

async fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    // Only the system's resolver knows 127.1 and names in /etc/hosts.
    match timeout(LOOKUP_LIMIT, lookup_host((host, 0))).await {
        Ok(Ok(mut addresses)) => addresses.any(|address| {
            let ip = address.ip().to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(https: Option<u16>, http: Option<u16>) -> Wanted {
        Wanted { https, http }
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    /// A port that nothing listens on.
    fn unused() -> u16 {
        free(&mut Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn every_spelling_of_an_own_port_is_refused() {
        let port = unused();
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.1", "[::1]", "0.0.0.0", "[::]", "demo.cok.localhost"]
        {
            for scheme in ["http", "https", "h2c"] {
                let target = target(&format!("{scheme}://{host}:{port}"));
                for wanted in [wanted(Some(port), None), wanted(Some(0), Some(port))] {
                    let error = Ports::choose(wanted, &target).await.unwrap_err();
                    assert!(error.is::<Usage>(), "{target}: {error}");
                }
            }
        }
        let elsewhere = target(&format!("http://192.0.2.1:{port}"));
        assert_eq!(Ports::choose(wanted(Some(port), None), &elsewhere).await.unwrap().https, port);
    }

    #[tokio::test]
    async fn a_port_is_taken_by_either_protocol_and_family() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let (Ok(tcp), Ok(udp)) = (TcpListener::bind((ip, 0)), UdpSocket::bind((ip, 0))) else {
                assert!(ip.is_ipv6(), "a machine may be without IPv6");
                continue;
            };
            for address in [tcp.local_addr().unwrap(), udp.local_addr().unwrap()] {
                for (wanted, option) in [
                    (wanted(Some(address.port()), None), "--https-port"),
                    (wanted(Some(0), Some(address.port())), "--http-port"),
                ] {
                    let error = Ports::choose(wanted, &target("1")).await.unwrap_err();
                    assert!(error.to_string().contains(option) && !error.is::<Usage>(), "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn free_ports_differ_from_each_other_and_from_the_target() {
        let ports = Ports::choose(wanted(Some(0), Some(0)), &target("1")).await.unwrap();
        assert!(ports.https != ports.admin && Some(ports.https) != ports.http && Some(ports.admin) != ports.http);
        assert!(Ports::choose(wanted(Some(0), None), &target("1")).await.unwrap().http.is_none());
        let port = unused();
        let same = Ports::choose(wanted(Some(port), Some(port)), &target("1")).await.unwrap_err();
        assert!(same.is::<Usage>(), "{same}");
    }
}
