//! SOCKS5 on a connection to the proxy. The library's errors become ours here.

use tokio::net::TcpStream;
use tokio_socks::Error;
use tokio_socks::tcp::Socks5Stream;

use super::proxy_failure::Why;
use super::through::To;
use crate::text::io_reason;

/// Asks the proxy for a connection. The stream that it returns leads there.
pub(super) async fn ask(stream: TcpStream, to: &To<'_>, login: Option<(&str, &str)>) -> Result<TcpStream, Why> {
    let asked = match (to, login) {
        (To::Address(to), None) => Socks5Stream::connect_with_socket(stream, *to).await,
        (To::Name(to), None) => Socks5Stream::connect_with_socket(stream, (to.host.as_str(), to.port)).await,
        (To::Address(to), Some((user, password))) => {
            Socks5Stream::connect_with_password_and_socket(stream, *to, user, password).await
        }
        (To::Name(to), Some((user, password))) => {
            let to = (to.host.as_str(), to.port);
            Socks5Stream::connect_with_password_and_socket(stream, to, user, password).await
        }
    };
    asked.map(Socks5Stream::into_inner).map_err(|error| reason(error, login.is_some()))
}

fn reason(error: Error, has_login: bool) -> Why {
    match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Why::Broken("it closed the connection without an answer".to_owned())
        }
        Error::Io(error) => Why::Broken(io_reason(&error)),
        Error::NoAcceptableAuthMethods if has_login => Why::OtherLogin("another login than a password".to_owned()),
        Error::NoAcceptableAuthMethods | Error::AuthorizationRequired => Why::NoLogin,
        Error::PasswordAuthFailure(_) => Why::WrongLogin,
        Error::ConnectionNotAllowedByRuleset => Why::Forbidden("not allowed by its rules".to_owned()),
        // SOCKS has one code for names and addresses.
        Error::HostUnreachable => Why::NoWay("the host is unreachable, or its name is unknown there".to_owned()),
        Error::NetworkUnreachable => Why::NoWay("the network is unreachable".to_owned()),
        Error::ConnectionRefused => Why::NoWay("connection refused".to_owned()),
        Error::TtlExpired => Why::NoWay("no answer in time".to_owned()),
        Error::GeneralSocksServerFailure => Why::NoWay("general failure".to_owned()),
        Error::InvalidTargetAddress(why) | Error::InvalidAuthValues(why) => Why::Answer(why.to_owned()),
        other => Why::NotAProxy(format!("its answer is not SOCKS5: {other}")),
    }
}
