//! TLS on the public port, the same for TCP and QUIC.

use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::Context as _;
use cok_certs::CertResolver;
use cok_transport::quic::Tuning;
use cok_transport::tls::{is_without_aes, provider};
use quinn::{Endpoint, ServerConfig};
use rustls::crypto::aws_lc_rs;
use rustls::server::ClientHello;
use tracing::warn;

use super::reset_key::ResetKey;
use super::{Live, udp};
use crate::drain::Port;
use crate::drain::initials::FirstPacket;

/// TLS for visitors and tunnels.
pub(crate) struct PublicTls {
    /// Takes the client's first cipher suite that we support.
    config: Arc<rustls::ServerConfig>,
    /// Takes our first cipher suite that the client supports.
    own_order: Arc<rustls::ServerConfig>,
    tuning: Tuning,
    reset_key: ResetKey,
}

impl PublicTls {
    /// Builds the TLS settings. HTTP/2 goes before HTTP/1.1.
    pub(crate) fn new(resolver: Arc<CertResolver>, tuning: Tuning, reset_key: ResetKey) -> anyhow::Result<Self> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.ticketer = aws_lc_rs::Ticketer::new().context("TLS tickets")?;
        let mut own_order = tls.clone();
        own_order.ignore_client_order = true;
        Ok(Self { config: Arc::new(tls), own_order: Arc::new(own_order), tuning, reset_key })
    }

    /// Returns the settings for a TCP connection that begins with this ClientHello. Most programs offer the costlier AES-256
    /// first without a need for it. One that offers ChaCha20 first has no instructions for AES.
    pub(super) fn answering(&self, hello: &ClientHello<'_>) -> Arc<rustls::ServerConfig> {
        let first = hello.cipher_suites().iter().find(|suite| suite.as_str().is_some());
        if first.is_some_and(|first| is_without_aes(*first)) { self.config.clone() } else { self.own_order.clone() }
    }

    /// Makes QUIC endpoints from these sockets. They start with the parked packets in `before`.
    pub(crate) fn ports(
        &self,
        live: Live,
        sockets: Vec<UdpSocket>,
        before: &[FirstPacket],
    ) -> anyhow::Result<Vec<Port>> {
        let port = |socket| udp::port(socket, self.for_quic(live)?, &self.reset_key, before);
        sockets.into_iter().map(port).collect()
    }

    /// Applies new settings to new QUIC connections of this endpoint.
    pub(crate) fn reload(&self, endpoint: &Endpoint, live: Live) {
        match self.for_quic(live) {
            Ok(settings) => endpoint.set_server_config(Some(settings)),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "QUIC keeps the settings that it had before the reload: {error}");
            }
        }
    }

    fn for_quic(&self, live: Live) -> anyhow::Result<ServerConfig> {
        udp::server_config(&self.tuning, live, (*self.config).clone(), &self.reset_key)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cok_certs::Authority;
    use rustls::quic;
    use rustls::server::Acceptor;
    use rustls::{CipherSuite, ClientConfig, ClientConnection, NamedGroup, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;

    fn public(authority: &Authority, folder: &Path) -> PublicTls {
        PublicTls::new(
            Arc::new(CertResolver::new("tunnel.test", authority.issue(&["tunnel.test"]).unwrap())),
            Tuning::default(),
            ResetKey::load_or_create(folder).unwrap(),
        )
        .unwrap()
    }

    /// The real TLS settings of daemon and client.
    fn ends() -> (rustls::ServerConfig, rustls::ClientConfig, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let server = public(&authority, folder.path());
        let client = cok_client::trust_file(authority.ca_file()).unwrap();
        ((*server.config).clone(), (*client).clone(), folder)
    }

    #[test]
    fn only_a_client_that_wants_chacha20_first_gets_it() {
        use CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let server = public(&authority, folder.path());
        let ours = provider().cipher_suites[0].suite();
        for (first, agreed) in [
            (TLS13_AES_256_GCM_SHA384, ours),
            (TLS13_AES_128_GCM_SHA256, ours),
            (TLS13_CHACHA20_POLY1305_SHA256, TLS13_CHACHA20_POLY1305_SHA256),
        ] {
            let mut offered = provider();
            offered.cipher_suites.sort_by_key(|suite| suite.suite() != first);
            let config = ClientConfig::builder_with_provider(Arc::new(offered))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(cok_host::trust::file(authority.ca_file()).unwrap())
                .with_no_client_auth();
            let mut client = ClientConnection::new(Arc::new(config), name()).unwrap();
            let (mut acceptor, mut hello) = (Acceptor::default(), Vec::new());
            client.write_tls(&mut hello).unwrap();
            acceptor.read_tls(&mut hello.as_slice()).unwrap();
            let accepted = acceptor.accept().unwrap().unwrap();
            let settings = server.answering(&accepted.client_hello());
            let connection = accepted.into_connection(settings).unwrap();
            assert_eq!(connection.negotiated_cipher_suite().unwrap().suite(), agreed, "{first:?}");
        }
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("tunnel.test").unwrap()
    }

    /// Client and daemon agree on a post-quantum key exchange, without an extra round trip.
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

    /// Each update of the keys costs the daemon an answer, so a visitor that only updates them has to go.
    #[test]
    fn updates_of_keys_without_data_are_bounded() {
        let (server, client, _folder) = ends();
        let mut client = ClientConnection::new(Arc::new(client), name()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut updates = 0;
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                break;
            }
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
            if !client.is_handshaking() {
                client.refresh_traffic_keys().unwrap();
                updates += 1;
            }
            assert!(updates < 100, "updates go on");
        }
        assert_eq!(updates, 33);
    }

    #[test]
    fn quic_is_post_quantum() {
        let (server, client, _folder) = ends();
        let server = Arc::new(udp::for_quic(server));
        let client = Arc::new(cok_transport::quic::client_tls(&client));
        let version = quic::Version::V1;
        let mut client = quic::ClientConnection::new(client, version, name(), Vec::new()).unwrap();
        let mut server = quic::ServerConnection::new(server, version, Vec::new()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.write_hs(&mut wire).is_some() {}
            server.read_hs(&wire).unwrap();
            // The messages of each encryption level arrive separately.
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
