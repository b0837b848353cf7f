//! The server: its clock and certificate, the upgrade to a WebSocket, and the key.

use std::time::{Duration, Instant, SystemTime};

use cok_host::figures;
use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{Connect, DrainReason, ErrorCode, SessionError};
use cok_transport::{CloseReason, HandshakeError, WindowBudget, ws};
use tokio::time::timeout;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::network::Network;
use super::{Check, stranger};
use crate::dial::{self, Cause, Path};
use crate::options::ClientOptions;
use crate::text::quoted;
use crate::transport::TransportChoice;

/// Timeout of the look at the server's clock.
const LOOK: Duration = Duration::from_secs(10);
/// The largest difference of the clocks. Certificates and share links allow no more than some minutes.
const CLOCK: Duration = Duration::from_secs(60);
/// The most time for the goodbye of the session.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the server shows to a visitor without trust.
#[derive(Debug, Default)]
struct Look {
    date: Option<SystemTime>,
    /// In DER, the server's own first.
    certificates: Vec<Vec<u8>>,
}

/// Checks the upgrade to a WebSocket, the clock and the certificate.
pub(super) async fn check_websocket(config: &dial::Config, found: &Network, report: &mut impl FnMut(Check)) {
    if !found.has_tcp {
        for name in ["websocket", "clock", "trust"] {
            report(Check::skipped(name, "there is no TCP connection"));
        }
        return;
    }
    let look = timeout(LOOK, look(config)).await.ok().flatten().unwrap_or_default();
    let clock = clock(look.date, SystemTime::now());
    let addresses = dial::addresses(config).await.unwrap_or_default();
    let began = Instant::now();
    let stream = dial::tls(config, &addresses, &config.tls).await;
    let trust = match &stream {
        Ok(_) => Check::ok("trust", shown(&look.certificates)),
        Err(cause @ (Cause::UnknownAuthority(_) | Cause::SelfSigned)) => {
            let issuer = dial::name_of_issuer(&look.certificates).unwrap_or_else(|| "an unnamed authority".to_owned());
            Check::failed("trust", format!("{cause}: \"{issuer}\""), cause.advice(dial::User::of(config)))
        }
        Err(cause @ (Cause::Expired(_) | Cause::NotYetValid(_))) if clock.advice.is_some() => {
            Check::failed("trust", cause.to_string(), "check this machine's clock against another source, and set it")
        }
        Err(cause) => Check::caused("trust", config, cause),
    };
    report(match stream {
        _ if config.transport == TransportChoice::Quic => Check::skipped("websocket", "--transport quic does without"),
        Err(_) => Check::skipped("websocket", "there is no trusted connection"),
        Ok(stream) => match ws::open(stream, &config.server.authority(), dial::UPGRADE).await {
            Ok(_) => Check::ok("websocket", "the server opens a WebSocket").took(began.elapsed()),
            Err(error) => Check::caused("websocket", config, &Cause::of_upgrade(error)),
        },
    });
    report(clock);
    report(trust);
}

/// Asks the server for its time of day, without trust and without secrets.
async fn look(config: &dial::Config) -> Option<Look> {
    let stream = dial::stream(config, &dial::addresses(config).await.ok()?).await.ok()?;
    let (stream, certificates) = dial::untrusting(config, stream).await?;
    Some(Look { date: dial::date(stream, &config.server.authority()).await, certificates })
}

fn clock(server: Option<SystemTime>, here: SystemTime) -> Check {
    let Some(server) = server else { return Check::skipped("clock", "the server does not say its time of day") };
    let (difference, relation) = match here.duration_since(server) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if difference <= CLOCK {
        return Check::ok("clock", "as the server's");
    }
    let difference = figures::duration(difference);
    Check::failed(
        "clock",
        format!("this machine's clock is {difference} {relation} the server's"),
        "set it, by network time if possible",
    )
}

/// A certificate in a few words.
fn shown(certificates: &[Vec<u8>]) -> String {
    let own = certificates.first().map(|own| X509Certificate::from_der(own));
    let Some(Ok((_, parsed))) = own else {
        return "the certificate is trusted".to_owned();
    };
    let issuer = dial::name_of_issuer(certificates).unwrap_or_else(|| "an unnamed authority".to_owned());
    let end = figures::date_time(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0));
    format!("the certificate is from \"{issuer}\", valid until {end}")
}

/// Asks for a session without a tunnel, and ends it. Says whether the server grants one.
pub(super) async fn check_key(options: &ClientOptions, path: Path, report: &mut impl FnMut(Check)) -> bool {
    let Some(instance) = stranger() else {
        report(Check::skipped("key", "the system gives no random numbers"));
        return false;
    };
    let ask = Connect {
        key: options.key.clone(),
        tunnel: false,
        subdomain: None,
        instance,
        replaces: None,
        initial_window: DEFAULT_WINDOW,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: Vec::new(),
        fallback: None,
    };
    let limits =
        cok_transport::Config { initial_window: DEFAULT_WINDOW, max_exchanges: 1, budget: WindowBudget::new(0) };
    let began = Instant::now();
    match path.connect(limits, &ask, &[]).await {
        Ok((transport, ..)) => {
            report(Check::ok("key", "the server grants a session").took(began.elapsed()));
            transport.drain(DrainReason::Shutdown, GOODBYE);
            let _late = timeout(GOODBYE, transport.closed()).await;
            true
        }
        // The limit may be reached by clients that run well, so nothing is known to be wrong.
        Err(HandshakeError::Closed(CloseReason::Session(SessionError::Peer(error))))
            if error.code == ErrorCode::LimitReached =>
        {
            report(Check::skipped("key", quoted(&format!("there is no room for a session now: {}", error.message))));
            false
        }
        Err(HandshakeError::Closed(CloseReason::Session(SessionError::Peer(error)))) => {
            let advice = match error.code {
                ErrorCode::Unauthorized => "check the key; its operator may have revoked it, or it has expired",
                _ if error.retryable => "try again later",
                _ => "ask the server's operator",
            };
            report(Check::failed("key", quoted(&format!("refused: {error}")), advice));
            false
        }
        Err(error) => {
            report(Check::failed("key", quoted(&error.to_string()), "try again; the server did not answer"));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_clock_may_differ_by_a_minute() {
        let now = SystemTime::now();
        assert_eq!(clock(Some(now - CLOCK), now).outcome, Outcome::Ok);
        assert_eq!(clock(None, now).outcome, Outcome::Skipped);
        let wrong = |server| clock(Some(server), now).detail;
        assert_eq!(wrong(now - CLOCK * 2), "this machine's clock is 2 min ahead of the server's");
        assert_eq!(wrong(now + CLOCK * 60), "this machine's clock is 1 h behind the server's");
    }
}
