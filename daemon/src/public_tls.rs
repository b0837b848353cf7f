//! TLS on the public port, the same for TCP and QUIC: protocols, certificate, and what keeps it fresh.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cok_certs::{Authority, CertResolver, files};
use quinn::Endpoint;
use rustls::crypto::aws_lc_rs;
use tracing::{info, warn};

use crate::config::{Config, Tls};
use crate::listener;
use crate::quic_secret::QuicSecret;

/// How often a certificate of our own is made anew; it is valid for 90 days.
const REISSUE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// TLS for visitors and tunnels, and what keeps its certificate fresh.
#[derive(Debug)]
pub(crate) struct PublicTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    resolver: Arc<CertResolver>,
    authority: Option<Authority>,
}

impl PublicTls {
    /// HTTP/2 preferred.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let domain = config.domain.as_str();
        let wildcard = format!("*.{domain}");
        let (certificate, authority) = match &config.tls {
            Tls::Files { cert, key } => (files::load(cert, key, &[domain, &wildcard])?.0, None),
            Tls::SelfSigned => {
                let authority = Authority::load_or_create(&config.state_dir.join("authority"))?;
                info!(event = "authority", ca_file = %authority.ca_file().display());
                (authority.issue(&[domain, &wildcard])?, Some(authority))
            }
        };
        let resolver = Arc::new(CertResolver::new(domain, certificate));
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.ticketer = aws_lc_rs::Ticketer::new().context("TLS tickets")?;
        Ok(Self { config: Arc::new(tls), resolver, authority })
    }

    /// QUIC endpoints on these sockets.
    pub(crate) fn endpoints(&self, config: &Config, sockets: Vec<UdpSocket>) -> anyhow::Result<Vec<Endpoint>> {
        if sockets.is_empty() {
            return Ok(Vec::new());
        }
        let secret = QuicSecret::load_or_create(&config.state_dir).context("cannot make a secret")?;
        let endpoint = |socket| listener::quic::endpoint(config, socket, (*self.config).clone(), &secret);
        sockets.into_iter().map(endpoint).collect()
    }

    /// Replaces a certificate of our own long before it expires. One from files stays as it is.
    pub(crate) async fn keep_fresh(self, domain: String) {
        let Some(authority) = self.authority else { return };
        loop {
            tokio::time::sleep(REISSUE_EVERY).await;
            match authority.issue(&[&domain, &format!("*.{domain}")]) {
                Ok(certificate) => self.resolver.replace(certificate),
                Err(error) => warn!(%error, "the certificate could not be renewed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::quic;
    use rustls::{ClientConnection, NamedGroup, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;

    /// Our own ends, as they are configured for real.
    fn ends() -> (rustls::ServerConfig, rustls::ClientConfig, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "domain = \"tunnel.test\"\nstate_dir = {:?}\n[tls]\nmode = \"self-signed\"\n",
            folder.path().display().to_string()
        );
        let server = PublicTls::new(&Config::parse(&text, "cokd.toml").unwrap()).unwrap();
        let client = cok_client::trust_file(&folder.path().join("authority/ca.pem")).unwrap();
        ((*server.config).clone(), (*client).clone(), folder)
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("tunnel.test").unwrap()
    }

    /// What our client and our daemon agree on withstands a quantum computer, without a round trip more.
    #[test]
    fn tcp_is_post_quantum() {
        let (server, client, _folder) = ends();
        let mut client = ClientConnection::new(Arc::new(client), name()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
            assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
        }
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }

    #[test]
    fn quic_is_post_quantum() {
        let (server, client, _folder) = ends();
        let server = Arc::new(listener::quic::for_quic(server));
        let client = Arc::new(cok_transport::quic::client_tls(&client));
        let version = quic::Version::V1;
        let mut client = quic::ClientConnection::new(client, version, name(), Vec::new()).unwrap();
        let mut server = quic::ServerConnection::new(server, version, Vec::new()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.write_hs(&mut wire).is_some() {}
            server.read_hs(&wire).unwrap();
            // The messages of each encryption level come apart.
            loop {
                let mut wire = Vec::new();
                let next = server.write_hs(&mut wire);
                client.read_hs(&wire).unwrap();
                if next.is_none() && wire.is_empty() {
                    break;
                }
            }
        }
        for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
            assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
        }
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(client.alpn_protocol(), Some(cok_transport::quic::ALPN));
    }
}
