//! Reloads the configuration while the daemon runs: as a whole, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quinn::Endpoint;
use tracing::{error, info};

use super::Parts;
use crate::admin::{self, Access, Reload};
use crate::config::{Config, ConfigError};
use crate::host::notify;
use crate::listen::PublicTls;
use crate::observe::{AccessLog, Destination};

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("this daemon was started without a configuration file")]
    NoFile,
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file changes settings that need a restart.
    #[error("{}", unchangeable(file, keys))]
    AtStartup { file: PathBuf, keys: Vec<&'static str> },
    /// The token of the admin address cannot be used.
    #[error("{0:#}")]
    Token(anyhow::Error),
    /// The access log has no place to go.
    #[error("access_log.to: cannot open {to}: {error}")]
    AccessLog { to: String, error: std::io::Error },
}

fn unchangeable(file: &Path, keys: &[&str]) -> String {
    let line = |key| format!("{}: {key}: cannot change while cokd runs; restart it", file.display());
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Reloads the configuration.
pub(crate) struct Reloader {
    source: Option<PathBuf>,
    /// The current configuration. Locked during a reload, so that two reloads cannot mix.
    current: Mutex<Config>,
    parts: Parts,
    tls: Arc<PublicTls>,
    endpoints: Vec<Endpoint>,
    /// True from the ready notification until the stop begins.
    announced: AtomicBool,
}

impl Reloader {
    pub(super) fn new(
        source: Option<PathBuf>,
        current: Config,
        parts: Parts,
        tls: Arc<PublicTls>,
        endpoints: Vec<Endpoint>,
    ) -> Arc<Self> {
        let (current, announced) = (Mutex::new(current), AtomicBool::new(false));
        Arc::new(Self { source, current, parts, tls, endpoints, announced })
    }

    /// Notifies the service manager that the daemon is ready.
    pub(super) fn announce(&self) {
        notify::ready();
        self.announced.store(true, Ordering::Relaxed);
    }

    /// Stops notifications about reloads, since the daemon stops.
    pub(super) fn conceal(&self) {
        self.announced.store(false, Ordering::Relaxed);
    }

    /// The reload function for the admin address.
    pub(super) fn for_admin(self: &Arc<Self>) -> Reload {
        let reloader = self.clone();
        Box::new(move || reloader.reload())
    }

    /// Reloads the configuration, and reports the result to the log and the service manager. Blocks. The error has one
    /// line for each reason why nothing changed.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let announced = self.announced.load(Ordering::Relaxed);
        if announced {
            notify::reloading();
        }
        let result = self.apply().map_err(|error| error.to_string());
        if announced {
            notify::ready();
        }
        match &result {
            Ok(()) => info!(event = "reloaded", "the configuration was read again"),
            Err(why) => {
                for line in why.lines() {
                    error!(event = "not_reloaded", reason = line, "{line}; the configuration stays as it was");
                }
            }
        }
        result
    }

    /// Applies the file to new connections and requests. Applies nothing if the file has a mistake or changes a setting
    /// that needs a restart.
    fn apply(&self) -> Result<(), ReloadError> {
        let source = self.source.as_deref().ok_or(ReloadError::NoFile)?;
        let mut current = self.current.lock();
        let next = Config::load(source)?;
        let keys = current.changed_at_startup(&next);
        if !keys.is_empty() {
            return Err(ReloadError::AtStartup { file: source.to_owned(), keys });
        }
        let socket = admin::path(&next.startup.state_dir);
        let access = Access::load(&next.admin, socket).map_err(ReloadError::Token)?;
        let access_log = AccessLog::prepare(&next.access_log).map_err(|error| {
            let to = next.access_log.to.as_ref().map(Destination::shown).unwrap_or_default();
            ReloadError::AccessLog { to, error }
        })?;
        let Config { listen, admission, edge, exchanges, tunnels, drain, metrics, .. } = next.clone();
        self.parts.access.store(Arc::new(access));
        self.parts.observers.access_log.apply(access_log);
        self.parts.tunnels.reload(tunnels.live);
        self.parts.admission.reload(admission.live);
        self.parts.drain.reload(drain);
        self.parts.edge.reload(edge);
        self.parts.exchanges.reload(exchanges);
        self.parts.listen.reload(listen.live);
        self.parts.metrics.reload(metrics);
        for endpoint in &self.endpoints {
            self.tls.reload(endpoint, listen.live);
        }
        *current = next;
        Ok(())
    }
}
