//! Chooses the certificate of a TLS connection.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cok_http::name::{Position, position};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Serves one certificate for a domain and the names directly under it, and refuses every other name.
///
/// The certificate can be replaced at any time. Reading it takes no lock.
pub struct CertResolver {
    domain: String,
    current: ArcSwap<CertifiedKey>,
}

impl CertResolver {
    /// A resolver for `domain` (in lower case) and `*.domain`.
    pub fn new(domain: &str, certificate: Arc<CertifiedKey>) -> Self {
        Self { domain: domain.to_ascii_lowercase(), current: ArcSwap::new(certificate) }
    }

    /// Serves this certificate to new connections.
    pub fn replace(&self, certificate: Arc<CertifiedKey>) {
        self.current.store(certificate);
    }

    /// True if `name` is the domain or directly under it.
    fn covers(&self, name: &str) -> bool {
        match position(name, &self.domain) {
            Position::Domain => true,
            Position::Under(label) => !label.is_empty(),
            Position::Elsewhere => false,
        }
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.covers(hello.server_name()?).then(|| self.current.load_full())
    }
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertResolver").field("domain", &self.domain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    use super::*;
    use crate::authority::Authority;

    #[test]
    fn covers_the_domain_and_one_label_under_it() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let resolver = CertResolver::new("Tunnel.example.com", authority.issue(&["tunnel.example.com"]).unwrap());
        for name in ["tunnel.example.com", "TUNNEL.example.com", "a.tunnel.example.com"] {
            assert!(resolver.covers(name), "{name}");
        }
        for name in ["", "example.com", "a.b.tunnel.example.com", ".tunnel.example.com", "xtunnel.example.com", "ü.com"]
        {
            assert!(!resolver.covers(name), "{name}");
        }
    }

    /// Performs a handshake in memory. Returns the certificate that the client accepted, or the error of either side.
    fn handshake(
        authority: &Authority,
        resolver: &Arc<CertResolver>,
        name: &str,
        sni: bool,
    ) -> Result<CertificateDer<'static>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.ca_file()).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_sni = sni;
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        let mut client = ClientConnection::new(Arc::new(client), name.to_owned().try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            server.read_tls(&mut flight.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            let mut flight = flight.as_slice();
            while !flight.is_empty() {
                client.read_tls(&mut flight).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(client.peer_certificates().unwrap()[0].clone())
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_our_names_and_gets_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let names = ["cok.localhost", "*.cok.localhost", "127.0.0.1"];
        let first = authority.issue(&names).unwrap();
        let resolver = Arc::new(CertResolver::new("cok.localhost", first.clone()));
        for name in ["cok.localhost", "demo.cok.localhost", "DEMO.Cok.Localhost"] {
            assert_eq!(handshake(&authority, &resolver, name, true).unwrap(), first.cert[0], "{name}");
        }
        for (name, sni) in
            [("a.b.cok.localhost", true), ("example.com", true), ("127.0.0.1", true), ("cok.localhost", false)]
        {
            assert!(handshake(&authority, &resolver, name, sni).is_err(), "{name}");
        }

        let second = authority.issue(&names).unwrap();
        resolver.replace(second.clone());
        assert_eq!(handshake(&authority, &resolver, "cok.localhost", true).unwrap(), second.cert[0]);
        assert_ne!(first.cert[0], second.cert[0]);

        let (_, leaf) = X509Certificate::from_der(&second.cert[0]).unwrap();
        let lifetime = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert!(lifetime <= 397 * 24 * 3600, "browsers refuse longer ones");
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(san.value.general_names.contains(&GeneralName::IPAddress(&[127, 0, 0, 1])));
    }

    #[test]
    fn a_client_that_does_not_trust_the_authority_refuses() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = Authority::load_or_create(ours.path()).unwrap();
        let theirs = Authority::load_or_create(theirs.path()).unwrap();
        let resolver = Arc::new(CertResolver::new("cok.localhost", ours.issue(&["cok.localhost"]).unwrap()));
        assert!(handshake(&theirs, &resolver, "cok.localhost", true).is_err());
    }
}
