//! Our own certificate authority, for development: created once, kept in a folder, trusted by those who install it.
//!
//! It revokes nothing and issues for any name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cok_host::private_file;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::error::Error;
use crate::files;

/// Valid for longer than a machine that trusts it by hand is used.
const AUTHORITY_DAYS: i64 = 3650;
/// Browsers refuse certificates that are valid for more than 398 days.
const LEAF_DAYS: i64 = 90;
/// Allows for clocks that run behind.
const BACKDATE: Duration = Duration::hours(1);

/// The authority. Its key never leaves its folder.
#[derive(Debug)]
pub struct Authority {
    ca_file: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the authority in `folder`, or creates it there: `ca.pem` and `ca.key`, for the owner alone.
    ///
    /// An expired authority is replaced. A damaged one is an error, since its users should know. Processes that start
    /// together in one folder get the same authority.
    pub fn load_or_create(folder: &Path) -> Result<Self, Error> {
        let (ca_file, key_file) = (Self::certificate_file(folder), folder.join("ca.key"));
        private_file::create_private_folder(folder).map_err(Error::io(folder))?;
        // Held until return. Two processes at once could leave the key of one with the certificate of the other.
        let opened = File::open(folder).map_err(Error::io(folder))?;
        opened.lock().map_err(Error::io(folder))?;
        if !ca_file.exists() || files::expired(&ca_file)? {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Generate(e.to_string()))?;
            let certificate = params()?.self_signed(&key).map_err(|e| Error::Generate(e.to_string()))?;
            // The key comes first, because a certificate counts as an authority.
            private_file::write(&key_file, key.serialize_pem().as_bytes()).map_err(Error::io(&key_file))?;
            private_file::write_with_mode(&ca_file, certificate.pem().as_bytes(), 0o644)
                .map_err(Error::io(&ca_file))?;
        }
        private_file::restrict_file(&key_file).map_err(Error::io(&key_file))?;
        let certificate = files::chain(&ca_file)?.swap_remove(0);
        let key = fs::read_to_string(&key_file).map_err(Error::io(&key_file))?;
        let key = KeyPair::from_pem(&key).map_err(|_| Error::invalid(&key_file, files::NO_KEY))?;
        if !files::holds_key(&ca_file, &certificate, &key.subject_public_key_info())? {
            return Err(Error::invalid(&key_file, format!("the key does not belong to {}", ca_file.display())));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|error| Error::invalid(&ca_file, error.to_string()))?;
        Ok(Self { ca_file, certificate, issuer })
    }

    /// The authority's certificate in PEM, for those who trust it.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The file in `folder` with the authority's certificate in PEM.
    pub fn certificate_file(folder: &Path) -> PathBuf {
        folder.join("ca.pem")
    }

    /// The file in `folder` with the certificate that was issued there last.
    pub fn issued_file(folder: &Path) -> PathBuf {
        folder.join("issued.pem")
    }

    /// Issues a certificate with a new key for these DNS names and IP addresses. Its file has no key and is for those who
    /// look at its dates.
    pub fn issue(&self, names: &[&str]) -> Result<Arc<CertifiedKey>, Error> {
        let generate = |error: rcgen::Error| Error::Generate(error.to_string());
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).map_err(generate)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.first().cloned().unwrap_or_default());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generate)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(generate)?;
        if let Some(folder) = self.ca_file.parent() {
            // It serves without the file as well, such as on a full disk.
            let _kept = private_file::write(&Self::issued_file(folder), leaf.pem().as_bytes());
        }
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = any_supported_type(&der).map_err(|error| Error::Generate(error.to_string()))?;
        Ok(Arc::new(CertifiedKey::new(vec![leaf.der().clone(), self.certificate.clone()], signer)))
    }
}

fn params() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| Error::Generate(error.to_string()))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "cok development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_DAYS);
    Ok(params)
}

fn validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::days(days);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("authority");
        let first = Authority::load_or_create(&folder).unwrap();
        let again = Authority::load_or_create(&folder).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("ca.key"))), (0o700, 0o600));
        let names = ["cok.localhost", "*.cok.localhost"];
        let issued = again.issue(&names).unwrap();
        assert_eq!(issued.cert.len(), 2);
        let facts = files::first_facts(&Authority::issued_file(&folder)).unwrap();
        assert_eq!(facts, files::facts_of(&issued).unwrap());
        assert_eq!(facts.names, names);
    }

    #[test]
    fn wide_permissions_are_narrowed() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let widen = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        widen(folder.path(), 0o755);
        let key_file = folder.path().join("ca.key");
        Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
        widen(&key_file, 0o644);
        Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(mode(&key_file), 0o600);
    }

    #[test]
    fn processes_that_start_together_share_one_authority() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Authority::load_or_create(folder.path()).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap().certificate).collect::<Vec<_>>()
        });
        assert!(certificates.iter().all(|certificate| *certificate == certificates[0]));
    }

    #[test]
    fn an_expired_authority_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(folder.path()).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut expired = params().unwrap();
        expired.not_after = OffsetDateTime::now_utc() - Duration::days(1);
        fs::write(first.ca_file(), expired.self_signed(&key).unwrap().pem()).unwrap();
        let second = Authority::load_or_create(folder.path()).unwrap();
        assert_ne!(first.certificate, second.certificate);
        assert!(!files::expired(second.ca_file()).unwrap());
    }

    #[test]
    fn a_damaged_authority_is_an_error_that_names_the_file() {
        let other = tempfile::tempdir().unwrap();
        Authority::load_or_create(other.path()).unwrap();
        let foreign_key = fs::read_to_string(other.path().join("ca.key")).unwrap();
        for (file, text, said) in [
            ("ca.key", "nonsense", "ca.key: there is no private key in it"),
            ("ca.key", &foreign_key, "ca.key: the key does not belong to"),
            ("ca.pem", "", "ca.pem: there is no certificate in it"),
            ("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", "ca.pem: it is damaged or cut short"),
            (
                "ca.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "ca.pem: it is damaged or cut short",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            Authority::load_or_create(folder.path()).unwrap();
            fs::write(folder.path().join(file), text).unwrap();
            let error = Authority::load_or_create(folder.path()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        assert!(Authority::load_or_create(folder.path()).unwrap_err().to_string().contains("ca.key: "));
    }
}
