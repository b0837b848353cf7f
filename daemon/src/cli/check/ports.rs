//! Whether the ports of the configuration are free, and who can reach the admin address.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use super::dns::is_public;
use super::{Config, Report, Running};
use crate::host::service_view::ServiceView;
use crate::host::unit;
use crate::listen::Addresses;

/// A use of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortUse {
    /// The key in `[listen]`.
    key: &'static str,
    protocol: Protocol,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// The unit that opens a port in place of the daemon.
fn unit_of(used: &PortUse) -> &'static str {
    match (used.key, used.protocol) {
        ("https", Protocol::Tcp) => "cokd-https.socket",
        ("https", Protocol::Udp) => "cokd-quic.socket",
        ("http", _) => "cokd-http.socket",
        ("dns", _) => "cokd-dns.socket",
        _ => "",
    }
}

/// All uses. A port of 0 stands for any free one.
fn uses(addresses: &Addresses) -> Vec<PortUse> {
    let Addresses { https, http, admin, dns } = addresses;
    let each = |key, protocol, addresses: &[SocketAddr]| {
        addresses.iter().map(|address| PortUse { key, protocol, address: *address }).collect::<Vec<_>>()
    };
    let uses = [
        each("https", Protocol::Tcp, https),
        each("https", Protocol::Udp, https),
        each("http", Protocol::Tcp, http),
        each("admin", Protocol::Tcp, &[*admin]),
        each("dns", Protocol::Tcp, dns),
        each("dns", Protocol::Udp, dns),
    ];
    uses.into_iter().flatten().filter(|used| used.address.port() != 0).collect()
}

/// Ports that the configuration uses twice, as mistakes with their keys.
pub(super) fn twice(addresses: &Addresses) -> Vec<String> {
    let uses = uses(addresses);
    let mut mistakes: Vec<String> = Vec::new();
    for (index, one) in uses.iter().enumerate() {
        for other in &uses[..index] {
            if one.protocol == other.protocol && overlap(one.address, other.address) {
                let (key, protocol) = (one.key, one.protocol.name());
                let mistake = format!(
                    "listen.{key}: {} is used twice over {protocol}: listen.{} has {}",
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
pub(super) fn look(config: &Config, view: &ServiceView, running: Running, report: &mut Report) {
    let addresses = &config.listen.startup.addresses;
    let admin = addresses.admin;
    if admin.ip().is_unspecified() || is_public(&admin.ip()) {
        report.note(&format!(
            "listen.admin: {admin} shows metrics and health to everyone who reaches this machine; 127.0.0.1:{} does not",
            admin.port()
        ));
    }
    let uses = uses(addresses);
    let units: Vec<_> = uses.iter().map(unit_of).filter(|unit| !unit.is_empty()).collect();
    let active = unit::active_sockets(&units);
    for used in uses.iter().filter(|used| !active.contains(&unit_of(used))) {
        let PortUse { key, protocol, address } = used;
        let Err(error) = try_bind(used) else { continue };
        let over = protocol.name();
        match error.kind() {
            ErrorKind::AddrInUse => {
                let holders = holders(used);
                let is_own = match running {
                    Running::No => false,
                    Running::Process(pid) => {
                        holders.iter().any(|holder| holder.pid == pid || holder.is_systemd())
                            || (holders.is_empty() && fs::read_dir(format!("/proc/{pid}/fd")).is_err())
                    }
                    // This user does not see the daemon's sockets.
                    Running::Unknown => holders.is_empty() || holders.iter().any(Holder::is_systemd),
                };
                if !is_own {
                    let who = holders.first().map_or_else(|| "another program".to_owned(), Holder::to_string);
                    report.fault(&format!("listen.{key}: {who} has {address} over {over}"));
                }
            }
            ErrorKind::Unsupported => report.fault(&format!(
                "listen.{key}: IPv6 is off on this machine, so {address} cannot be opened; set an IPv4 address, such as \
                 0.0.0.0:{}",
                address.port()
            )),
            ErrorKind::AddrNotAvailable => {
                report.fault(&format!("listen.{key}: this machine has no address {}", address.ip()));
            }
            // systemd opens these for the service, or the running daemon has them.
            ErrorKind::PermissionDenied if view.is_service() || running != Running::No => {}
            ErrorKind::PermissionDenied => report.note(&format!(
                "listen.{key}: you may not open {address}; root may, or the service with sockets of systemd"
            )),
            _ => report.note(&format!("listen.{key}: {address}: {error}")),
        }
    }
}

/// Binds a socket as the daemon does, and closes it at once.
fn try_bind(used: &PortUse) -> io::Result<()> {
    let kind = match used.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = match Socket::new(Domain::for_address(used.address), kind, None) {
        // A machine without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            return Err(ErrorKind::Unsupported.into());
        }
        socket => socket?,
    };
    if used.address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if used.protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&used.address.into())
}

/// A program that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    name: String,
    pid: i32,
}

impl Holder {
    /// True for the service manager, which opens ports for services.
    fn is_systemd(&self) -> bool {
        self.pid == 1 && self.name == "systemd"
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.name, self.pid)
    }
}

/// The programs that have a port, as far as this user may see them.
fn holders(used: &PortUse) -> Vec<Holder> {
    let tables = match used.protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let links: Vec<_> =
        texts.iter().flat_map(|text| listeners(text, used)).map(|inode| format!("socket:[{inode}]")).collect();
    let has_it = |process: &Path| {
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|link| links.iter().any(|socket| link == Path::new(socket)))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, process)| has_it(process))
        .map(|(pid, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Holder { name: name.trim().escape_debug().to_string(), pid }
        })
        .collect()
}

/// The inodes of the sockets in a table of proc(5) that wait where one of this use would.
fn listeners(table: &str, used: &PortUse) -> Vec<String> {
    /// The state of a TCP socket that listens.
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (address_of(words.get(1)?)?, words.get(3)?, words.get(9)?);
        let waits = used.protocol == Protocol::Udp || *state == LISTEN;
        (waits && overlap(local, used.address)).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// An address in a table of proc(5): words of four bytes in this machine's order, and the port.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(&*bytes) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&*bytes).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
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
        for (protocol, address) in
            [(Protocol::Tcp, tcp.local_addr().unwrap()), (Protocol::Udp, udp.local_addr().unwrap())]
        {
            let used = PortUse { key: "https", protocol, address };
            assert_eq!(try_bind(&used).unwrap_err().kind(), ErrorKind::AddrInUse);
            let has_it =
                |used: &PortUse| holders(used).iter().any(|holder| holder.pid.cast_unsigned() == std::process::id());
            assert!(has_it(&used));
            // The same port at another address is no one's.
            let address = SocketAddr::new("127.0.0.2".parse().unwrap(), address.port());
            assert!(!has_it(&PortUse { address, ..used }));
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_the_kernels_tables_are_read() {
        let read = |text: &str| address_of(text).map(|address| address.to_string());
        assert_eq!(read("0100007F:01BB").as_deref(), Some("127.0.0.1:443"));
        assert_eq!(read("B80D0120000000000000000001000000:0035").as_deref(), Some("[2001:db8::1]:53"));
        for nonsense in ["", ":", "0100007F", "0100007F:x", "0100007F0100007F:01BB"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
