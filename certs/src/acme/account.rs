//! The account at the server: kept, made when there is none, and replaced when the server does not take it any more.

use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use tracing::info;

use super::http;
use super::problem::past_bad_nonces;
use super::settings::Settings;
use crate::store::{Store, on_disk};

/// Where it is kept in the store.
pub(super) const FILE: &str = "account.json";

/// The account that was kept.
pub(super) async fn kept(client: &http::Client, store: &Arc<Store>) -> Result<Option<Account>, String> {
    let read = on_disk(store, |store| store.read_json::<AccountCredentials>(FILE)).await;
    match read.map_err(|error| error.to_string())? {
        Some(credentials) => load(client, credentials).await.map(Some),
        None => Ok(None),
    }
}

/// The account of these credentials.
pub(super) async fn load(client: &http::Client, credentials: AccountCredentials) -> Result<Account, String> {
    let builder = Account::builder_with_http(Box::new(client.clone()));
    builder.from_credentials(credentials).await.map_err(|error| error.to_string())
}

/// A new one, kept before it is used. The one before is taken out of use then, if the server has `refused` it with these
/// words.
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
        let why = format!("the server does not take this account any more: {why}");
        on_disk(store, move |store| store.discard(FILE, &why)).await;
    }
    keep(store, credentials).await?;
    Ok(account)
}

/// Keeps it, in place of what was there.
pub(super) async fn keep(store: &Arc<Store>, credentials: AccountCredentials) -> Result<(), String> {
    on_disk(store, move |store| store.write_json(FILE, &credentials)).await.map_err(|error| error.to_string())
}
