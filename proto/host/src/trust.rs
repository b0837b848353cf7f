//! Which authorities a TLS client trusts: those of the system, or those in a file.
//!
//! It makes no TLS configuration, since each program has its own protocols.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The system trusts no authority, as in many container images. A caller appends what a user can set in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no trusted certificates; install its package of them (ca-certificates)")]
pub struct NoSystemRoots;

/// Why a file gives no trust roots. Each message is complete and names the file.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// The file cannot be read.
    #[error("cannot read the CA file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is not PEM, or rustls rejects a certificate in it.
    #[error("the CA file {}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        why: String,
    },
    /// The file is readable and holds no certificate.
    #[error("the CA file {} has no certificate in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The authorities that the system trusts. Certificates that rustls cannot parse are left out.
pub fn system() -> Result<RootCertStore, NoSystemRoots> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(NoSystemRoots) } else { Ok(roots) }
}

/// The authorities in a PEM file, and no others.
pub fn file(path: &Path) -> Result<RootCertStore, CaFileError> {
    let damaged = |why: String| CaFileError::Damaged { path: path.to_owned(), why };
    let pem = fs::read(path).map_err(|error| CaFileError::Unreadable { path: path.to_owned(), error })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| damaged(error.to_string()))?;
        roots.add(certificate).map_err(|error| damaged(error.to_string()))?;
    }
    if roots.is_empty() { Err(CaFileError::Empty { path: path.to_owned() }) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_authorities_gives_two_roots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let make = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
        };
        fs::write(&path, make() + &make()).unwrap();
        assert_eq!(file(&path).unwrap().len(), 2);
    }

    #[test]
    fn each_mistake_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = |name: &str, text: Option<&str>| {
            let path = folder.path().join(name);
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let message = file(&path).unwrap_err().to_string();
            assert!(message.contains(&path.display().to_string()), "{message}");
            message
        };
        assert!(message("missing", None).starts_with("cannot read the CA file "));
        assert!(message("empty", Some("")).ends_with(" has no certificate in it"));
        for (name, text) in [
            ("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n"),
            ("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            assert!(message(name, Some(text)).starts_with("the CA file "), "{name}");
        }
    }
}
