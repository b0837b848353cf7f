//! Gives the account a new key (RFC 8555, section 7.3.5).
//!
//! The ACME library hands out the new key only after the server has accepted it. A process that is killed in between
//! loses its account. Here the new key is saved first, and the server is asked which key is valid.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, Key};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::directory::Directory;
use super::problem::{MOST_NONCES, is, past_bad_nonces};
use super::{account, http};
use crate::one_line::one_line;
use crate::store::{Request, Store, on_disk};

/// The account with its new key, from before the change until the server confirms it.
const NEXT: &str = "account.next.json";

/// Finishes a change of the key that was cut short, and begins one on request.
///
/// The account stays even if the server refuses the change. An error means that it is unknown which key is valid.
pub(super) async fn roll_over(client: &http::Client, directory: &str, store: &Arc<Store>) -> Result<(), String> {
    let asked = || on_disk(store, |store| store.requested_at(Request::Rollover));
    if let Some(next) = read(store, NEXT).await? {
        settle(client, directory, store, next, asked().await).await?;
    }
    let Some(at) = asked().await else { return Ok(()) };
    let Some(old) = read(store, account::FILE).await? else {
        // The account that is created next has a new key anyway.
        on_disk(store, move |store| store.done(Request::Rollover, at)).await;
        return Ok(());
    };
    let old_key = key(old.private_key())?;
    let (next, new_key) = make(directory, account::load(client, old).await?.id())?;
    let noted = next.clone();
    on_disk(store, move |store| store.write_json(NEXT, &noted)).await.map_err(|error| error.to_string())?;
    if let Err(error) = change(client, directory, &old_key, &new_key, &next).await {
        let error = one_line(&error);
        warn!(event = "account_key_refused", error, "the ACME account's key could not be changed: {error}");
    }
    settle(client, directory, store, credentials(&next)?, Some(at)).await
}

/// Asks the server whether the new key is valid (RFC 8555, section 7.3.1), and keeps or forgets it accordingly. Either
/// way the request of that moment is done.
async fn settle(
    client: &http::Client,
    directory: &str,
    store: &Arc<Store>,
    next: AccountCredentials,
    asked: Option<i128>,
) -> Result<(), String> {
    let pkcs8 = next.private_key().clone_key();
    let ask = || async {
        let key = Key::from_pkcs8_der(pkcs8.clone_key())?;
        let builder = Account::builder_with_http(Box::new(client.clone()));
        builder.from_key((key, PrivateKeyDer::Pkcs8(pkcs8.clone_key())), directory.to_owned()).await
    };
    match past_bad_nonces!(ask()) {
        Ok((account, _)) => {
            account::keep(store, next).await?;
            let id = account.id();
            info!(event = "account_key", id, "the ACME account {id} has a new key");
        }
        Err(error) if is(&error, "accountDoesNotExist") => {
            warn!(event = "account_key_kept", "the ACME account keeps its key: the server does not know the new one");
        }
        Err(error) => return Err(format!("cannot find out which key the account has: {error}")),
    }
    if let Some(at) = asked {
        on_disk(store, move |store| store.done(Request::Rollover, at)).await;
    }
    on_disk(store, |store| store.remove(NEXT)).await.map_err(|error| error.to_string())
}

/// Makes a new key, and the account's credentials with it.
fn make(directory: &str, id: &str) -> Result<(Value, EcdsaKeyPair), String> {
    let failed = |_| "cannot make a key for the account".to_owned();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(failed)?;
    let next = json!({"id": id, "key_pkcs8": URL_SAFE_NO_PAD.encode(pkcs8.as_ref()), "directory": directory});
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref());
    Ok((next, key.map_err(|error| error.to_string())?))
}

/// Asks the server to accept the new key. The new key signs the request, and the old one signs the whole.
async fn change(
    client: &http::Client,
    directory: &str,
    old_key: &EcdsaKeyPair,
    new_key: &EcdsaKeyPair,
    next: &Value,
) -> Result<(), String> {
    let Directory { new_nonce, key_change, .. } = Directory::get(client, directory).await?;
    let (Some(new_nonce), Some(url)) = (new_nonce, key_change) else {
        return Err(format!("{directory}: the server offers no change of keys"));
    };
    let payload = json!({"account": next["id"], "oldKey": jwk(old_key)});
    let inner = sign(new_key, &json!({"alg": "ES256", "jwk": jwk(new_key), "url": url}), &payload)?;
    let mut nonce = None;
    for _ in 0..MOST_NONCES {
        let fresh = match nonce.take() {
            Some(nonce) => nonce,
            None => http::nonce(&client.head(&new_nonce).await?).ok_or("the server gives no nonce")?,
        };
        let header = json!({"alg": "ES256", "kid": next["id"], "nonce": fresh, "url": url});
        let response = client.post_jose(&url, sign(old_key, &header, &inner)?.to_string()).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let problem: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if problem["type"] != "urn:ietf:params:acme:error:badNonce" {
            let detail = problem["detail"].as_str().unwrap_or_default();
            return Err(format!("{url}: answered {}: {detail}", response.status()));
        }
        nonce = http::nonce(&response);
    }
    Err(format!("{url}: the server rejects every nonce"))
}

fn key(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Result<EcdsaKeyPair, String> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.secret_pkcs8_der())
        .map_err(|error| format!("the account's key cannot be used: {error}"))
}

/// The public key as JSON (RFC 7517; RFC 7518, section 6.2).
fn jwk(key: &EcdsaKeyPair) -> Value {
    // An uncompressed point: the byte 4, then two numbers of 32 bytes.
    let (x, y) = key.public_key().as_ref().get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
    json!({"crv": "P-256", "kty": "EC", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

/// A flattened JSON web signature (RFC 7515, section 7.2.2).
fn sign(key: &EcdsaKeyPair, header: &Value, payload: &Value) -> Result<Value, String> {
    let (protected, payload) =
        (URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = key
        .sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes())
        .map_err(|_| "the account's key does not sign".to_owned())?;
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    Ok(json!({"protected": protected, "payload": payload, "signature": signature}))
}

async fn read(store: &Arc<Store>, name: &'static str) -> Result<Option<AccountCredentials>, String> {
    on_disk(store, move |store| store.read_json(name)).await.map_err(|error| error.to_string())
}

fn credentials(next: &Value) -> Result<AccountCredentials, String> {
    AccountCredentials::deserialize(next).map_err(|error| error.to_string())
}
