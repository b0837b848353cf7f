//! Which certificate a TLS connection gets.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Hands out the one certificate for a domain and the names right under it, and refuses every other name. The
/// certificate can be swapped at any time; reading takes no lock.
pub struct CertResolver {
    domain: String,
    current: ArcSwap<CertifiedKey>,
}

impl CertResolver {
    /// A resolver for `domain` (in lower case) and `*.domain`.
    pub fn new(domain: &str, certificate: Arc<CertifiedKey>) -> Self {
        Self { domain: domain.to_ascii_lowercase(), current: ArcSwap::new(certificate) }
    }

    /// From now on, new connections get this certificate.
    pub fn replace(&self, certificate: Arc<CertifiedKey>) {
        self.current.store(certificate);
    }

    /// Whether `name` is the domain or right under it.
    fn covers(&self, name: &str) -> bool {
        let Some(split) = name.len().checked_sub(self.domain.len()) else { return false };
        let (Some(label), Some(rest)) = (name.get(..split), name.get(split..)) else { return false };
        let below = label.strip_suffix('.').is_some_and(|label| !label.is_empty() && !label.contains('.'));
        rest.eq_ignore_ascii_case(&self.domain) && (label.is_empty() || below)
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.covers(hello.server_name()?).then(|| self.current.load_full())
    }
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertResolver").field("domain", &self.domain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[test]
    fn covers_the_domain_and_one_label_under_it() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let resolver = CertResolver::new("Tunnel.example.com", authority.issue(&["tunnel.example.com"]).unwrap());
        for name in ["tunnel.example.com", "TUNNEL.example.com", "a.tunnel.example.com"] {
            assert!(resolver.covers(name), "{name}");
        }
        for name in ["", "example.com", "a.b.tunnel.example.com", ".tunnel.example.com", "xtunnel.example.com", "ü.com"]
        {
            assert!(!resolver.covers(name), "{name}");
        }
    }
}
