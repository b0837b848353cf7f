//! The content coding `deflate`. It means zlib data, yet some services send raw DEFLATE data. The first two bytes tell.

use super::{Coding, Inflate, Trouble};

/// Undoes `deflate`.
#[derive(Debug)]
pub(super) enum Deflate {
    /// Before the second byte.
    Unknown(Option<u8>),
    /// Passes on the first byte, then the rest.
    Known { first: Option<u8>, inflate: Inflate },
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self::Unknown(None)
    }

    /// How much it took and made. What comes behind the end is dropped, as browsers do.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        match self {
            Self::Unknown(first) => match (*first, input) {
                (_, []) => Ok((0, 0)),
                (None, [byte, ..]) => {
                    *first = Some(*byte);
                    Ok((1, 0))
                }
                (Some(first), [second, ..]) => {
                    let inflate = Inflate::new(is_zlib(first, *second), Coding::Deflate);
                    *self = Self::Known { first: Some(first), inflate };
                    self.step(input, out)
                }
            },
            Self::Known { first, inflate } => {
                if let Some(byte) = *first {
                    let (taken, made) = inflate.step(&[byte], out)?;
                    if taken == 1 {
                        *first = None;
                    }
                    if made > 0 || taken == 0 {
                        return Ok((0, made));
                    }
                }
                if inflate.has_ended() {
                    return Ok((input.len(), 0));
                }
                inflate.step(input, out)
            }
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Unknown(first) => first.is_none(),
            Self::Known { inflate, .. } => inflate.has_ended(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Unknown(_) => 0,
            Self::Known { inflate, .. } => inflate.memory(),
        }
    }
}

/// Whether two bytes are a zlib header (RFC 1950, section 2.2): the method DEFLATE, a window that may be, a valid check.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}
