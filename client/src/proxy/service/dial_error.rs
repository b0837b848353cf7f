//! Why there is no connection to the service, and what its owner can do.

use std::io;
use std::time::Duration;

use crate::dial::Cause;
use crate::text::io_reason;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The service does not accept the connection, or cannot be reached.
    #[error("cannot connect to {to}: {why}")]
    Refused { to: String, why: String },
    /// It does not answer in time.
    #[error("cannot connect to {to} within {} s", .limit.as_secs_f32())]
    TimedOut { to: String, limit: Duration },
    /// Its name has no address.
    #[error("cannot connect to {to}: {why}; check the target's name, and this machine's DNS")]
    Unresolved { to: String, why: String },
    /// Its certificate is not accepted.
    #[error(
        "cannot trust {to}: {why}; name its authority by --target-ca-file, or the certificate itself by \
         --target-fingerprint"
    )]
    Untrusted { to: String, why: String },
    /// It speaks another protocol than the target says.
    #[error("cannot speak with {to}: {why}")]
    Mismatch { to: String, why: String },
}

/// The resolver's error for the name of a target.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct LookupFailed(io::Error);

/// Marks an error as the resolver's.
pub(super) fn lookup_failed(error: io::Error) -> io::Error {
    io::Error::other(LookupFailed(error))
}

impl DialError {
    /// The failure of a connection to the target `to`, which had this time limit.
    pub(super) fn new(to: String, limit: Duration, error: &io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(LookupFailed(error)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Self::Unresolved { to, why: Cause::of_lookup(error).to_string() };
        }
        if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<h2::Error>) {
            let why = "it opens no HTTP/2 connection; if it speaks HTTP/1.1, say http://… as the target".to_owned();
            return Self::Mismatch { to, why };
        }
        match inner.and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Untrusted { to, why: Cause::of_tls(error).to_string() },
            Some(rustls::Error::InvalidMessage(_)) => {
                let why = "it does not speak TLS; if it speaks plain HTTP, say http://… as the target".to_owned();
                Self::Mismatch { to, why }
            }
            Some(_) => Self::Mismatch { to, why: Cause::of_tls(error).to_string() },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                let why =
                    "it closes the connection when TLS begins; if it speaks plain HTTP, say http://… as the target";
                Self::Mismatch { to, why: why.to_owned() }
            }
            None if error.kind() == io::ErrorKind::TimedOut => Self::TimedOut { to, limit },
            None => Self::Refused { to, why: io_reason(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, InvalidMessage};

    use super::*;

    fn said(error: &io::Error) -> String {
        DialError::new("app.test:443".to_owned(), Duration::from_secs(5), error).to_string()
    }

    fn tls(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn each_cause_is_reported_as_itself() {
        for (error, words) in [
            (io::ErrorKind::ConnectionRefused.into(), "cannot connect to app.test:443: connection refused"),
            (io::ErrorKind::TimedOut.into(), "cannot connect to app.test:443 within 5 s"),
            (lookup_failed(io::Error::other("no such host")), "its name cannot be resolved: no such host; check"),
            (tls(CertificateError::UnknownIssuer.into()), "cannot trust app.test:443: its certificate is from an"),
            (tls(CertificateError::Expired.into()), "cannot trust app.test:443: its certificate has expired; name"),
            (tls(CertificateError::NotValidForName.into()), "its certificate is for another name; name"),
            (tls(InvalidMessage::InvalidContentType.into()), "it does not speak TLS; if it speaks plain HTTP"),
            (tls(rustls::Error::DecryptError), "cannot speak with app.test:443: TLS failed: "),
            (io::Error::other(h2::Error::from(h2::Reason::FRAME_SIZE_ERROR)), "it opens no HTTP/2 connection; if"),
        ] {
            let said = said(&error);
            assert!(said.contains(words), "{said}");
        }
    }
}
