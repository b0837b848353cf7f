//! A look at a daemon without trust in it: which certificate it shows, and its time of day.
//!
//! It sends no secret and believes nothing. It serves to say why a certificate is not trusted, and whether the clock is wrong.

use std::sync::Arc;
use std::time::Duration;

use cok_transport::tls::provider;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Config, Stream, addresses, stream};
use crate::text::quoted;

/// Timeout of a look. It only explains what went wrong before.
const LIMIT: Duration = Duration::from_secs(10);

/// Who has signed the daemon's certificate, as the certificate itself says. `None` if it shows none.
pub(super) async fn issuer(config: &Config) -> Option<String> {
    let look = async {
        let stream = stream(config, &addresses(config).await.ok()?).await.ok()?;
        let (_stream, certificate) = untrusting(config, stream).await?;
        name_of_issuer(&certificate)
    };
    timeout(LIMIT, look).await.ok()?
}

/// TLS over this stream with whatever is at its end, and its certificate in DER.
pub(crate) async fn untrusting(config: &Config, stream: Stream) -> Option<(TlsStream<Stream>, Vec<u8>)> {
    let crypto = Arc::new(provider());
    let witness = Arc::new(Witness { algorithms: crypto.signature_verification_algorithms, seen: Mutex::default() });
    let mut tls = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(config.server.host().to_owned()).ok()?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.ok()?;
    let certificate = std::mem::take(&mut *witness.seen.lock());
    Some((stream, certificate))
}

/// The name of the authority in a certificate.
pub(crate) fn name_of_issuer(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let issuer = certificate.issuer();
    let common = issuer.iter_common_name().find_map(|name| name.as_str().ok());
    Some(quoted(common.unwrap_or(&issuer.to_string())))
}

/// Accepts any certificate, and keeps it.
#[derive(Debug)]
struct Witness {
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Vec<u8>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock() = end_entity.to_vec();
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
