//! Looks closer at a certificate that was refused: who has signed it, and whether this machine's clock is right. It costs one
//! more connection, which carries nothing but the question for the time. No certificate is trusted here that is not anyway.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::failure::Cause;
use super::{Config, addresses, tls};
use crate::figures::unix_seconds;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest head of an answer that is read.
const MOST: u64 = 8192;
/// How far a time is taken from the end of a certificate's validity, so that it is within.
const MARGIN: Duration = Duration::from_secs(1);

/// Adds to a cause what a closer look shows.
pub(super) async fn look_closer(config: &Config, cause: Cause) -> Cause {
    if !matches!(cause, Cause::UnknownAuthority(_) | Cause::Expired(_) | Cause::NotYetValid(_)) {
        return cause;
    }
    let mut closer = cause.clone();
    let looking = async {
        let Ok(addresses) = addresses(config).await else { return };
        let addresses = &*addresses;
        match &mut closer {
            Cause::UnknownAuthority(issuer) => *issuer = issuer_of(config, addresses).await,
            Cause::Expired(limit) => {
                let within = limit.at.and_then(|at| at.checked_sub(MARGIN.as_secs()));
                limit.there = servers_clock(config, addresses, within).await;
            }
            Cause::NotYetValid(limit) => {
                let within = limit.at.and_then(|at| at.checked_add(MARGIN.as_secs()));
                limit.there = servers_clock(config, addresses, within).await;
            }
            _ => {}
        }
    };
    match timeout(PATIENCE, looking).await {
        Ok(()) => closer,
        Err(_) => cause,
    }
}

/// The name of the authority that has signed the server's certificate.
async fn issuer_of(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let seen = Arc::new(Recorder { issuer: Mutex::default(), schemes: schemes(&config.tls) });
    let mut recording = ClientConfig::clone(&config.tls);
    recording.resumption = Resumption::disabled();
    recording.dangerous().set_certificate_verifier(seen.clone());
    let _refused = tls(config, addresses, &Arc::new(recording)).await;
    seen.issuer.lock().take()
}

fn schemes(tls: &ClientConfig) -> Vec<SignatureScheme> {
    tls.crypto_provider().signature_verification_algorithms.supported_schemes()
}

/// Notes who has signed a certificate, and refuses it.
struct Recorder {
    issuer: Mutex<Option<String>>,
    schemes: Vec<SignatureScheme>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The last one is the nearest to the authority.
        let top = intermediates.last().unwrap_or(certificate);
        *self.issuer.lock() = issuer_name(top);
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The issuer's common name in a certificate, or else its organisation (RFC 5280, section 4.1).
fn issuer_name(certificate: &[u8]) -> Option<String> {
    const VERSION: u8 = 0xa0;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
    let (_, whole, _) = element(certificate)?;
    let (_, mut fields, _) = element(whole)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    // The serial number and the algorithm of the signature.
    (_, _, fields) = element(fields)?;
    (_, _, fields) = element(fields)?;
    let (_, mut issuer, _) = element(fields)?;
    let mut organisation = None;
    while let Some((_, set, rest)) = element(issuer) {
        issuer = rest;
        let Some((_, pair, _)) = element(set) else { continue };
        let Some((_, kind, value)) = element(pair) else { continue };
        let Some((_, text, _)) = element(value) else { continue };
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            COMMON_NAME => return Some(text()),
            ORGANISATION => organisation = Some(text()),
            _ => {}
        }
    }
    organisation
}

/// The first element of DER (X.690, section 8.1): its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // A certificate's element is shorter than 16 MiB.
        let digits = usize::from(first & 0x7f);
        let (digits, rest) = rest.split_at_checked(digits).filter(|(digits, _)| (1..=3).contains(&digits.len()))?;
        (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// What the server's clock says, in seconds since 1970. Its certificate is checked as always, but at the time `within` its
/// validity.
async fn servers_clock(config: &Config, addresses: &[SocketAddr], within: Option<u64>) -> Option<u64> {
    let mut then = ClientConfig::clone(&config.tls);
    then.time_provider = Arc::new(Then(UnixTime::since_unix_epoch(Duration::from_secs(within?))));
    // A resumed handshake would check no certificate.
    then.resumption = Resumption::disabled();
    let mut stream = tls(config, addresses, &Arc::new(then)).await.ok()?;
    let ask = format!("HEAD / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", config.server.authority());
    stream.write_all(ask.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut limited = stream.take(MOST);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        // Without the end of TLS, what has come counts all the same.
        match limited.read_buf(&mut answer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    date_of(&answer)
}

/// The field `date` of a response's head.
fn date_of(head: &[u8]) -> Option<u64> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).ok()?;
    let date = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("date"))?;
    let date = httpdate::parse_http_date(std::str::from_utf8(date.value).ok()?).ok()?;
    Some(unix_seconds(date))
}

/// A clock that stands still.
#[derive(Debug)]
struct Then(UnixTime);

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

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
        assert_eq!(issuer_name(&certificate).as_deref(), Some("Corp Root"));
        assert_eq!(issuer_name(&signed_by(DnType::OrganizationName, "Corp")).as_deref(), Some("Corp"));
        assert_eq!(issuer_name(&signed_by(DnType::LocalityName, "Here")), None);
        for length in 0..certificate.len() {
            // No part of one makes it panic.
            let _part = issuer_name(&certificate[..length]);
        }
        assert_eq!(issuer_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn an_answer_has_a_date() {
        let head = b"HTTP/1.1 404 Not Found\r\nDate: Sun, 29 Nov 2026 10:42:07 GMT\r\n\r\n";
        assert_eq!(date_of(head), Some(1_795_948_927));
        assert_eq!(date_of(b"HTTP/1.1 404 Not Found\r\ndate: today\r\n\r\n"), None);
        assert_eq!(date_of(b"SSH-2.0-x\r\n"), None);
    }
}
