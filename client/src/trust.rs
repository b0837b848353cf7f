//! TLS towards the daemon: which authorities it trusts.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use cok_host::trust;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// TLS that trusts the authorities of the system.
pub fn trust_system() -> anyhow::Result<Arc<ClientConfig>> {
    client_config(trust::system().map_err(|error| anyhow!("{error} or use --ca-file"))?)
}

/// TLS that trusts the authorities in a PEM file, and no others.
pub fn trust_file(path: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    client_config(trust::file(path)?)
}

/// TLS that trusts these authorities and speaks HTTP/1.1.
pub(crate) fn client_config(roots: RootCertStore) -> anyhow::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
