//! The content coding `gzip` (RFC 1952): members with a header, DEFLATE data, a checksum and a length.

use flate2::Crc;

use super::{Coding, Inflate, Trouble};

/// The length of a header without its optional parts.
const FIXED: u8 = 10;
/// The length of what follows the data: CRC-32 and the length, both in four bytes.
const TRAILER: u8 = 8;

/// Flags of the header: what optional parts it has.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

/// Undoes `gzip`.
#[derive(Debug)]
pub(super) struct Gzip {
    place: Place,
    inflate: Inflate,
    crc: Crc,
    /// One member has ended at least.
    has_member: bool,
}

/// Which part of a member comes next.
#[derive(Debug)]
enum Place {
    /// The fixed part of the header: how many bytes have come, and the flags.
    Fixed {
        have: u8,
        flags: u8,
    },
    /// The optional parts that are still to come.
    Optional {
        part: Part,
        flags: u8,
    },
    Data,
    Trailer {
        have: u8,
        bytes: [u8; TRAILER as usize],
    },
    /// Behind the last member. What comes is dropped, as browsers do.
    Rest,
}

/// An optional part of the header, in their order.
#[derive(Debug)]
enum Part {
    ExtraLength { have: u8, length: u16 },
    Extra { left: u16 },
    Name,
    Comment,
    HeaderCrc { have: u8 },
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Fixed { have: 0, flags: 0 },
            inflate: Inflate::new(false, Coding::Gzip),
            crc: Crc::new(),
            has_member: false,
        }
    }

    /// How much it took and made.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        let mut taken = 0;
        loop {
            if matches!(self.place, Place::Data) {
                let (read, made) = self.inflate.step(&input[taken..], out)?;
                self.crc.update(&out[..made]);
                if self.inflate.has_ended() {
                    self.place = Place::Trailer { have: 0, bytes: [0; TRAILER as usize] };
                }
                return Ok((taken + read, made));
            }
            let Some(byte) = input.get(taken) else { return Ok((taken, 0)) };
            if matches!(self.place, Place::Rest) {
                return Ok((input.len(), 0));
            }
            taken += 1;
            self.byte(*byte)?;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        match self.place {
            Place::Fixed { have, .. } => have == 0,
            Place::Rest => true,
            _ => false,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.inflate.memory()
    }

    /// Takes a byte outside the data.
    fn byte(&mut self, byte: u8) -> Result<(), Trouble> {
        match &mut self.place {
            Place::Fixed { have, flags } => {
                let is_valid = match have {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    _ => true,
                };
                if !is_valid && self.has_member {
                    self.place = Place::Rest;
                    return Ok(());
                }
                if !is_valid {
                    return Err(Trouble::Damaged(Coding::Gzip, "it has no gzip header"));
                }
                if *have == 3 {
                    *flags = byte;
                }
                *have += 1;
                if *have == FIXED {
                    let flags = *flags;
                    self.next_part(flags);
                }
            }
            Place::Optional { part, flags } => {
                let is_over = match part {
                    Part::ExtraLength { have, length } => {
                        *length |= u16::from(byte) << (8 * *have);
                        *have += 1;
                        let (have, length) = (*have, *length);
                        if have == 2 && length > 0 {
                            *part = Part::Extra { left: length };
                        }
                        have == 2 && length == 0
                    }
                    Part::Extra { left } => {
                        *left -= 1;
                        *left == 0
                    }
                    Part::Name | Part::Comment => byte == 0,
                    Part::HeaderCrc { have } => {
                        *have += 1;
                        *have == 2
                    }
                };
                if is_over {
                    let flags = *flags;
                    self.next_part(flags);
                }
            }
            Place::Trailer { have, bytes } => {
                bytes[usize::from(*have)] = byte;
                *have += 1;
                if *have == TRAILER {
                    let [a, b, c, d, ..] = *bytes;
                    if u32::from_le_bytes([a, b, c, d]) != self.crc.sum() {
                        return Err(Trouble::Damaged(Coding::Gzip, "its checksum is wrong"));
                    }
                    self.place = Place::Fixed { have: 0, flags: 0 };
                    self.inflate.restart();
                    self.crc.reset();
                    self.has_member = true;
                }
            }
            Place::Data | Place::Rest => {}
        }
        Ok(())
    }

    /// Moves on to the next part that the flags announce.
    fn next_part(&mut self, flags: u8) {
        let (bit, part) = if flags & EXTRA != 0 {
            (EXTRA, Part::ExtraLength { have: 0, length: 0 })
        } else if flags & NAME != 0 {
            (NAME, Part::Name)
        } else if flags & COMMENT != 0 {
            (COMMENT, Part::Comment)
        } else if flags & HEADER_CRC != 0 {
            (HEADER_CRC, Part::HeaderCrc { have: 0 })
        } else {
            self.place = Place::Data;
            return;
        };
        self.place = Place::Optional { part, flags: flags & !bit };
    }
}
