//! The names of content codings (RFC 9110, section 8.4.1).

use std::fmt;

use super::Trouble;

/// The longest name of a coding that is shown.
const LONGEST_NAME: usize = 40;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// `gzip` and `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib data (RFC 1950), or raw DEFLATE data (RFC 1951) as some services send it.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

impl Coding {
    /// The most codings of one body. Real ones have one.
    pub(crate) const MOST: usize = 4;

    /// The codings in the values of a `Content-Encoding` field, in the order in which they were applied.
    pub(crate) fn list<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Self>, Trouble> {
        let mut codings = Vec::new();
        for name in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
            let name = name.trim_ascii();
            if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            if codings.len() == Self::MOST {
                return Err(Trouble::TooManyCodings);
            }
            codings.push(Self::named(name)?);
        }
        Ok(codings)
    }

    /// The coding of this name, in upper or lower case.
    pub(crate) fn named(name: &[u8]) -> Result<Self, Trouble> {
        match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            b"br" => Ok(Self::Brotli),
            b"zstd" => Ok(Self::Zstd),
            _ => {
                Err(Trouble::UnknownCoding(String::from_utf8_lossy(&name[..name.len().min(LONGEST_NAME)]).into_owned()))
            }
        }
    }

    /// The name, as in `Content-Encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
