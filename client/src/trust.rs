//! TLS towards the daemon: which authorities it trusts.

use std::path::Path;
use std::sync::Arc;

use cok_host::trust;
pub use cok_host::trust::CaFileError;
use rustls::{ClientConfig, RootCertStore};

/// Why there is no TLS towards the daemon.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system trusts no authority.
    #[error("the system has no trusted certificates; install its package of them (ca-certificates) or use --ca-file")]
    NoSystemRoots,
    /// A file of authorities cannot be used.
    #[error(transparent)]
    CaFile(#[from] CaFileError),
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// TLS that trusts the authorities of the system.
pub fn trust_system() -> Result<Arc<ClientConfig>, TrustError> {
    client_config(trust::system().map_err(|_| TrustError::NoSystemRoots)?)
}

/// TLS that trusts the authorities in a PEM file, and no others.
pub fn trust_file(path: &Path) -> Result<Arc<ClientConfig>, TrustError> {
    client_config(trust::file(path)?)
}

/// TLS towards a proxy. It trusts the authorities of the system, and those in a file: a network's own proxy has a certificate
/// of its own authority.
pub(crate) fn trust_proxy(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let Some(path) = ca_file else { return trust_system() };
    let mut roots = trust::file(path)?;
    if let Ok(system) = trust::system() {
        roots.extend(system.roots);
    }
    client_config(roots)
}

/// TLS that trusts these authorities and speaks HTTP/1.1.
pub(crate) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(cok_transport::tls::provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
