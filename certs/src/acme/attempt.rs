//! One attempt at a new certificate: recorded, ordered, served and saved.
//!
//! `plan` decides when an attempt is due.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Account;
use rustls_pki_types::CertificateDer;
use tracing::{info, warn};

use super::caught::caught;
use super::event::Event;
use super::ledger::Ledger;
use super::order::{Failure, Issued, Wanted};
use super::renewer::{Renewer, validity};
use super::requested::Requested;
use super::{account, order, rollover};
use crate::clock::{unix, unix_now};
use crate::files::{self, Facts};
use crate::one_line::one_line;
use crate::resolver::CertResolver;
use crate::store::{Request, Stored, on_disk};

/// The longest that a whole attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// Pause between two tries to save a certificate, in seconds.
const SAVE_AGAIN_AFTER: i64 = 60;

impl Renewer {
    pub(super) async fn attempt(
        &mut self,
        now: i64,
        requested: Requested,
        ledger: &Ledger,
        resolver: &CertResolver,
        report: &impl Fn(Event),
    ) {
        self.state.begin(now);
        ledger.begin();
        // Saved before the order is placed, so that a crash loop does not order again and again.
        let state = self.state.clone();
        let ready =
            on_disk(&self.store, move |store| store.probe().and_then(|()| store.write_json("state.json", &state)));
        let result = match ready.await {
            Err(error) if !self.validity().is_some_and(|validity| validity.is_emergency(now)) => {
                Err(format!("no order is placed, since its certificate could not be saved: {error}"))
            }
            ready => {
                if let Err(error) = ready {
                    warn!(%error, "the next certificate will be served from memory alone, since it cannot be kept: {error}");
                }
                match tokio::time::timeout(ATTEMPT_TIMEOUT, caught(Box::pin(self.order(ledger)))).await {
                    Ok(result) => result.unwrap_or_else(|panic| Err(format!("a fault of this program: {panic}"))),
                    Err(_) => Err(format!("it took longer than {} s", ATTEMPT_TIMEOUT.as_secs())),
                }
            }
        };
        let now = unix_now();
        match result {
            Ok((issued, stored)) => {
                let Facts { issuer, serial, .. } = &stored.facts;
                info!(
                    event = "issued",
                    issuer, serial, "a certificate was issued by {issuer}, with the serial number {serial}"
                );
                self.state.succeeded(now, validity(&stored), fastrand::f64());
                self.serve(stored, resolver, report);
                self.unsaved = Some((Arc::new(issued), now));
                self.save_again(now).await;
                self.keep_state().await;
                if let [Some(at), _] = requested {
                    on_disk(&self.store, move |store| store.done(Request::Renewal, at)).await;
                }
                report(Event::Issued);
            }
            Err(error) => {
                let error = one_line(&error);
                self.state.failed(now, error.clone(), self.client.take_retry_after().map(unix));
                self.state.dns_failed = ledger.has_failed();
                // Saved before it is reported, since `cert status` reads it from the store.
                self.keep_state().await;
                let next = self.due(now, requested != [None; 2]).saturating_sub(now);
                warn!(
                    event = "not_issued",
                    error,
                    next_try_in_seconds = next,
                    "no certificate was issued: {error}; the next attempt is in {next} s"
                );
                report(Event::Failed);
            }
        }
        // Records are removed after every attempt. This comes last, because it may take minutes.
        ledger.clean_up().await;
    }

    /// Saves the certificate that is served from memory alone. After a failure it waits before the next try.
    pub(super) async fn save_again(&mut self, now: i64) {
        let Some((issued, at)) = &mut self.unsaved else { return };
        if *at > now && *at - now <= SAVE_AGAIN_AFTER {
            return;
        }
        let saved = issued.clone();
        match on_disk(&self.store, move |store| store.save(&saved.chain_pem, &saved.key_pem)).await {
            Ok(()) => self.unsaved = None,
            Err(error) => {
                warn!(event = "not_saved", %error, "the certificate is served from memory, since it cannot be saved: {error}");
                *at = now + SAVE_AGAIN_AFTER;
            }
        }
    }

    async fn order(&mut self, ledger: &Ledger) -> Result<(Issued, Stored), String> {
        self.client.take_retry_after();
        rollover::roll_over(&self.client, &self.settings.directory, &self.store).await?;
        let account = match account::kept(&self.client, &self.store).await? {
            Some(account) => account,
            None => account::create(&self.settings, &self.client, &self.store, None).await?,
        };
        let issued = match self.obtain(&account, ledger).await {
            Err(Failure::Account(error)) => {
                let now = unix_now();
                if !self.state.may_replace_account(now) {
                    return Err(format!("the server refuses the account: {error}"));
                }
                // The refusal may be temporary, so the old account stays until a new one exists.
                let account =
                    account::create(&self.settings, &self.client, &self.store, Some(error.to_string())).await?;
                self.state.account_replaced_at = Some(now);
                self.obtain(&account, ledger).await
            }
            other => other,
        };
        let issued = issued.map_err(|failure| failure.to_string())?;
        let from = PathBuf::from(&self.settings.directory);
        let (certified, facts) = files::read(&from, issued.chain_pem.as_bytes(), &from, issued.key_pem.as_bytes())
            .map_err(|e| e.to_string())?;
        let missing = facts.missing(&self.names());
        if !missing.is_empty() {
            return Err(format!("the certificate from {} does not cover {}", from.display(), missing.join(" and ")));
        }
        Ok((issued, Stored { certified, facts }))
    }

    async fn obtain(&self, account: &Account, ledger: &Ledger) -> Result<Issued, Failure> {
        let profile = self.settings.profile.as_deref();
        let offered = profile.filter(|wanted| account.profiles().any(|offered| offered.name == *wanted));
        if let (Some(profile), None) = (profile, offered) {
            warn!(profile, "the ACME server does not offer the profile \"{profile}\"; ordering without");
        }
        let replaces: Option<&CertificateDer<'_>> =
            self.current.as_ref().and_then(|stored| stored.certified.cert.first());
        let wanted = Wanted { names: &self.names(), profile: offered, replaces };
        order::obtain(&self.client, account, wanted, ledger).await
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}
