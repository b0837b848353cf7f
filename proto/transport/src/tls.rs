//! The cryptography of TLS, the same for daemon and client.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite};

/// Returns the library's provider with its cipher suites in the order of their cost on this machine. All are of equal worth for
/// security.
///
/// AES-128 costs less than AES-256. Its handshakes hash by SHA-256, for which most processors have instructions, and none
/// has any for SHA-384 that pay off here. Without instructions for AES, ChaCha20 goes first (RFC 8446, section 9.1, leaves
/// the order open).
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let has_aes = has_aes();
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), cost(*suite, has_aes)));
    provider
}

/// Whether a client that offers `first` before all others has no instructions for AES.
pub fn is_without_aes(first: CipherSuite) -> bool {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS13_CHACHA20_POLY1305_SHA256,
    };
    matches!(
        first,
        TLS13_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// The place of a suite among those of its version of TLS.
fn cost(suite: SupportedCipherSuite, has_aes: bool) -> u8 {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
    };
    match suite.suite() {
        suite if is_without_aes(suite) => u8::from(has_aes) * 2,
        TLS13_AES_128_GCM_SHA256 | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            u8::from(!has_aes)
        }
        _ => 1 + u8::from(!has_aes),
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(has_aes: bool) -> Vec<CipherSuite> {
        let mut suites = aws_lc_rs::default_provider().cipher_suites;
        suites.sort_by_key(|suite| (suite.tls13().is_none(), cost(*suite, has_aes)));
        suites.iter().filter(|suite| suite.tls13().is_some()).map(SupportedCipherSuite::suite).collect()
    }

    #[test]
    fn the_cheapest_suite_goes_first() {
        use CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
        let (small, large) = (TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384);
        assert_eq!(order(true), [small, large, TLS13_CHACHA20_POLY1305_SHA256]);
        assert_eq!(order(false), [TLS13_CHACHA20_POLY1305_SHA256, small, large]);
    }

    #[test]
    fn no_suite_is_lost() {
        assert_eq!(provider().cipher_suites.len(), aws_lc_rs::default_provider().cipher_suites.len());
    }
}
