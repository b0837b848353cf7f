//! Which certificates an `https://` target may show. The trust in the daemon has nothing to do with it: an authority that
//! vouches for a daemon must not vouch for all services of the owner's network.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use cok_host::trust;
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore};

use crate::trust::{TrustError, client_config};

/// Which certificates are accepted from an `https://` target on another machine. On this machine, that is on a loopback
/// address, any certificate is accepted. No setting turns the check off for other machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TargetTrust {
    /// Those for the target's name that an authority of the system has signed.
    #[default]
    System,
    /// Those for the target's name that an authority in this PEM file has signed.
    CaFile(PathBuf),
    /// Those with one of these fingerprints, whatever their name, authority and dates.
    Fingerprints(Vec<Fingerprint>),
}

/// The SHA-256 digest of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no fingerprint; it looks like sha256: and 64 hexadecimal digits, with or without colons")]
pub struct InvalidFingerprint(String);

/// A certificate with another fingerprint than the listed ones.
#[derive(Debug, thiserror::Error)]
#[error("its fingerprint is {0}, which is not the one that was named")]
struct OtherFingerprint(Fingerprint);

impl TargetTrust {
    /// TLS with the authorities that count. Those of the system are read only for `is_https` targets. A system that has none
    /// trusts none.
    pub(crate) fn load(&self, is_https: bool) -> Result<Arc<ClientConfig>, TrustError> {
        let roots = match self {
            Self::System if is_https => trust::system().unwrap_or_else(|_| RootCertStore::empty()),
            Self::CaFile(path) => trust::file(path)?,
            Self::System | Self::Fingerprints(_) => RootCertStore::empty(),
        };
        client_config(roots)
    }

    /// The fingerprints that decide, if any do.
    pub(crate) fn fingerprints(&self) -> Option<&[Fingerprint]> {
        match self {
            Self::Fingerprints(listed) => Some(listed),
            Self::System | Self::CaFile(_) => None,
        }
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Accepts a certificate that is listed.
    pub(crate) fn check(certificate: &[u8], listed: &[Self]) -> Result<(), rustls::Error> {
        let found = Self::of(certificate);
        if listed.contains(&found) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(OtherFingerprint(found)))).into())
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Reads `sha256:` and 64 hexadecimal digits, in any case. Colons between the digits do not count.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let invalid = || InvalidFingerprint(text.to_owned());
        let (kind, digits) = text.trim().split_once(':').ok_or_else(invalid)?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
        if !kind.eq_ignore_ascii_case("sha256") || digits.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).ok_or_else(invalid)?;
                *byte = *byte << 4 | value as u8;
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_openssl_and_browsers_print_them() {
        let plain = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let colons =
            "SHA256:BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
        for text in [plain, colons] {
            let read: Fingerprint = text.parse().unwrap();
            assert_eq!(read, Fingerprint::of(b"abc"));
            assert_eq!(read.to_string(), plain);
        }
        for text in
            ["", "sha256:", "sha1:aa", &plain[7..], &plain[..70], &format!("{plain}0"), &plain.replace('a', "g")]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_listed_certificate_passes() {
        let listed = [Fingerprint::of(b"a"), Fingerprint::of(b"b")];
        assert!(Fingerprint::check(b"b", &listed).is_ok());
        let error = Fingerprint::check(b"c", &listed).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)));
    }
}
