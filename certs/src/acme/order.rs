//! One order, from its placement to the certificate chain. Base and wildcard name share it and are proven by DNS-01.
//!
//! It keeps nothing on disk, and does not remove published values.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::http;
use super::problem::{MOST_NONCES, is, is_of_kind, past_bad_nonces, refuses_account};
use crate::dns::Solver;
use crate::one_line::one_line;

/// The longest wait for the values to be visible at all name servers.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest that a server may take to check a challenge or to issue the certificate.
const ORDER_TIMEOUT: Duration = Duration::from_secs(120);
/// The first pause between two looks at the order. It doubles, since most servers are done within a second...
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// ...up to this, so that a finished order is noticed soon.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The content of an order.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) names: &'a [&'a str],
    pub(super) profile: Option<&'a str>,
    /// The certificate that this one replaces (RFC 9773, section 5), if the server may know it.
    pub(super) replaces: Option<&'a CertificateDer<'a>>,
}

/// A chain and its key in PEM.
pub(super) struct Issued {
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
}

/// Why an order gave no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server refuses the account.
    #[error("{0}")]
    Account(Error),
    /// Anything else.
    #[error("{0}")]
    Other(#[from] Error),
}

/// Orders a certificate. The caller removes the published values.
pub(super) async fn obtain(
    client: &http::Client,
    account: &Account,
    wanted: Wanted<'_>,
    solver: &dyn Solver,
) -> Result<Issued, Failure> {
    let placed = place(client, account, wanted).await;
    let mut order = placed
        .map_err(|error| if refuses_account(&error) { Failure::Account(error) } else { Failure::Other(error) })?;
    debug!(order = order.url(), "order placed");
    let values = challenges(&mut order).await?;
    prove(client, &mut order, &values, solver).await?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(other)?;
    let names: Vec<String> = wanted.names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(other)?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).map_err(other)?;
    past_bad_nonces!(order.finalize_csr(csr.der()))?;
    until(client, &mut order, OrderStatus::Valid).await?;
    let chain_pem = past_bad_nonces!(order.certificate())?;
    let chain_pem = chain_pem.ok_or(Error::Str("the server names no certificate"))?;
    Ok(Issued { chain_pem, key_pem: key.serialize_pem() })
}

/// Places the order with `replaces`, and without it if the server refuses that. An order that may exist is never placed
/// twice.
async fn place(client: &http::Client, account: &Account, wanted: Wanted<'_>) -> Result<Order, Error> {
    let identifiers: Vec<_> = wanted.names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect();
    let order = || match wanted.profile {
        Some(profile) => NewOrder::new(&identifiers).profile(profile),
        None => NewOrder::new(&identifiers),
    };
    if let Some(identifier) = wanted.replaces.and_then(|old| CertificateIdentifier::try_from(old).ok()) {
        let order = order().replaces(identifier);
        client.take_created();
        match past_bad_nonces!(account.new_order(&order)) {
            Err(Error::Unsupported(_)) => {}
            Err(Error::Api(problem)) if may_be_about_replaces(&problem) => {
                let error = one_line(&problem.to_string());
                warn!(
                    error,
                    "an order that names the old certificate was refused, and is placed again without it: {error}"
                );
            }
            // The library reports an error if the order does not show what it replaces, although the server has placed
            // it.
            Err(error) => {
                let Some(url) = client.take_created() else { return Err(error) };
                debug!(%error, order = url, "the order was placed");
                return past_bad_nonces!(account.order(url.clone()));
            }
            placed => return placed,
        }
    }
    past_bad_nonces!(account.new_order(&order()))
}

/// True unless the problem would hit an order without `replaces` as well.
///
/// Servers refuse `replaces` with `alreadyReplaced` (RFC 9773, section 5) or `malformed`. They use `unauthorized` if
/// the old certificate belongs to another account.
fn may_be_about_replaces(problem: &Problem) -> bool {
    const OTHERS: [&str; 5] =
        ["accountDoesNotExist", "badNonce", "rateLimited", "serverInternal", "userActionRequired"];
    !OTHERS.iter().any(|kind| is_of_kind(problem, kind))
}

/// The TXT values of all names that are not proven yet.
async fn challenges(order: &mut Order) -> Result<Vec<String>, Error> {
    let mut tries = 0;
    'again: loop {
        let mut values = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = match authorization {
                // The library does not fetch known authorizations again.
                Err(error) if is(&error, "badNonce") && tries < MOST_NONCES => {
                    tries += 1;
                    continue 'again;
                }
                other => other?,
            };
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::Dns01);
            let challenge = challenge.ok_or(Error::Str("the server offers no DNS challenge (dns-01)"))?;
            values.push(challenge.key_authorization().dns_value());
        }
        return Ok(values);
    }
}

async fn prove(client: &http::Client, order: &mut Order, values: &[String], solver: &dyn Solver) -> Result<(), Error> {
    // All values are published before the server looks at any: base and wildcard share one name.
    for value in values {
        solver.present(value).await.map_err(other)?;
    }
    // Names that are proven already have no values to wait for.
    if !values.is_empty() {
        let seen = tokio::time::timeout(SETTLE_TIMEOUT, solver.settled(values)).await;
        debug!(in_time = seen.is_ok(), "the values are published");
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01) {
            past_bad_nonces!(challenge.set_ready())?;
        }
    }
    let failed = match until(client, order, OrderStatus::Ready).await {
        Ok(()) => return Ok(()),
        // Some servers give no reason in the order. The authorizations may have one.
        Err(error) if order.state().status == OrderStatus::Invalid => error,
        Err(error) => return Err(error),
    };
    Err(failed_proof(order).await.unwrap_or(failed))
}

/// Polls the order until it reaches a state (RFC 8555, section 7.1.6).
///
/// The library's own polling doubles its pauses without a limit, and so sleeps through the second half of the time.
async fn until(client: &http::Client, order: &mut Order, wanted: OrderStatus) -> Result<(), Error> {
    let began = Instant::now();
    let mut wait = Some(FIRST_LOOK);
    while let Some(pause) = wait {
        sleep(pause).await;
        client.take_wait();
        let state = past_bad_nonces!(order.refresh())?;
        if state.status == wanted {
            return Ok(());
        }
        if let Some(problem) = &state.error {
            return Err(Error::Api(problem.clone()));
        }
        if state.status == OrderStatus::Invalid {
            return Err(other("the order is invalid"));
        }
        wait = next_look(began.elapsed(), pause, client.take_wait());
    }
    Err(other(format!("the order is still {:?} after {} s", order.state().status, ORDER_TIMEOUT.as_secs())))
}

/// The pause before the next look, `elapsed` after the first. `None` after the last look, which is at the end.
///
/// The server may name the pause (RFC 8555, section 7.5.1). Otherwise it is twice the one `before`.
fn next_look(elapsed: Duration, before: Duration, named: Option<Duration>) -> Option<Duration> {
    let left = ORDER_TIMEOUT.checked_sub(elapsed).filter(|left| !left.is_zero())?;
    let named = named.filter(|wait| *wait >= FIRST_LOOK);
    Some(named.unwrap_or_else(|| (before * 2).min(LOOK_EVERY)).min(left))
}

/// The first name whose proof failed, and the server's reason.
async fn failed_proof(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        past_bad_nonces!(authorization.refresh()).ok()?;
        let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return Some(other(format!(
                "the server does not see the proof for {}: {problem}",
                authorization.identifier()
            )));
        }
    }
    None
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of all looks at an order whose state never changes.
    fn looks(named: Option<Duration>) -> Vec<f32> {
        let (mut at, mut wait, mut looks) = (Duration::ZERO, Some(FIRST_LOOK), Vec::new());
        while let Some(pause) = wait {
            at += pause;
            looks.push(at.as_secs_f32());
            wait = next_look(at, pause, named);
        }
        looks
    }

    #[test]
    fn an_order_is_polled_often_and_until_the_end() {
        let own = looks(None);
        assert_eq!(own[..6], [0.25, 0.75, 1.75, 3.75, 7.75, 12.75]);
        assert!(own.windows(2).all(|two| two[1] - two[0] <= LOOK_EVERY.as_secs_f32()), "{own:?}");
        assert_eq!(own.last(), Some(&ORDER_TIMEOUT.as_secs_f32()));
        assert_eq!(looks(Some(Duration::from_secs(50))), [0.25, 50.25, 100.25, 120.0]);
        assert_eq!(looks(Some(Duration::MAX)), [0.25, 120.0]);
        assert_eq!(looks(Some(Duration::ZERO)), own, "a pause of zero is ignored");
    }
}
