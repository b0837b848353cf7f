//! Reads certificates and keys from PEM files, and checks that they fit.
//!
//! It does not check who issued them.

mod watch;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::clock::{date, unix_now};
use crate::error::Error;

pub use self::watch::Watch;

/// The message for a key file without a usable key.
pub(crate) const NO_KEY: &str = "there is no private key in it that can be used";

/// The message for a certificate file whose PEM or DER is broken.
const DAMAGED: &str = "it is damaged or cut short: a certificate in it cannot be read";

/// The facts in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// The DNS names that it covers.
    pub names: Vec<String>,
    /// Its issuer, as a distinguished name.
    pub issuer: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// The start of its validity, in seconds since 1970.
    pub not_before: i64,
    /// The end of its validity, in seconds since 1970.
    pub not_after: i64,
}

impl Facts {
    /// The names among `names` that it does not cover.
    pub(crate) fn missing<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        let covered = |name: &str| self.names.iter().any(|covered| covered.eq_ignore_ascii_case(name));
        names.iter().copied().filter(|name| !covered(name)).collect()
    }
}

/// Loads a chain and its key. Errors name the file.
///
/// A file may be empty or damaged, or the key may belong to another certificate. The certificate may be expired or not
/// valid yet, or not cover a name.
pub fn load(cert: &Path, key: &Path, names: &[&str]) -> Result<(Arc<CertifiedKey>, Facts), Error> {
    let cert_pem = fs::read(cert).map_err(Error::io(cert))?;
    let (certified, facts) = read(cert, &cert_pem, key, &fs::read(key).map_err(Error::io(key))?)?;
    let now = unix_now();
    if facts.not_after < now {
        return Err(Error::invalid(cert, format!("the certificate expired on {}", date(facts.not_after))));
    }
    if facts.not_before > now {
        return Err(Error::invalid(cert, format!("the certificate is not valid before {}", date(facts.not_before))));
    }
    let missing = facts.missing(names);
    if !missing.is_empty() {
        return Err(Error::invalid(cert, format!("the certificate does not cover {}", missing.join(" and "))));
    }
    Ok((certified, facts))
}

/// Reads a chain and its key, which must belong together. The paths appear in errors. Validity is not checked.
pub(crate) fn read(
    cert: &Path,
    cert_pem: &[u8],
    key: &Path,
    key_pem: &[u8],
) -> Result<(Arc<CertifiedKey>, Facts), Error> {
    let chain = pem_chain(cert, cert_pem)?;
    let facts = facts(cert, &chain[0])?;
    let key_der = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| Error::invalid(key, NO_KEY))?;
    let signer = any_supported_type(&key_der).map_err(|_| Error::invalid(key, NO_KEY))?;
    let certified = CertifiedKey::new(chain, signer);
    certified
        .keys_match()
        .map_err(|_| Error::invalid(key, format!("the key does not belong to {}", cert.display())))?;
    Ok((Arc::new(certified), facts))
}

/// The facts in the first certificate of a file.
pub fn first_facts(path: &Path) -> Result<Facts, Error> {
    facts(path, &chain(path)?[0])
}

/// The facts in the first certificate of a chain.
pub fn facts_of(certified: &CertifiedKey) -> Result<Facts, Error> {
    let leaf = certified.cert.first().ok_or_else(|| Error::Generate("an empty chain".to_owned()))?;
    facts(Path::new("certificate"), leaf)
}

/// The facts in a certificate. The path appears in errors.
pub(crate) fn facts(path: &Path, certificate: &CertificateDer<'_>) -> Result<Facts, Error> {
    let leaf = parse(path, certificate)?;
    let names = leaf.subject_alternative_name().ok().flatten().map(|names| {
        let dns = |general: &GeneralName<'_>| match general {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(dns).collect()
    });
    Ok(Facts {
        names: names.unwrap_or_default(),
        issuer: leaf.issuer().to_string(),
        serial: leaf.raw_serial_as_string(),
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
    })
}

/// True if the first certificate of a file has expired.
pub(crate) fn expired(path: &Path) -> Result<bool, Error> {
    let chain = chain(path)?;
    let not_after = parse(path, &chain[0])?.validity().not_after.timestamp();
    Ok(not_after < unix_now())
}

/// True if the certificate belongs to the key with this SubjectPublicKeyInfo.
pub(crate) fn holds_key(path: &Path, certificate: &CertificateDer<'_>, public_key: &[u8]) -> Result<bool, Error> {
    Ok(parse(path, certificate)?.public_key().raw == public_key)
}

/// The certificates of a file; at least one.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem_chain(path, &fs::read(path).map_err(Error::io(path))?)
}

fn pem_chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| Error::invalid(path, DAMAGED))?;
    if chain.is_empty() {
        return Err(Error::invalid(path, "there is no certificate in it"));
    }
    Ok(chain)
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(der).map(|(_, leaf)| leaf).map_err(|_| Error::invalid(path, DAMAGED))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn each_mistake_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let make = |from: i64, days: i64| {
            let mut params =
                CertificateParams::new(vec!["tunnel.example.com".into(), "*.tunnel.example.com".into()]).unwrap();
            params.not_before = OffsetDateTime::now_utc() + time::Duration::days(from);
            params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other_key), (old_cert, old_key)) = (make(-2, 1), make(-2, 1), make(-2, -1));
        let (early_cert, early_key) = make(1, 2);
        let (early_cert, early_key) = (file("early-cert", &early_cert), file("early-key", &early_key));
        let cut = file("cut", &cert[..cert.len() / 2]);
        let (cert, key, other_key) = (file("cert", &cert), file("key", &key), file("other-key", &other_key));
        let (old_cert, old_key, empty) = (file("old-cert", &old_cert), file("old-key", &old_key), file("empty", ""));
        let names = ["tunnel.example.com", "*.tunnel.example.com"];
        assert!(load(&cert, &key, &names).is_ok());
        for (cert, key, names, said) in [
            (&empty, &key, &names[..], "empty: there is no certificate"),
            (&cert, &empty, &names[..], "empty: there is no private key"),
            (&cert, &cert, &names[..], "cert: there is no private key"),
            (&key, &key, &names[..], "key: there is no certificate"),
            (&cut, &key, &names[..], "cut: it is damaged or cut short"),
            (&early_cert, &early_key, &names[..], "early-cert: the certificate is not valid before"),
            (&cert, &other_key, &names[..], "other-key: the key does not belong to"),
            (&old_cert, &old_key, &names[..], "old-cert: the certificate expired on"),
            (&cert, &key, &["*.other.example"][..], "cert: the certificate does not cover *.other.example"),
        ] {
            let error = load(cert, key, names).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let none = folder.path().join("none");
        assert!(load(&none, &key, &names).unwrap_err().to_string().contains("none: "));
        assert!(load(&cert, &none, &names).unwrap_err().to_string().contains("none: "));
    }
}
