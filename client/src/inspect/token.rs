//! The token of an inspector: who knows it may see and repeat all requests.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes of a token. They cannot be guessed, and the address fits on a terminal's line.
const LENGTH: usize = 12;

/// A token, new in each run.
pub(super) struct Token(String);

impl Token {
    /// A random one.
    pub(super) fn new() -> io::Result<Self> {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the token. The time that it takes does not depend on the text.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), text).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_another_one() {
        let (one, two) = (Token::new().unwrap(), Token::new().unwrap());
        assert!(one.is(one.as_str().as_bytes()) && !one.is(two.as_str().as_bytes()) && !one.is(b""));
        assert_eq!((one.as_str().len(), format!("{one:?}").as_str()), (16, "Token"));
    }
}
