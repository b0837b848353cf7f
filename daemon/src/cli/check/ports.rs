//! Whether the ports of the configuration are free, and who can reach the admin address.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use super::dns::is_public;
use super::{Config, Report};
use crate::host::eyes::Eyes;
use crate::host::unit;
use crate::listen::Addresses;

/// A use of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    /// The key in `[listen]`.
    key: &'static str,
    carried: Carried,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    Tcp,
    Udp,
}

impl Carried {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// The unit that opens a port in place of the daemon.
fn unit_of(used: &Use) -> &'static str {
    match (used.key, used.carried) {
        ("https", Carried::Tcp) => "cokd-https.socket",
        ("https", Carried::Udp) => "cokd-quic.socket",
        ("http", _) => "cokd-http.socket",
        ("dns", _) => "cokd-dns.socket",
        _ => "",
    }
}

/// All uses. A port of 0 stands for any free one.
fn uses(addresses: &Addresses) -> Vec<Use> {
    let Addresses { https, http, admin, dns } = addresses;
    let each = |key, carried, addresses: &[SocketAddr]| {
        addresses.iter().map(|address| Use { key, carried, address: *address }).collect::<Vec<_>>()
    };
    let uses = [
        each("https", Carried::Tcp, https),
        each("https", Carried::Udp, https),
        each("http", Carried::Tcp, http),
        each("admin", Carried::Tcp, &[*admin]),
        each("dns", Carried::Tcp, dns),
        each("dns", Carried::Udp, dns),
    ];
    uses.into_iter().flatten().filter(|used| used.address.port() != 0).collect()
}

/// Ports that the configuration uses twice, as mistakes with their keys.
pub(super) fn twice(addresses: &Addresses) -> Vec<String> {
    let uses = uses(addresses);
    let mut mistakes: Vec<String> = Vec::new();
    for (index, one) in uses.iter().enumerate() {
        for other in &uses[..index] {
            if one.carried == other.carried && overlap(one.address, other.address) {
                let (key, carried) = (one.key, one.carried.name());
                let mistake = format!(
                    "listen.{key}: {} is used twice over {carried}: listen.{} has {}",
                    one.address, other.key, other.address
                );
                // One line is enough for TCP and UDP.
                let same = format!("listen.{key}: {} is used twice", one.address);
                if !mistakes.iter().any(|said| said.starts_with(&same)) {
                    mistakes.push(mistake);
                }
            }
        }
    }
    mistakes
}

/// Whether two sockets cannot have these addresses at once. An IPv6 wildcard takes IPv4 as well.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let [a, b] = [one, other].map(|address| address.ip().to_canonical());
    let covers = |wide: IpAddr, address: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || address.is_ipv4());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

/// Reports ports that other programs have, and an admin address that is open to the world.
pub(super) fn look(config: &Config, eyes: &Eyes, runs: bool, report: &mut Report) {
    let addresses = &config.listen.startup.addresses;
    let admin = addresses.admin;
    if admin.ip().is_unspecified() || is_public(&admin.ip()) {
        report.note(format!(
            "listen.admin: {admin} shows metrics and health to everyone who reaches this machine; 127.0.0.1:{} does not",
            admin.port()
        ));
    }
    if runs {
        return;
    }
    let uses = uses(addresses);
    let units: Vec<_> = uses.iter().map(unit_of).filter(|unit| !unit.is_empty()).collect();
    let active = unit::active_sockets(&units);
    for used in uses.iter().filter(|used| !active.contains(&unit_of(used))) {
        let Use { key, carried, address } = used;
        let Err(error) = try_bind(used) else { continue };
        let carried_by = carried.name();
        match error.kind() {
            ErrorKind::AddrInUse => {
                let who = holder(used).unwrap_or_else(|| "another program".to_owned());
                report.fault(format!("listen.{key}: {who} has {address} over {carried_by}"));
            }
            ErrorKind::AddrNotAvailable => {
                report.fault(format!("listen.{key}: this machine has no address {}", address.ip()));
            }
            // systemd opens these for the service.
            ErrorKind::PermissionDenied if eyes.is_service() => {}
            ErrorKind::PermissionDenied => report.note(format!(
                "listen.{key}: you may not open {address}; root may, or the service with sockets of systemd"
            )),
            _ => report.note(format!("listen.{key}: {address}: {error}")),
        }
    }
}

/// Binds a socket as the daemon does, and closes it at once.
fn try_bind(used: &Use) -> io::Result<()> {
    let kind = match used.carried {
        Carried::Tcp => Type::STREAM,
        Carried::Udp => Type::DGRAM,
    };
    let socket = match Socket::new(Domain::for_address(used.address), kind, None) {
        // A machine without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        socket => socket?,
    };
    if used.address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if used.carried == Carried::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&used.address.into())
}

/// The program that has a port, if this user may see it: `nginx (process 17)`.
fn holder(used: &Use) -> Option<String> {
    let tables = match used.carried {
        Carried::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Carried::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let texts = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<_> =
        texts.iter().flat_map(|text| listeners(text, used)).map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())) {
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let has = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| inodes.iter().any(|inode| link == Path::new(inode)))
        });
        if has {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim().escape_debug().to_string();
            return Some(format!("{name} (process {})", process.file_name().to_string_lossy()));
        }
    }
    None
}

/// The inodes of the sockets in a table of proc(5) that wait at a port.
fn listeners(table: &str, used: &Use) -> Vec<String> {
    /// The state of a TCP socket that listens.
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        let waits = used.carried == Carried::Udp || *state == LISTEN;
        (port == used.address.port() && waits).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn addresses(https: &[&str], http: &[&str], admin: &str, dns: &[&str]) -> Addresses {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Addresses { https: parse(https), http: parse(http), admin: admin.parse().unwrap(), dns: parse(dns) }
    }

    #[test]
    fn a_port_that_is_used_twice_is_a_mistake() {
        let fine = addresses(&["[::]:443"], &["[::]:80"], "127.0.0.1:9180", &["[::]:53"]);
        assert_eq!(twice(&fine), [""; 0]);
        let apart = addresses(&["127.0.0.1:443", "127.0.0.2:443"], &[], "127.0.0.3:443", &[]);
        assert_eq!(twice(&apart), [""; 0]);
        let free = addresses(&["127.0.0.1:0"], &["127.0.0.1:0"], "127.0.0.1:0", &[]);
        assert_eq!(twice(&free), [""; 0]);
        let same = addresses(&["[::]:443"], &["0.0.0.0:443"], "127.0.0.1:443", &["[::1]:443"]);
        assert_eq!(
            twice(&same),
            [
                "listen.http: 0.0.0.0:443 is used twice over TCP: listen.https has [::]:443",
                "listen.admin: 127.0.0.1:443 is used twice over TCP: listen.https has [::]:443",
                "listen.dns: [::1]:443 is used twice over TCP: listen.https has [::]:443",
            ]
        );
        let four = addresses(&["0.0.0.0:443"], &["[::1]:443"], "127.0.0.1:1", &[]);
        assert_eq!(twice(&four), [""; 0]);
    }

    #[test]
    fn the_program_that_has_a_port_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (carried, address) in [(Carried::Tcp, tcp.local_addr().unwrap()), (Carried::Udp, udp.local_addr().unwrap())]
        {
            let used = Use { key: "https", carried, address };
            assert_eq!(try_bind(&used).unwrap_err().kind(), ErrorKind::AddrInUse);
            let who = holder(&used).unwrap();
            assert!(who.ends_with(&format!("(process {})", std::process::id())), "{who}");
        }
    }
}
