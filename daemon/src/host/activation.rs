//! Sockets that the service manager has bound and passes to the daemon (sd_listen_fds(3)). They outlive the process, so
//! a restart refuses no visitor, and the process needs no right to bind low ports.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context as _, bail, ensure};
use socket2::{Domain, Socket, Type};

/// Passed sockets by name (`FileDescriptorName=` in the socket units). Each kind replaces its addresses in `[listen]`.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Plain HTTP.
    pub(crate) http: Vec<TcpListener>,
    /// HTTPS over TCP.
    pub(crate) https: Vec<TcpListener>,
    /// QUIC.
    pub(crate) quic: Vec<UdpSocket>,
    /// Health and metrics.
    pub(crate) admin: Vec<TcpListener>,
    /// DNS over UDP.
    pub(crate) dns_udp: Vec<UdpSocket>,
    /// DNS over TCP.
    pub(crate) dns_tcp: Vec<TcpListener>,
}

impl Inherited {
    /// Takes the passed sockets; without a service manager there are none. Call it once, before any thread starts: it
    /// trusts the descriptor numbers.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let descriptors =
            sd_notify::listen_fds_with_names().context("cannot take over the service manager's sockets")?;
        // Takes ownership of all descriptors before it checks any.
        let sockets: Vec<_> = descriptors.map(|(descriptor, name)| (own(descriptor), name)).collect();
        let mut inherited = Self::default();
        for (socket, name) in sockets {
            inherited.add(Socket::from(socket), &name)?;
        }
        ensure!(
            inherited.dns_udp.len() == inherited.dns_tcp.len(),
            "the service manager handed over {} datagram and {} stream sockets named \"dns\"; each address needs one of \
             both (ListenDatagram= and ListenStream=)",
            inherited.dns_udp.len(),
            inherited.dns_tcp.len()
        );
        Ok(inherited)
    }

    /// True if no sockets were passed.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { http, https, quic, admin, dns_udp, dns_tcp } = self;
        [http, https, admin, dns_tcp].iter().all(|listeners| listeners.is_empty())
            && [quic, dns_udp].iter().all(|sockets| sockets.is_empty())
    }

    fn add(&mut self, socket: Socket, name: &str) -> anyhow::Result<()> {
        let kind = Kind::of(&socket).with_context(|| format!("the service manager's socket {name:?}"))?;
        socket.set_nonblocking(true).with_context(|| format!("the service manager's socket {name:?}"))?;
        match (name, kind) {
            ("http", Kind::Listener) => self.http.push(socket.into()),
            ("https", Kind::Listener) => self.https.push(socket.into()),
            ("admin", Kind::Listener) => self.admin.push(socket.into()),
            ("quic", Kind::Datagram) => self.quic.push(socket.into()),
            ("dns", Kind::Datagram) => self.dns_udp.push(socket.into()),
            ("dns", Kind::Listener) => self.dns_tcp.push(socket.into()),
            ("http" | "https" | "admin" | "quic" | "dns", kind) => bail!(
                "the service manager's socket {name:?} is {}; it must be {}",
                kind.describe(),
                match name {
                    "quic" => "a datagram socket (ListenDatagram=)",
                    "dns" => "a datagram socket (ListenDatagram=) or a listening stream socket (ListenStream=)",
                    _ => "a listening stream socket (ListenStream=)",
                }
            ),
            _ => bail!(
                "the service manager handed over a socket named {name:?}; known names are http, https, quic, dns and admin \
                 (FileDescriptorName= in the socket unit)"
            ),
        }
        Ok(())
    }
}

/// Turns a number into a descriptor. No other code does.
#[expect(unsafe_code, reason = "a descriptor can be taken over by its number alone")]
fn own(descriptor: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the service manager opened this descriptor for this process (LISTEN_PID names it), nothing else here uses
    // it, and it is taken only once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listener,
    Datagram,
    Other(&'static str),
}

impl Kind {
    fn of(socket: &Socket) -> std::io::Result<Self> {
        let (kind, domain) = (socket.r#type()?, socket.domain()?);
        Ok(match kind {
            _ if domain != Domain::IPV4 && domain != Domain::IPV6 => Self::Other("no internet socket"),
            Type::DGRAM => Self::Datagram,
            Type::STREAM if socket.is_listener()? => Self::Listener,
            Type::STREAM => Self::Other("a stream socket that does not listen (Accept=yes is not supported)"),
            _ => Self::Other("of another type"),
        })
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Listener => "a listening stream socket",
            Self::Datagram => "a datagram socket",
            Self::Other(what) => what,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_are_taken_by_name_and_type() {
        let mut inherited = Inherited::default();
        let stream = || Socket::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let datagram = || Socket::from(UdpSocket::bind("[::1]:0").unwrap());
        for (socket, name) in [
            (stream(), "http"),
            (stream(), "https"),
            (stream(), "admin"),
            (stream(), "dns"),
            (datagram(), "quic"),
            (datagram(), "dns"),
        ] {
            inherited.add(socket, name).unwrap();
        }
        let Inherited { http, https, quic, admin, dns_udp, dns_tcp } = &inherited;
        let counts = [http.len(), https.len(), quic.len(), admin.len(), dns_udp.len(), dns_tcp.len()];
        assert_eq!(counts, [1; 6]);

        let folder = tempfile::tempdir().unwrap();
        let unix = Socket::from(UnixListener::bind(folder.path().join("s")).unwrap());
        let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for (socket, name, said) in [
            (stream(), "quic", "\"quic\" is a listening stream socket; it must be a datagram socket (ListenDatagram=)"),
            (
                datagram(),
                "https",
                "\"https\" is a datagram socket; it must be a listening stream socket (ListenStream=)",
            ),
            (unix, "https", "\"https\" is no internet socket;"),
            (idle, "http", "\"http\" is a stream socket that does not listen"),
            (stream(), "htps", "a socket named \"htps\"; known names are http, https, quic, dns and admin"),
        ] {
            let error = inherited.add(socket, name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
