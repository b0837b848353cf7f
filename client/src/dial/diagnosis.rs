//! Looks closer at a certificate that was refused: who has signed it, and whether this machine's clock is right. It costs one
//! more connection, which carries nothing but the question for the time. No certificate is trusted here that is not anyway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_host::figures::unix_seconds;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::time::timeout;

use super::failure::Cause;
use super::validity::Limit;
use super::{Config, addresses, look, tls};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);
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
    let stream = tls(config, addresses, &Arc::new(then)).await.ok()?;
    Some(unix_seconds(look::date(stream, &config.server.authority()).await?))
}

/// A clock that stands still.
#[derive(Debug)]
struct Then(UnixTime);

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}
