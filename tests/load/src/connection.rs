//! Connections to one address, by the names that are visited there.

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

/// How many connections a browser has to one name.
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
        // Each of many visitors comes for the first time.
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

    /// A connection for requests, which is closed when its half here is dropped.
    pub(crate) async fn http(&self, host: &str) -> Result<SendRequest<Body>, Why> {
        let stream = self.connect(host).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Whoever has asked hears how it ends.
        tokio::spawn(connection);
        Ok(requests)
    }
}

/// What a browser keeps for one name.
pub(crate) struct Pool {
    /// Whose turn it is.
    pub(crate) turns: Semaphore,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Pool {
    pub(crate) fn of(hosts: &[String]) -> HashMap<String, Self> {
        let pool = || Self { turns: Semaphore::new(BROWSER), idle: Mutex::default() };
        hosts.iter().map(|host| (host.clone(), pool())).collect()
    }

    /// A connection that is still good, as far as one can know.
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
