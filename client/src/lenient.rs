//! TLS that looks at the certificates in a way of its own, in place of authority, name and dates.

use std::fmt;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Looks at a certificate, and at those above it.
type Check = dyn Fn(&CertificateDer<'_>, &[CertificateDer<'_>]) -> Result<(), Error> + Send + Sync;

/// Accepts the certificates that its check accepts. It still verifies that the other side has the certificate's key.
pub(crate) struct Lenient {
    algorithms: WebPkiSupportedAlgorithms,
    check: Box<Check>,
}

impl Lenient {
    pub(crate) fn new(
        provider: &CryptoProvider,
        check: impl Fn(&CertificateDer<'_>, &[CertificateDer<'_>]) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, check: Box::new(check) }
    }
}

impl fmt::Debug for Lenient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lenient")
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.check)(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
