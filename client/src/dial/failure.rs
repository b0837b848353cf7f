//! Why a connection to the daemon fails: one cause, and the user's remedy.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cok_proto::FallbackReason;
use cok_transport::{HandshakeError, quic, ws};
use http::StatusCode;
use rustls::{AlertDescription, CertificateError};

use super::Config;
use super::proxy_failure::ProxyFailure;
use super::validity::Limit;
use crate::text::{explain, io_reason, quoted};
use crate::transport::TransportChoice;

/// TLS alerts (RFC 8446, section 6.2). QUIC reports failures of TLS by them.
mod alert {
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
    pub(super) const CERTIFICATE_UNKNOWN: u8 = 46;
    pub(super) const UNKNOWN_CA: u8 = 48;
    pub(super) const ACCESS_DENIED: u8 = 49;
    pub(super) const DECRYPT_ERROR: u8 = 51;
    pub(super) const UNRECOGNIZED_NAME: u8 = 112;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// How the certificate library's error names an authority's certificate in a server's place. Its type is private.
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";
/// How many of a certificate's names are shown.
const MAX_NAMES: usize = 3;
/// The start of every error of the system's resolver.
const LOOKUP: &str = "failed to lookup address information: ";

/// The daemon cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// The daemon, as the user knows it.
    server: String,
    user: User,
    cause: Cause,
}

/// What the user has chosen, as far as it decides what to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// QUIC alone.
    quic_only: bool,
    /// A server by its address in place of its name.
    by_address: bool,
}

impl User {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            quic_only: config.transport == TransportChoice::Quic,
            by_address: config.server.host().parse::<IpAddr>().is_ok(),
        }
    }
}

impl Unreachable {
    pub(super) fn new(config: &Config, cause: Cause) -> Self {
        Self { server: config.server.to_string(), user: User::of(config), cause }
    }
}

/// What is in the way, in the order in which a connection meets it. Of two causes, the later one is reported: its attempt
/// got further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The system gives no UDP socket.
    NoUdp(String),
    /// Nothing came back in time.
    NoAnswer { from: Option<SocketAddr>, within: Duration },
    /// The system can't send there. `has_none` is true if this machine has no address or no route of that kind.
    NoWay { to: SocketAddr, why: String, has_none: bool },
    /// The name is unknown, or the resolver does not answer.
    Unresolved(String),
    /// The port is closed.
    Refused(SocketAddr),
    /// The path lets handshakes pass, but no data.
    NoData(Duration),
    /// The connection ended during a handshake.
    Broken(String),
    /// The peer does not speak TLS.
    NotTls,
    /// The peer speaks QUIC, but another protocol on it.
    OtherProtocol,
    /// TLS failed otherwise.
    Tls(String),
    /// The peer stops answering during TLS or the upgrade.
    Silent { step: &'static str, within: Duration },
    /// No authority that the user trusts has signed the certificate. The name is that of the one that has, as shown to people.
    UnknownAuthority(Option<String>),
    /// It is for other names; none if they can't be known.
    OtherNames(Vec<String>),
    /// It has expired.
    Expired(Limit),
    /// It is not valid yet.
    NotYetValid(Limit),
    /// It is an authority's own certificate, as most self-signed ones are.
    SelfSigned,
    /// It can't be checked.
    BadCertificate(String),
    /// The server has no certificate for its name.
    UnknownName,
    /// The server's name can't stand in a certificate.
    BadName(String),
    /// A proxy does not lead to the daemon.
    Proxy(Box<ProxyFailure>),
    /// A proxy is on the way, and the certificate is from this authority, which is not trusted.
    Intercepted { issuer: String },
    /// The server answers, but opens no tunnel. The name is that of a proxy on the way.
    Status(StatusCode, Option<String>),
    /// It answers something else than an upgrade.
    NoUpgrade(String),
}

/// Whether an error says that this machine has no network of an address's kind: no address, no route, or no such sockets.
fn has_none(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

/// EAFNOSUPPORT, which has no kind of its own.
#[cfg(unix)]
const NO_SUCH_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
/// WSAEAFNOSUPPORT.
#[cfg(not(unix))]
const NO_SUCH_FAMILY: i32 = 10047;

impl Cause {
    /// Why a client does without QUIC, in a word for the daemon.
    pub(super) fn fallback(&self) -> FallbackReason {
        match self {
            Self::NoUdp(_) | Self::NoWay { .. } => FallbackReason::NoUdp,
            Self::NoAnswer { .. } | Self::Refused(_) | Self::Silent { .. } => FallbackReason::NoAnswer,
            Self::NoData(_) => FallbackReason::NoData,
            _ => FallbackReason::Other("other".to_owned()),
        }
    }

    /// Picks the more telling cause of two. If both got equally far, it is the WebSocket's.
    pub(super) fn telling(quic: Self, ws: Self) -> Self {
        if quic.step() > ws.step() { quic } else { ws }
    }

    /// How far the attempt got.
    pub(super) fn step(&self) -> u8 {
        match self {
            Self::NoUdp(_) | Self::NoAnswer { .. } => 0,
            Self::NoWay { .. } => 1,
            Self::Unresolved(_) | Self::Refused(_) | Self::Proxy(_) => 2,
            Self::NoData(_) | Self::Broken(_) | Self::NotTls | Self::OtherProtocol | Self::Tls(_) => 3,
            Self::Silent { .. } => 4,
            Self::UnknownAuthority(_)
            | Self::OtherNames(_)
            | Self::Expired(_)
            | Self::NotYetValid(_)
            | Self::SelfSigned
            | Self::BadCertificate(_)
            | Self::UnknownName
            | Self::BadName(_)
            | Self::Intercepted { .. } => 5,
            Self::Status(..) | Self::NoUpgrade(_) => 6,
        }
    }

    /// Why a name has no address.
    pub(crate) fn of_lookup(error: &io::Error) -> Self {
        let text = io_reason(error);
        Self::Unresolved(text.strip_prefix(LOOKUP).unwrap_or(&text).to_owned())
    }

    /// Why there is no TCP connection to an address.
    pub(super) fn of_tcp(error: &io::Error, to: SocketAddr) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(to),
            _ => Self::NoWay { to, why: io_reason(error), has_none: has_none(error) },
        }
    }

    /// Why TLS failed over TCP.
    pub(crate) fn of_tls(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Self::Broken("it closed the connection during the TLS handshake".to_owned())
                }
                _ => Self::Broken(format!("the connection broke during the TLS handshake: {}", io_reason(error))),
            };
        };
        match tls {
            rustls::Error::InvalidCertificate(why) => Self::of_certificate(why),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::AlertReceived(AlertDescription::AccessDenied | AlertDescription::UnrecognisedName) => {
                Self::UnknownName
            }
            other => Self::Tls(quoted(&other.to_string())),
        }
    }

    fn of_certificate(why: &CertificateError) -> Self {
        match why {
            // Another authority with the same name has signed it.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority(None),
            CertificateError::NotValidForName => Self::OtherNames(Vec::new()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::OtherNames(presented.iter().map(|name| quoted(bare(name))).collect())
            }
            CertificateError::Expired => Self::Expired(Limit::of(None)),
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(Limit::of(Some(not_after.as_secs()))),
            CertificateError::NotValidYet => Self::NotYetValid(Limit::of(None)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid(Limit::of(Some(not_before.as_secs())))
            }
            CertificateError::Other(other) => Self::of_other_certificate(&explain(other)),
            other => Self::BadCertificate(quoted(&other.to_string())),
        }
    }

    fn of_other_certificate(why: &str) -> Self {
        if why.contains(AUTHORITY_AS_SERVER) { Self::SelfSigned } else { Self::BadCertificate(quoted(why)) }
    }

    /// Why there is no QUIC connection to an address.
    pub(super) fn of_quic(error: quic::DialError, to: SocketAddr) -> Self {
        match error {
            quic::DialError::Socket(error) => Self::NoUdp(io_reason(&error)),
            quic::DialError::Dial(error) => Self::BadName(error.to_string()),
            quic::DialError::TimedOut(within) => Self::NoAnswer { from: Some(to), within },
            quic::DialError::Alert { code, by_peer: false, why } => Self::of_our_alert(code, &why),
            quic::DialError::Alert { code: alert::ACCESS_DENIED | alert::UNRECOGNIZED_NAME, .. } => Self::UnknownName,
            quic::DialError::Alert { code: alert::NO_APPLICATION_PROTOCOL, .. } => Self::OtherProtocol,
            error => Self::Tls(quoted(&error.to_string())),
        }
    }

    /// Why this side ended a QUIC handshake. An alert says less than the error behind it.
    fn of_our_alert(code: u8, why: &str) -> Self {
        match code {
            // Another authority with the same name has signed it.
            alert::UNKNOWN_CA | alert::DECRYPT_ERROR => Self::UnknownAuthority(None),
            // One alert says both.
            alert::CERTIFICATE_EXPIRED if why.contains("not valid yet") => Self::NotYetValid(Limit::of_text(why)),
            alert::CERTIFICATE_EXPIRED => Self::Expired(Limit::of_text(why)),
            alert::BAD_CERTIFICATE => Self::OtherNames(Vec::new()),
            alert::CERTIFICATE_UNKNOWN => Self::of_other_certificate(why),
            alert::NO_APPLICATION_PROTOCOL => Self::OtherProtocol,
            _ => Self::Tls(quoted(why)),
        }
    }

    /// Why a QUIC connection carries no data.
    pub(super) fn of_echo(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::TimedOut(within) => Self::NoData(*within),
            HandshakeError::Closed(reason) => {
                Self::Broken(format!("the connection ended after the handshake: {}", quoted(&reason.to_string())))
            }
        }
    }

    /// Why there is no WebSocket on a TLS connection.
    pub(crate) fn of_upgrade(error: ws::UpgradeError) -> Self {
        match error {
            ws::UpgradeError::Status { status, via } => Self::Status(status, via.as_deref().map(quoted)),
            ws::UpgradeError::TimedOut(within) => Self::Silent { step: "the request for a WebSocket", within },
            ws::UpgradeError::Broken(why) => Self::NoUpgrade(quoted(&why)),
        }
    }

    /// The user's remedy.
    pub(crate) fn advice(&self, User { quic_only, by_address }: User) -> &'static str {
        match self {
            Self::NoUdp(_) | Self::NoData(_) => "--transport auto takes a WebSocket where UDP does not pass",
            Self::NoAnswer { .. } if quic_only => {
                "check the address; if a firewall blocks UDP, --transport auto takes a WebSocket"
            }
            Self::NoAnswer { .. } => "check the address, and that no firewall blocks the port",
            Self::NoWay { .. } => "check this machine's network",
            Self::Unresolved(_) => "check the name of the server, and this machine's DNS",
            Self::Refused(_) => "is cokd running there, and on this port?",
            Self::Broken(_) | Self::Tls(_) | Self::Silent { .. } | Self::OtherProtocol => "is it a cokd?",
            Self::NotTls => "is this the port for HTTPS?",
            Self::UnknownAuthority(_) => {
                "if it is the server's own, or that of a proxy in between which you trust, name its file by --ca-file"
            }
            Self::OtherNames(_) | Self::UnknownName if by_address => "name the server by its name, not by its address",
            Self::OtherNames(_) | Self::UnknownName => "check the name of the server",
            Self::Expired(limit) | Self::NotYetValid(limit) if limit.other_clock().is_some() => {
                // The server could say any time, such as one at which a stolen certificate was valid.
                "check it against another source, and set it"
            }
            Self::Expired(Limit { there: Some(_), .. }) => "its operator has to renew it",
            Self::Expired(_) => "its operator has to renew it, unless this machine's clock is wrong",
            Self::NotYetValid(Limit { there: Some(_), .. }) => "its operator has to check it, and the server's clock",
            Self::NotYetValid(_) => "check this machine's clock",
            Self::SelfSigned => {
                "give the server one that an authority has signed, and name that authority by --ca-file"
            }
            Self::BadCertificate(_) => "the server needs another one",
            Self::BadName(_) => "the server must be a host name or an IP address",
            Self::Proxy(failure) => failure.advice(),
            Self::Intercepted { .. } => {
                "if the proxy may read along, name that authority by --ca-file; if not, ask for an exception"
            }
            Self::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED, _) => {
                "a proxy in between wants to know who you are; ask its operator to let the tunnel pass"
            }
            Self::Status(StatusCode::NETWORK_AUTHENTICATION_REQUIRED, _) => {
                "this network wants you to log in; open any page in a browser"
            }
            Self::Status(_, Some(_)) => "ask the proxy's operator to let WebSockets to the server pass",
            Self::Status(status, None) if status.is_server_error() => "it may be starting, full, or no cokd",
            Self::Status(_, None) | Self::NoUpgrade(_) => "is it the address of a cokd, of a version that fits?",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUdp(why) => write!(f, "cannot open a UDP socket: {why}"),
            Self::NoAnswer { from: Some(from), within } => {
                write!(f, "no answer from {from} within {}", seconds(*within))
            }
            Self::NoAnswer { from: None, within } => write!(f, "no answer within {}", seconds(*within)),
            Self::NoWay { to, why, .. } => write!(f, "cannot connect to {to}: {why}"),
            Self::Unresolved(why) => write!(f, "its name cannot be resolved: {why}"),
            Self::Refused(by) => write!(f, "connection refused by {by}"),
            Self::NoData(within) => {
                write!(f, "the handshake succeeded, but no data came back within {}", seconds(*within))
            }
            Self::Broken(why) => f.write_str(why),
            Self::NotTls => f.write_str("it does not speak TLS"),
            Self::OtherProtocol => f.write_str("it speaks QUIC, but not cok's protocol"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Silent { step, within } => write!(f, "no answer to {step} within {}", seconds(*within)),
            Self::UnknownAuthority(Some(name)) => {
                write!(f, "its certificate is from the authority \"{name}\", which is not trusted here")
            }
            Self::UnknownAuthority(None) => {
                f.write_str("its certificate is from an authority that is not trusted here")
            }
            Self::OtherNames(names) if names.is_empty() => f.write_str("its certificate is for another name"),
            Self::OtherNames(names) => {
                let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
                let more = if names.len() > MAX_NAMES { ", …" } else { "" };
                write!(f, "its certificate is only for {}{more}", shown.join(", "))
            }
            Self::Expired(limit) => limit.show(f, "expired on", "ago"),
            Self::NotYetValid(limit) => limit.show(f, "is not valid before", "from now"),
            Self::SelfSigned => f.write_str("its certificate is self-signed, as only an authority's may be"),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be accepted: {why}"),
            Self::UnknownName => f.write_str("it has no certificate for this name"),
            Self::BadName(why) => write!(f, "its name cannot be dialled: {why}"),
            Self::Proxy(failure) => failure.fmt(f),
            Self::Intercepted { issuer } => write!(
                f,
                "its certificate is from \"{issuer}\", which is not trusted here; the proxy on the way may read along"
            ),
            Self::Status(status, None) => write!(f, "it answered {status} instead of opening a tunnel"),
            Self::Status(status, Some(proxy)) => {
                write!(f, "the proxy {proxy} in between answered {status} instead of opening a tunnel")
            }
            Self::NoUpgrade(why) => write!(f, "it does not open a tunnel: {why}"),
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, user, cause } = self;
        let over = if user.quic_only { " over QUIC" } else { "" };
        write!(f, "cannot reach {server}{over}: {cause}; {}", cause.advice(*user))
    }
}

/// Seconds, with a decimal place if needed.
fn seconds(time: Duration) -> String {
    let text = format!("{:.1}", time.as_secs_f64());
    format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
}

/// A certificate's name without its kind, as in `DnsName("example.com")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_kind, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    fn said(cause: Cause, quic_only: bool) -> String {
        Unreachable { server: "https://t.example".to_owned(), user: User { quic_only, by_address: false }, cause }
            .to_string()
    }

    #[test]
    fn each_cause_is_one_sentence_with_an_advice() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            said(Cause::of_tcp(&refused, address()), false),
            "cannot reach https://t.example: connection refused by 192.0.2.1:443; is cokd running there, and on this port?"
        );
        let within = Duration::from_secs(4);
        assert_eq!(
            said(Cause::NoAnswer { from: Some(address()), within }, true),
            "cannot reach https://t.example over QUIC: no answer from 192.0.2.1:443 within 4 s; check the address; if a \
             firewall blocks UDP, --transport auto takes a WebSocket"
        );
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(
            said(Cause::of_lookup(&unknown), false),
            "cannot reach https://t.example: its name cannot be resolved: Name or service not known; check the name of \
             the server, and this machine's DNS"
        );
        let tls = |error: rustls::Error| Cause::of_tls(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert!(said(tls(CertificateError::UnknownIssuer.into()), false).ends_with("name its file by --ca-file"));
        let named = said(Cause::UnknownAuthority(Some("Corp".to_owned())), false);
        assert!(named.contains("from the authority \"Corp\", which"), "{named}");
        let presented = ["a", "b", "c", "d"].map(|name| format!("DnsName(\"{name}.example\")")).to_vec();
        let expected = rustls_pki_types::ServerName::try_from("t.example").unwrap();
        assert_eq!(
            said(tls(CertificateError::NotValidForNameContext { expected, presented }.into()), false),
            "cannot reach https://t.example: its certificate is only for a.example, b.example, c.example, …; check the \
             name of the server"
        );
    }

    #[test]
    fn both_transports_have_one_cause() {
        let silence = || Cause::NoAnswer { from: None, within: Duration::from_secs(2) };
        let ours = |code, why: &str| {
            Cause::of_quic(quic::DialError::Alert { code, by_peer: false, why: why.to_owned() }, address())
        };
        let untrusted = ours(alert::UNKNOWN_CA, "invalid peer certificate: UnknownIssuer");
        assert_eq!(untrusted, Cause::UnknownAuthority(None));
        // The same twice; what the one knows better; what got further.
        let unknown = Cause::UnknownAuthority(None);
        assert_eq!(Cause::telling(untrusted.clone(), unknown.clone()), unknown);
        let why = "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))";
        assert_eq!(ours(alert::CERTIFICATE_UNKNOWN, why), Cause::SelfSigned);
        let names = Cause::OtherNames(vec!["a.example".to_owned()]);
        assert_eq!(Cause::telling(Cause::OtherNames(Vec::new()), names.clone()), names);
        assert_eq!(Cause::telling(silence(), Cause::Refused(address())), Cause::Refused(address()));
        assert_eq!(Cause::telling(untrusted.clone(), Cause::Refused(address())), untrusted);
        let not_found = Cause::Status(StatusCode::NOT_FOUND, None);
        assert_eq!(Cause::telling(Cause::OtherProtocol, not_found.clone()), not_found);
    }

    #[test]
    fn a_wrong_clock_is_no_wrong_certificate() {
        let (at, day) = (1_795_948_927, 86_400);
        let cause = |here, there| said(Cause::Expired(Limit { at: Some(at), here, there }), false);
        let start = "cannot reach https://t.example: ";
        let expired = "its certificate expired on 2026-11-29 10:42:07 UTC, 2 days ago; its operator has to renew it";
        let late = at + 2 * day;
        assert_eq!(cause(late, None), format!("{start}{expired}, unless this machine's clock is wrong"));
        assert_eq!(cause(late, Some(late + 60)), format!("{start}{expired}"));
        assert_eq!(
            cause(late, Some(at - day)),
            format!(
                "{start}this machine's clock is 3 days ahead of the server's: it says 2026-12-01 10:42:07 UTC, the \
                 server's 2026-11-28 10:42:07 UTC; check it against another source, and set it"
            )
        );
        // By both clocks it has expired.
        let month = at + 30 * day;
        let expired = expired.replace("2 days", "30 days");
        assert_eq!(cause(month, Some(month + 400)), format!("{start}{expired}"));
        assert_eq!(cause(month, Some(at + 400)), format!("{start}{expired}"));
        let early = |there| said(Cause::NotYetValid(Limit { at: Some(at), here: at - 3 * day, there }), false);
        assert!(early(Some(at)).contains("clock is 3 days behind the server's"), "{}", early(Some(at)));
        assert_eq!(
            early(None),
            format!(
                "{start}its certificate is not valid before 2026-11-29 10:42:07 UTC, 3 days from now; check this machine's clock"
            )
        );
        // QUIC has only the text of the error.
        let why = |error: CertificateError| rustls::Error::from(error).to_string();
        let time = |seconds| rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = why(CertificateError::ExpiredContext { time: time(late), not_after: time(at) });
        let early = why(CertificateError::NotValidYetContext { time: time(5), not_before: time(at) });
        for (text, is_early) in [(expired, false), (early, true)] {
            match Cause::of_our_alert(alert::CERTIFICATE_EXPIRED, &text) {
                Cause::Expired(limit) if !is_early => assert_eq!(limit.at, Some(at)),
                Cause::NotYetValid(limit) if is_early => assert_eq!(limit.at, Some(at)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_proxy_in_between_is_named() {
        let of = |status, via: Option<&str>| {
            said(Cause::of_upgrade(ws::UpgradeError::Status { status, via: via.map(str::to_owned) }), false)
        };
        assert!(of(StatusCode::FORBIDDEN, Some("1.1 squid")).ends_with(
            "the proxy 1.1 squid in between answered 403 Forbidden instead of opening a tunnel; ask the proxy's operator to let \
             WebSockets to the server pass"
        ));
        assert!(of(StatusCode::PROXY_AUTHENTICATION_REQUIRED, None).contains("wants to know who you are"));
        assert!(of(StatusCode::NETWORK_AUTHENTICATION_REQUIRED, None).contains("log in"));
    }

    #[test]
    fn a_server_is_named_by_its_name() {
        let user = User { quic_only: false, by_address: true };
        let said = Unreachable { server: "https://192.0.2.1".to_owned(), user, cause: Cause::UnknownName }.to_string();
        assert!(said.ends_with("; name the server by its name, not by its address"), "{said}");
    }

    #[test]
    fn times_are_as_exact_as_they_need_to_be() {
        assert_eq!(seconds(Duration::from_secs(10)), "10 s");
        assert_eq!(seconds(Duration::from_millis(350)), "0.3 s");
    }
}
