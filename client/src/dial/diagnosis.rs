//! Looks closer at a certificate that was refused: who has signed it, and whether this machine's clock is right. It costs one
//! more connection, which carries nothing but the question for the time. No certificate is trusted here that is not anyway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::failure::Cause;
use super::validity::Limit;
use super::{Config, addresses, look, tls};
use crate::figures::unix_seconds;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest head of an answer that is read.
const MOST: u64 = 8192;
/// How far a time is taken from the end of a certificate's validity, so that it is within.
const MARGIN: Duration = Duration::from_secs(1);

/// Adds to a cause what a closer look shows.
pub(super) async fn look_closer(config: &Config, cause: Cause) -> Cause {
    if !matches!(cause, Cause::UnknownAuthority(_) | Cause::Expired(_) | Cause::NotYetValid(_)) {
        return cause;
    }
    timeout(PATIENCE, closer(config, cause.clone())).await.ok().flatten().unwrap_or(cause)
}

async fn closer(config: &Config, cause: Cause) -> Option<Cause> {
    let addresses = addresses(config).await.ok()?;
    Some(match cause {
        // A proxy that reads along shows a certificate of its network's own authority.
        Cause::UnknownAuthority(_) if config.proxy.is_some() => {
            Cause::Intercepted { issuer: look::issuer(config, &addresses).await? }
        }
        Cause::UnknownAuthority(_) => Cause::UnknownAuthority(look::issuer(config, &addresses).await),
        Cause::Expired(limit) => {
            let within = limit.at.and_then(|at| at.checked_sub(MARGIN.as_secs()));
            Cause::Expired(Limit { there: servers_clock(config, &addresses, within).await, ..limit })
        }
        Cause::NotYetValid(limit) => {
            let within = limit.at.and_then(|at| at.checked_add(MARGIN.as_secs()));
            Cause::NotYetValid(Limit { there: servers_clock(config, &addresses, within).await, ..limit })
        }
        other => other,
    })
}

/// What the server's clock says, in seconds since 1970. Its certificate is checked as always, but at the time `within` its
/// validity.
async fn servers_clock(config: &Config, addresses: &[SocketAddr], within: Option<u64>) -> Option<u64> {
    let mut then = ClientConfig::clone(&config.tls);
    then.time_provider = Arc::new(Then(UnixTime::since_unix_epoch(Duration::from_secs(within?))));
    // A resumed handshake would check no certificate.
    then.resumption = Resumption::disabled();
    let mut stream = tls(config, addresses, &Arc::new(then)).await.ok()?;
    let ask = format!("HEAD / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", config.server.authority());
    stream.write_all(ask.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut limited = stream.take(MOST);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        // Without the end of TLS, what has come counts all the same.
        match limited.read_buf(&mut answer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    date_of(&answer)
}

/// The field `date` of a response's head.
fn date_of(head: &[u8]) -> Option<u64> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).ok()?;
    let date = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("date"))?;
    let date = httpdate::parse_http_date(std::str::from_utf8(date.value).ok()?).ok()?;
    Some(unix_seconds(date))
}

/// A clock that stands still.
#[derive(Debug)]
struct Then(UnixTime);

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_date() {
        let head = b"HTTP/1.1 404 Not Found\r\nDate: Sun, 29 Nov 2026 10:42:07 GMT\r\n\r\n";
        assert_eq!(date_of(head), Some(1_795_948_927));
        assert_eq!(date_of(b"HTTP/1.1 404 Not Found\r\ndate: today\r\n\r\n"), None);
        assert_eq!(date_of(b"SSH-2.0-x\r\n"), None);
    }
}
