//! A certificate authority of one's own, for development: made once, kept in a folder, trusted by whoever wants to.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::Error;
use crate::files;

/// The authority is to outlive every machine that trusts it by hand.
const AUTHORITY_DAYS: i64 = 3650;
/// Browsers refuse certificates that are valid for more than 398 days.
const LEAF_DAYS: i64 = 90;
/// Clocks differ.
const BACKDATE: Duration = Duration::hours(1);

/// The authority. Its key never leaves its folder.
#[derive(Debug)]
pub struct Authority {
    ca_file: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Takes the authority kept in `folder`, or makes one there: `ca.pem` and, readable by the owner alone, `ca.key`.
    /// One that has expired is made anew; a damaged one is an error, since whoever trusts it should know.
    pub fn load_or_create(folder: &Path) -> Result<Self, Error> {
        let (ca_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
        if !ca_file.exists() || files::expired(&ca_file)? {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::io(folder))?;
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Generate(e.to_string()))?;
            let certificate = params()?.self_signed(&key).map_err(|e| Error::Generate(e.to_string()))?;
            // The key first: a certificate without its key would be taken for an authority.
            write(folder, &key_file, &key.serialize_pem(), 0o600)?;
            write(folder, &ca_file, &certificate.pem(), 0o644)?;
        }
        let pem = fs::read_to_string(&ca_file).map_err(Error::io(&ca_file))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::invalid(&ca_file, error.to_string()))?;
        let key = fs::read_to_string(&key_file).map_err(Error::io(&key_file))?;
        let key = KeyPair::from_pem(&key).map_err(|error| Error::invalid(&key_file, error.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|error| Error::invalid(&ca_file, error.to_string()))?;
        Ok(Self { ca_file, certificate, issuer })
    }

    /// The authority's certificate in PEM, for whoever is to trust it.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A certificate for these DNS names, with a key of its own.
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

/// Writes a file whole or not at all.
fn write(folder: &Path, path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
    file.write_all(text.as_bytes()).map_err(Error::io(path))?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(Error::io(path))?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(again.issue(&["cok.localhost", "*.cok.localhost"]).unwrap().cert.len(), 2);
    }

    #[test]
    fn a_damaged_authority_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        fs::write(folder.path().join("ca.key"), "nonsense").unwrap();
        let error = Authority::load_or_create(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
    }
}
