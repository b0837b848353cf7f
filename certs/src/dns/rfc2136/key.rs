//! The key that signs an update (TSIG, RFC 8945).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;

use crate::dns::{SolverError, parse_name};

/// How far the clocks may differ, in seconds: the recommendation of RFC 8945, section 10.
const FUDGE: u16 = 300;

/// A shared key (TSIG). Its debug output contains no secret.
#[derive(Clone)]
pub struct Key(pub(super) TSigner);

impl Key {
    /// Builds a key from its name and algorithm as on the server: `hmac-sha256`, `hmac-sha384` or `hmac-sha512`. The
    /// secret is base64, as `keymgr -t` and `tsig-keygen` write it.
    pub fn new(name: &str, algorithm: &str, secret_base64: &str) -> Result<Self, SolverError> {
        let setup = |why: String| SolverError::Setup(why);
        let name = parse_name(name).map_err(|why| setup(format!("the TSIG key's name {name:?} is wrong: {why}")))?;
        let algorithm = self::algorithm(algorithm).ok_or_else(|| {
            setup(format!(
                "the TSIG algorithm {algorithm:?} is not supported: use hmac-sha256, hmac-sha384 or hmac-sha512"
            ))
        })?;
        // The decoder's error would reveal bytes of the secret.
        let secret = STANDARD
            .decode(secret_base64.trim())
            .map_err(|_| setup(format!("the secret of the TSIG key {name} is not base64")))?;
        if secret.is_empty() {
            return Err(setup(format!("the secret of the TSIG key {name} is empty")));
        }
        TSigner::new(secret, algorithm, name, FUDGE).map(Self).map_err(|error| setup(error.to_string()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Key")
            .field("name", &self.0.signer_name().to_ascii())
            .field("algorithm", &self.0.algorithm().to_string())
            .finish_non_exhaustive()
    }
}

/// The algorithm with this name in RFC 8945, section 6, if it is supported.
fn algorithm(name: &str) -> Option<TsigAlgorithm> {
    Some(match name.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        _ => return None,
    })
}

/// True if keys may have this algorithm.
pub fn is_algorithm(name: &str) -> bool {
    algorithm(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::rfc2136::Settings;

    #[test]
    fn a_key_is_checked_and_hides_its_secret() {
        let secret = STANDARD.encode(b"a secret of many bytes, not to be shown");
        let key = Key::new("cokd", "HMAC-SHA256.", &format!(" {secret}\n")).unwrap();
        let settings = Settings { server: "h".to_owned(), zone: None, key: Some(key.clone()) };
        let shown = format!("{key:?} {settings:?}");
        assert!(shown.contains("cokd.") && shown.contains("hmac-sha256"), "{shown}");
        assert!(!shown.contains(&secret) && !shown.contains("115, 101, 99"), "{shown}");
        for algorithm in ["hmac-sha384", "hmac-sha512"] {
            Key::new("cokd.", algorithm, &secret).unwrap();
        }
        for (name, algorithm, secret, part) in [
            ("a..b", "hmac-sha256", secret.as_str(), "a..b"),
            ("", "hmac-sha256", &secret, "empty"),
            ("cokd", "hmac-md5", &secret, "hmac-md5"),
            ("cokd", "hmac-sha256", "not base64!", "not base64"),
            ("cokd", "hmac-sha256", "", "empty"),
        ] {
            let error = Key::new(name, algorithm, secret).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("not base64!"), "{error}");
        }
    }
}
