//! TLS on the public port, the same for TCP and QUIC.

use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::Context as _;
use cok_certs::CertResolver;
use cok_transport::quic::Tuning;
use quinn::{Endpoint, ServerConfig};
use rustls::crypto::aws_lc_rs;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::reset_key::ResetKey;
use super::{Live, udp};
use crate::drain::Port;
use crate::drain::initials::FirstPacket;

/// TLS for visitors and tunnels.
pub(crate) struct PublicTls {
    config: Arc<rustls::ServerConfig>,
    tuning: Tuning,
    reset_key: ResetKey,
}

impl PublicTls {
    /// Builds the TLS settings. HTTP/2 goes before HTTP/1.1.
    pub(crate) fn new(resolver: Arc<CertResolver>, tuning: Tuning, reset_key: ResetKey) -> anyhow::Result<Self> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.ticketer = aws_lc_rs::Ticketer::new().context("TLS tickets")?;
        Ok(Self { config: Arc::new(tls), tuning, reset_key })
    }

    /// The acceptor for TCP connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.config.clone().into()
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
    use cok_certs::Authority;
    use rustls::quic;
    use rustls::{ClientConnection, NamedGroup, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;

    /// The real TLS settings of daemon and client.
    fn ends() -> (rustls::ServerConfig, rustls::ClientConfig, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let certificate = authority.issue(&["tunnel.test"]).unwrap();
        let server = PublicTls::new(
            Arc::new(CertResolver::new("tunnel.test", certificate)),
            Tuning::default(),
            ResetKey::load_or_create(folder.path()).unwrap(),
        )
        .unwrap();
        let client = cok_client::trust_file(authority.ca_file()).unwrap();
        ((*server.config).clone(), (*client).clone(), folder)
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
