//! A look at a daemon without trust in it: which certificate it shows, and its time of day.
//!
//! It sends no secret and believes nothing. It serves to say why a certificate is not trusted, and whether the clock is wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cok_transport::tls::provider;
use http::Request;
use http::header::{DATE, HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Config, Stream, stream};
use crate::lenient::Lenient;
use crate::text::quoted;

/// The longest head of an answer, in bytes. A stranger may be at the other end.
const LONGEST_HEAD: usize = 8192;

/// Who has signed the daemon's certificates, as they say themselves. `None` if it shows none.
pub(super) async fn issuer(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let stream = stream(config, addresses).await.ok()?;
    let (_stream, certificates) = untrusting(config, stream).await?;
    name_of_issuer(&certificates)
}

/// TLS over this stream with whatever is at its end, and its certificates in DER, the daemon's own first.
pub(crate) async fn untrusting(config: &Config, stream: Stream) -> Option<(TlsStream<Stream>, Vec<Vec<u8>>)> {
    let crypto = Arc::new(provider());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let witness = Lenient::new(&crypto, {
        let shown = shown.clone();
        move |own, above| {
            *shown.lock() = [own].into_iter().chain(above).map(|der| der.to_vec()).collect();
            Ok(())
        }
    });
    let mut tls = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(witness))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(config.server.host().to_owned()).ok()?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.ok()?;
    let certificates = std::mem::take(&mut *shown.lock());
    Some((stream, certificates))
}

/// What the clock of the daemon with this authority says, at the end of this stream. `None` if it does not say so.
pub(crate) async fn date(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: &str,
) -> Option<SystemTime> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the response.
    tokio::spawn(connection);
    let request = Request::head("/").header(HOST, authority).body(Empty::<Bytes>::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    httpdate::parse_http_date(response.headers().get(DATE)?.to_str().ok()?).ok()
}

/// The name of the authority above these certificates: its common name, or else its organization, or else all of it.
pub(crate) fn name_of_issuer(certificates: &[Vec<u8>]) -> Option<String> {
    // The last one is the nearest to the authority.
    let (_, certificate) = X509Certificate::from_der(certificates.last()?).ok()?;
    let issuer = certificate.issuer();
    let named = issuer.iter_common_name().chain(issuer.iter_organization()).find_map(|name| name.as_str().ok());
    Some(quoted(named.unwrap_or(&issuer.to_string())))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use cok_host::figures::unix_seconds;

    #[tokio::test]
    async fn an_answer_has_a_date() {
        for (head, expected) in [
            ("HTTP/1.1 404 Not Found\r\nDate: Sun, 29 Nov 2026 10:42:07 GMT\r\n\r\n", Some(1_795_948_927)),
            ("HTTP/1.1 404 Not Found\r\ndate: today\r\n\r\n", None),
            ("SSH-2.0-x\r\n", None),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let (said, ()) = tokio::join!(date(ours, "t.example"), async {
                // The question comes first.
                assert!(theirs.read(&mut [0; 1024]).await.unwrap() > 0);
                theirs.write_all(head.as_bytes()).await.unwrap();
                drop(theirs);
            });
            assert_eq!(said.map(unix_seconds), expected, "{head}");
        }
    }

    /// A certificate whose issuer has this name.
    fn signed_by(kind: DnType, name: &str) -> Vec<u8> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name = rcgen::DistinguishedName::new();
        authority.distinguished_name.push(DnType::CountryName, "DE");
        authority.distinguished_name.push(kind, name);
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        let mut server = CertificateParams::new(["t.example".to_owned()]).unwrap();
        server.distinguished_name.push(DnType::CommonName, "the server");
        server.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
    }

    #[test]
    fn an_issuer_has_a_name() {
        let certificate = signed_by(DnType::CommonName, "Corp Root");
        assert_eq!(name_of_issuer(std::slice::from_ref(&certificate)).as_deref(), Some("Corp Root"));
        assert_eq!(name_of_issuer(&[signed_by(DnType::OrganizationName, "Corp")]).as_deref(), Some("Corp"));
        assert_eq!(name_of_issuer(&[signed_by(DnType::LocalityName, "Here")]).as_deref(), Some("C=DE, L=Here"));
        for length in 0..certificate.len() {
            // No part of one makes it panic.
            let _part = name_of_issuer(&[certificate[..length].to_vec()]);
        }
        assert_eq!(name_of_issuer(&[vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]]), None);
        let chain = [signed_by(DnType::CommonName, "Between"), signed_by(DnType::CommonName, "Above")];
        assert_eq!(name_of_issuer(&chain).as_deref(), Some("Above"));
        assert_eq!(name_of_issuer(&[]), None);
        let hostile = signed_by(DnType::CommonName, "Corp\u{1b}[2J");
        assert_eq!(name_of_issuer(&[hostile]).as_deref(), Some("Corp\\u{1b}[2J"));
    }
}
