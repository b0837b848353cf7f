//! The account at the ACME server: loaded, created if there is none, replaced if the server refuses it.
//!
//! It does not change the account's key, and does not decide when an account may be replaced.

use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use tracing::info;

use super::http;
use super::problem::past_bad_nonces;
use super::settings::Settings;
use crate::store::{Store, on_disk};

/// The account's file in the store.
pub(super) const FILE: &str = "account.json";

/// Loads the account of the store, if there is one.
pub(super) async fn kept(client: &http::Client, store: &Arc<Store>) -> Result<Option<Account>, String> {
    let read = on_disk(store, |store| store.read_json::<AccountCredentials>(FILE)).await;
    match read.map_err(|error| error.to_string())? {
        Some(credentials) => load(client, credentials).await.map(Some),
        None => Ok(None),
    }
}

/// Loads the account of these credentials.
pub(super) async fn load(client: &http::Client, credentials: AccountCredentials) -> Result<Account, String> {
    let builder = Account::builder_with_http(Box::new(client.clone()));
    builder.from_credentials(credentials).await.map_err(|error| error.to_string())
}

/// Creates an account and stores it before its first use. If the server has `refused` the old account with this
/// message, the old file is set aside.
pub(super) async fn create(
    settings: &Settings,
    client: &http::Client,
    store: &Arc<Store>,
    refused: Option<String>,
) -> Result<Account, String> {
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = settings.external_account.as_ref();
    let external = external.map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
    let builder = || Account::builder_with_http(Box::new(client.clone()));
    let created = past_bad_nonces!(builder().create(&wanted, settings.directory.clone(), external.as_ref()));
    let (account, credentials) = created.map_err(|error| match &settings.external_account {
        Some((id, _)) => format!("no account bound to {id}: {error}"),
        None => format!("no account: {error}"),
    })?;
    let id = account.id();
    info!(event = "account", id, "an account was made at the ACME server: {id}");
    if let Some(why) = refused {
        let why = format!("the server no longer accepts this account: {why}");
        on_disk(store, move |store| store.discard(FILE, &why)).await;
    }
    keep(store, credentials).await?;
    Ok(account)
}

/// Stores the credentials in place of older ones.
pub(super) async fn keep(store: &Arc<Store>, credentials: AccountCredentials) -> Result<(), String> {
    on_disk(store, move |store| store.write_json(FILE, &credentials)).await.map_err(|error| error.to_string())
}
