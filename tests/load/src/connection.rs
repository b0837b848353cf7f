//! Connections to one address, pooled by host name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::exchanges::Body;
use crate::visit::Why;

/// A browser's connection limit for one host over HTTP/1.1.
const BROWSER: usize = 6;

/// How to connect.
pub(crate) struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(address: SocketAddr, ca: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Every visitor is new: no session to resume.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, tls: Arc::new(config).into() })
    }

    pub(crate) async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, Why> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Why::wrong(error.to_string()))?;
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.tls.connect(name, stream).await?)
    }

    /// Opens an HTTP/1.1 connection. It closes when the returned half is dropped.
    pub(crate) async fn http(&self, host: &str) -> Result<SendRequest<Body>, Why> {
        let stream = self.connect(host).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The request itself reports a failed connection.
        tokio::spawn(connection);
        Ok(requests)
    }
}

/// A browser's connections to one host.
pub(crate) struct Pool {
    /// Limits the connections in use.
    pub(crate) turns: Semaphore,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Pool {
    pub(crate) fn of(hosts: &[String]) -> HashMap<String, Self> {
        let pool = || Self { turns: Semaphore::new(BROWSER), idle: Mutex::default() };
        hosts.iter().map(|host| (host.clone(), pool())).collect()
    }

    /// Returns a kept connection that still appears open.
    pub(crate) async fn take(&self) -> Option<SendRequest<Body>> {
        loop {
            let mut requests = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if requests.ready().await.is_ok() {
                return Some(requests);
            }
        }
    }

    pub(crate) fn keep(&self, requests: SendRequest<Body>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(requests);
    }
}
