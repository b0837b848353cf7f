//! TLS towards a local service behind `https://`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::target_trust::Fingerprint;

/// ALPN name of HTTP/1.1.
const HTTP_1: &[u8] = b"http/1.1";
/// ALPN name of HTTP/2.
pub(super) const HTTP_2: &[u8] = b"h2";

/// A configuration for each place of the service.
#[derive(Debug)]
pub(in crate::proxy) struct LocalTls {
    /// For this machine: accepts any certificate.
    loopback: Protocols,
    /// For other machines: accepts certificates that the user trusts or has listed.
    elsewhere: Protocols,
}

#[derive(Debug)]
struct Protocols {
    best: Arc<ClientConfig>,
    /// HTTP/1.1 alone, for upgrades, which HTTP/2 services seldom support.
    http1: Arc<ClientConfig>,
}

impl LocalTls {
    /// `trust` holds the authorities that the user trusts. `listed` certificates take their place.
    pub(in crate::proxy) fn new(trust: &ClientConfig, listed: Option<Vec<Fingerprint>>) -> Self {
        let accepting = |accepted| {
            let mut config = trust.clone();
            let verifier = KnownCertificate { accepted, provider: aws_lc_rs::default_provider() };
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
            Protocols::of(config)
        };
        let elsewhere = match listed {
            Some(listed) => accepting(Accepted::Listed(listed)),
            None => Protocols::of(trust.clone()),
        };
        Self { loopback: accepting(Accepted::Any), elsewhere }
    }

    /// The configuration for an address on this machine or elsewhere, with or without HTTP/2.
    pub(super) fn config(&self, is_loopback: bool, http1_only: bool) -> Arc<ClientConfig> {
        let protocols = if is_loopback { &self.loopback } else { &self.elsewhere };
        if http1_only { protocols.http1.clone() } else { protocols.best.clone() }
    }
}

impl Protocols {
    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Self { best: Arc::new(config), http1 }
    }
}

/// Accepts certificates without looking at their authority, name and dates.
#[derive(Debug)]
struct KnownCertificate {
    accepted: Accepted,
    provider: CryptoProvider,
}

/// Which certificates are accepted.
#[derive(Debug)]
enum Accepted {
    /// Any one, for a service on this machine. Developers sign their own, and a loopback address is proof enough that the
    /// service is on this machine.
    Any,
    /// Those that the user has named.
    Listed(Vec<Fingerprint>),
}

impl ServerCertVerifier for KnownCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Accepted::Listed(listed) = &self.accepted {
            Fingerprint::check(end_entity, listed)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
