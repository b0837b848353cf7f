//! TLS towards a local service behind `https://`.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;

use crate::lenient::Lenient;
use crate::target_trust::Fingerprint;

/// ALPN name of HTTP/1.1.
const HTTP_1: &[u8] = b"http/1.1";
/// ALPN name of HTTP/2.
pub(super) const HTTP_2: &[u8] = b"h2";

/// A configuration for each place of the service.
#[derive(Debug)]
pub(in crate::proxy) struct LocalTls {
    /// For this machine: accepts any certificate.
    loopback: Protocols,
    /// For other machines: accepts certificates that the user trusts or has listed.
    elsewhere: Protocols,
}

#[derive(Debug)]
struct Protocols {
    best: Arc<ClientConfig>,
    /// HTTP/1.1 alone, for upgrades, which HTTP/2 services seldom support.
    http1: Arc<ClientConfig>,
}

impl LocalTls {
    /// `trust` holds the authorities that the user trusts. `listed` certificates take their place.
    pub(in crate::proxy) fn new(trust: &ClientConfig, listed: Option<Vec<Fingerprint>>) -> Self {
        let provider = aws_lc_rs::default_provider();
        let accepting = |verifier| {
            let mut config = trust.clone();
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
            Protocols::of(config)
        };
        // Developers sign their own certificates, and a loopback address is proof enough that the service is on this machine.
        let loopback = accepting(Lenient::new(&provider, |_, _| Ok(())));
        let elsewhere = match listed {
            Some(listed) => accepting(Lenient::new(&provider, move |own, _| Fingerprint::check(own, &listed))),
            None => Protocols::of(trust.clone()),
        };
        Self { loopback, elsewhere }
    }

    /// The configuration for an address on this machine or elsewhere, with or without HTTP/2.
    pub(super) fn config(&self, is_loopback: bool, http1_only: bool) -> Arc<ClientConfig> {
        let protocols = if is_loopback { &self.loopback } else { &self.elsewhere };
        if http1_only { protocols.http1.clone() } else { protocols.best.clone() }
    }
}

impl Protocols {
    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Self { best: Arc::new(config), http1 }
    }
}
