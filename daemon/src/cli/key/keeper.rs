//! Who carries out a command about keys: the running daemon, or this process.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use bytes::Bytes;
use cok_host::private_file;
use cok_store::Sqlite;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::admin::{self, KEYS, path_of, record_of, rotation_of};
use crate::admission::wire::{Changes, KeyView, NewKey, Rotation};
use crate::admission::{KeyBook, KeyError, KeyRecord};
use crate::app::STORE_FILE;
use crate::cli::admin::{Daemon, Unanswered};
use crate::config::Config;

/// Keeps keys.
#[derive(Debug)]
pub(in crate::cli) enum Keeper {
    /// The running daemon.
    Daemon(Daemon),
    /// This process, with the store and the keys of the configuration.
    Store(Arc<Sqlite>, Vec<KeyRecord>),
    /// No one: the daemon's socket is there, but this user cannot use it.
    Unreachable(PathBuf, io::ErrorKind),
}

/// Why a command fails.
#[derive(Debug)]
pub(in crate::cli) enum KeyFailure {
    Refused(KeyError),
    Other(anyhow::Error),
}

impl fmt::Display for KeyFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(formatter),
            Self::Other(error) => write!(formatter, "{error:#}"),
        }
    }
}

impl From<KeyError> for KeyFailure {
    fn from(error: KeyError) -> Self {
        Self::Refused(error)
    }
}

impl From<anyhow::Error> for KeyFailure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A refusal of the admin API.
#[derive(Debug, Deserialize)]
struct Said {
    error: KeyError,
}

impl Keeper {
    /// The daemon if one runs with this state directory. A killed one leaves a socket without a listener.
    pub(super) fn new(config: &Config) -> Self {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let state_dir = &config.startup.state_dir;
        match admin::connect(state_dir) {
            Ok(_) => Self::Daemon(Daemon::Socket(state_dir.clone())),
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {
                // For the owner alone. If it cannot be made, the store says why.
                let _made = private_file::create_folder(state_dir);
                Self::Store(Sqlite::open(state_dir.join(STORE_FILE)), config.admission.live.keys.clone())
            }
            Err(error) => Self::Unreachable(admin::path(state_dir), error.kind()),
        }
    }

    /// The same, but nothing is made: `None` if there is neither a daemon nor a store.
    pub(in crate::cli) fn existing(config: &Config) -> Option<Self> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let state_dir = &config.startup.state_dir;
        let absent = admin::connect(state_dir).is_err_and(|error| matches!(error.kind(), NotFound | ConnectionRefused));
        (!absent || state_dir.join(STORE_FILE).exists()).then(|| Self::new(config))
    }

    pub(in crate::cli) async fn list(&self) -> Result<Vec<KeyView>, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.list().await?),
            Err(daemon) => ask(daemon, Method::GET, KEYS, &()).await,
        }
    }

    pub(super) async fn show(&self, key: &str) -> Result<KeyView, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.show(key).await?),
            Err(daemon) => ask(daemon, Method::GET, &path_of(key), &()).await,
        }
    }

    pub(super) async fn create(&self, new: &Changes) -> Result<NewKey, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.create(new).await?),
            Err(daemon) => ask(daemon, Method::POST, KEYS, new).await,
        }
    }

    pub(super) async fn edit(&self, key: &str, changes: &Changes) -> Result<KeyView, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.edit(key, changes).await?),
            Err(daemon) => ask(daemon, Method::PATCH, &path_of(key), changes).await,
        }
    }

    pub(super) async fn revoke(&self, key: &str) -> Result<KeyView, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.revoke(key).await?),
            Err(daemon) => ask(daemon, Method::DELETE, &path_of(key), &()).await,
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<KeyView, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.delete(key).await?),
            Err(daemon) => ask(daemon, Method::DELETE, &record_of(key), &()).await,
        }
    }

    pub(super) async fn rotate(&self, key: &str, rotation: Rotation) -> Result<NewKey, KeyFailure> {
        match self.book()? {
            Ok(book) => Ok(book.rotate(key, rotation).await?),
            Err(daemon) => ask(daemon, Method::POST, &rotation_of(key), &rotation).await,
        }
    }

    /// The keys of the store, or the daemon that has them.
    fn book(&self) -> Result<Result<KeyBook<'_>, &Daemon>, KeyFailure> {
        match self {
            Self::Daemon(daemon) => Ok(Err(daemon)),
            Self::Store(store, configured) => {
                Ok(Ok(KeyBook { store: &**store, configured: configured.clone(), table: None }))
            }
            Self::Unreachable(socket, kind) => {
                let why = io::Error::from(*kind);
                Err(anyhow!("cannot ask the daemon at {}: {why}; run this as its user or as root", socket.display())
                    .into())
            }
        }
    }
}

async fn ask<T: DeserializeOwned>(
    daemon: &Daemon,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T, KeyFailure> {
    let reads = method == Method::GET;
    let has_body = method == Method::POST || method == Method::PATCH;
    let body = if has_body { serde_json::to_vec(body).map_err(anyhow::Error::from)? } else { Vec::new() };
    match daemon.ask(method, path, body).await {
        Ok((status, text)) => understand(status, &text),
        Err(Unanswered::Unreachable(error)) => {
            Err(anyhow!("cannot ask the daemon at {daemon}: {error}; nothing has changed").into())
        }
        Err(Unanswered::Lost(error)) if reads => {
            Err(anyhow!("the daemon at {daemon} gave no answer: {error:#}").into())
        }
        Err(Unanswered::Lost(error)) => Err(anyhow!(
            "it is not known whether the change was made: the daemon at {daemon} gave no answer: {error:#}; look with \
             `cokd key list`"
        )
        .into()),
    }
}

fn understand<T: DeserializeOwned>(status: StatusCode, text: &Bytes) -> Result<T, KeyFailure> {
    if status.is_success() {
        return serde_json::from_slice(text)
            .map_err(|error| anyhow!("the daemon's answer is not understood: {error}").into());
    }
    match serde_json::from_slice::<Said>(text) {
        Ok(said) => Err(said.error.into()),
        Err(_) => Err(anyhow!("the daemon answered {status}: {}", String::from_utf8_lossy(text).trim()).into()),
    }
}
