//! The content coding `zstd` (RFC 8878). The library decodes blocks, and this module feeds it one at a time.
//!
//! The library gives data out only once it has left the window, which would hold the events of a stream back for megabytes.
//! It gives out everything behind a frame's last block, and goes on to decode what follows. So each frame begins with an
//! empty last block here. The library then forgets the window with each output, so it gets it again before the next block,
//! as raw blocks, which change no tables.

use std::fmt;
use std::io::{self, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Coding, Trouble};

/// The magic numbers of frames, and of frames that are to be skipped (with any value of their lowest four bits).
const MAGIC: u32 = 0xfd2f_b528;
const SKIPPED: u32 = 0x184d_2a50;
/// The magic number and the descriptor.
const SHORTEST_HEADER: usize = 5;
/// The length of a block's header.
const BLOCK_HEADER: usize = 3;
/// The longest block, before and after decompression.
const LONGEST_BLOCK: usize = 128 << 10;
/// An empty raw block that is marked as the last one.
const EMPTY_LAST_BLOCK: &[u8] = &[1, 0, 0];
/// The bit of the descriptor that announces a checksum.
const HAS_CHECKSUM: u8 = 1 << 2;
/// The bit of the descriptor for frames without a window.
const IS_SINGLE: u8 = 1 << 5;
/// The length of the checksum.
const CHECKSUM: u64 = 4;
/// What the library takes besides the window: tables, and the literals and sequences of a block.
const TABLES: usize = 1 << 20;

/// Undoes `zstd`.
pub(super) struct Zstd {
    place: Place,
    /// A header or a block that is incomplete.
    partial: Vec<u8>,
    /// The largest window.
    most_window: usize,
    frame: Option<Frame>,
    /// The window's data, then what the caller has yet to get.
    data: Vec<u8>,
    /// Where in `data` the caller's part begins.
    given: usize,
    /// The most that the library has held of the window.
    peak: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The header of a frame.
    Frame,
    /// A block.
    Block,
    /// Bytes without a meaning here, then a frame.
    Skipped(u64),
}

/// A frame that has begun.
struct Frame {
    decoder: FrameDecoder,
    window: usize,
    has_checksum: bool,
}

impl Zstd {
    pub(super) fn new(window: usize) -> Self {
        Self {
            place: Place::Frame,
            partial: Vec::new(),
            most_window: window,
            frame: None,
            data: Vec::new(),
            given: 0,
            peak: 0,
        }
    }

    /// How much it took and made.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        let mut taken = 0;
        loop {
            let made = self.give(out);
            if made > 0 {
                return Ok((taken, made));
            }
            let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) else { return Ok((taken, 0)) };
            if let Place::Skipped(left) = &mut self.place {
                let skipped = (*left).min(rest.len() as u64);
                *left -= skipped;
                taken += skipped as usize;
                if *left == 0 {
                    self.place = Place::Frame;
                }
                continue;
            }
            let missing = self.needed()? - self.partial.len();
            let piece = &rest[..missing.min(rest.len())];
            self.partial.extend_from_slice(piece);
            taken += piece.len();
            if self.partial.len() == self.needed()? {
                self.complete()?;
            }
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.place == Place::Frame && self.partial.is_empty() && self.given == self.data.len()
    }

    pub(super) fn memory(&self) -> usize {
        let library = if self.frame.is_some() { self.peak.next_power_of_two() + 2 * LONGEST_BLOCK + TABLES } else { 0 };
        size_of::<Self>() + self.partial.capacity() + self.data.capacity() + library
    }

    /// Hands out what is decoded.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let ready = &self.data[self.given..];
        let made = ready.len().min(out.len());
        out[..made].copy_from_slice(&ready[..made]);
        self.given += made;
        // The window's data moves only once as much was given out, so that moving it costs little.
        let window = self.frame.as_ref().map_or(0, |frame| frame.window);
        if self.given == self.data.len() && self.given >= window.saturating_mul(2) {
            self.data.drain(..self.given - window);
            self.given = window;
        }
        made
    }

    /// How long the current header or block is, as far as that is known.
    fn needed(&self) -> Result<usize, Trouble> {
        let partial = self.partial.as_slice();
        if self.place == Place::Block {
            let [a, b, c, ..] = *partial else { return Ok(BLOCK_HEADER) };
            let header = u32::from_le_bytes([a, b, c, 0]);
            let size = (header >> 3) as usize;
            return match header >> 1 & 3 {
                _ if size > LONGEST_BLOCK => Err(damaged("a block is too long")),
                1 => Ok(BLOCK_HEADER + 1),
                0 | 2 => Ok(BLOCK_HEADER + size),
                _ => Err(damaged("a block has no known type")),
            };
        }
        match partial {
            [a, b, c, d, ..] if is_skipped([*a, *b, *c, *d]) => Ok(8),
            [a, b, c, d, ..] if u32::from_le_bytes([*a, *b, *c, *d]) != MAGIC => Err(damaged("it has no zstd header")),
            [_, _, _, _, descriptor, ..] => {
                let is_single = descriptor & IS_SINGLE != 0;
                let window = usize::from(!is_single);
                let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
                let content = match descriptor >> 6 {
                    0 => usize::from(is_single),
                    size => 1 << size,
                };
                Ok(SHORTEST_HEADER + window + dictionary + content)
            }
            _ => Ok(SHORTEST_HEADER),
        }
    }

    /// Takes a header or block that is complete.
    fn complete(&mut self) -> Result<(), Trouble> {
        match *self.partial.as_slice() {
            _ if self.place == Place::Block => self.block()?,
            [m0, m1, m2, m3, ref length @ ..] if is_skipped([m0, m1, m2, m3]) => {
                self.skip(little_endian(length));
            }
            _ => self.begin_frame()?,
        }
        self.partial.clear();
        Ok(())
    }

    fn skip(&mut self, length: u64) {
        self.place = if length == 0 { Place::Frame } else { Place::Skipped(length) };
    }

    fn begin_frame(&mut self) -> Result<(), Trouble> {
        // The checksum is skipped here, so the library does not wait for it.
        let has_checksum = self.partial[SHORTEST_HEADER - 1] & HAS_CHECKSUM != 0;
        self.partial[SHORTEST_HEADER - 1] &= !HAS_CHECKSUM;
        let window = self.window();
        if window > self.most_window as u64 {
            return Err(Trouble::TooMuchMemory(Coding::Zstd));
        }
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(self.most_window as u64);
        decoder.init(self.partial.as_slice()).map_err(|_| damaged("the header of a frame is damaged"))?;
        decode(&mut decoder, EMPTY_LAST_BLOCK)?;
        self.data.clear();
        self.given = 0;
        self.frame = Some(Frame { decoder, window: window as usize, has_checksum });
        self.place = Place::Block;
        Ok(())
    }

    /// The window that a frame's header asks for.
    fn window(&self) -> u64 {
        let header = &self.partial[SHORTEST_HEADER..];
        let descriptor = self.partial[SHORTEST_HEADER - 1];
        if descriptor & IS_SINGLE == 0 {
            let [byte, ..] = header else { return u64::MAX };
            let base = 1_u64 << (10 + (byte >> 3));
            return base + base / 8 * u64::from(byte & 7);
        }
        let content = &header[[0, 1, 2, 4][usize::from(descriptor & 3)].min(header.len())..];
        let size = little_endian(content);
        if content.len() == 2 { size + 256 } else { size }
    }

    fn block(&mut self) -> Result<(), Trouble> {
        let Some(frame) = &mut self.frame else { return Err(damaged("a block stands outside a frame")) };
        let is_last = self.partial[0] & 1 != 0;
        // Only the window's data matters to the block.
        let history = &self.data[self.data.len().saturating_sub(frame.window)..];
        let held = history.len();
        for piece in history.chunks(frame.window.clamp(1, LONGEST_BLOCK)) {
            // A raw block has the type 0.
            let [a, b, c, _] = ((piece.len() as u32) << 3).to_le_bytes();
            decode(&mut frame.decoder, io::Read::chain([a, b, c].as_slice(), piece))?;
        }
        decode(&mut frame.decoder, self.partial.as_slice())?;
        self.peak = self.peak.max(frame.decoder.can_collect());
        let mut fresh = Behind { skip: held, data: &mut self.data };
        frame.decoder.collect_to_writer(&mut fresh).map_err(|_| damaged("a block can't be read"))?;
        if is_last {
            let checksum = if frame.has_checksum { CHECKSUM } else { 0 };
            self.frame = None;
            self.skip(checksum);
        }
        Ok(())
    }
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("place", &self.place).field("given", &self.given).finish_non_exhaustive()
    }
}

/// Appends what comes behind the first bytes, which it has already.
struct Behind<'a> {
    skip: usize,
    data: &'a mut Vec<u8>,
}

impl Write for Behind<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.data.extend_from_slice(&bytes[skipped..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes one block.
fn decode(decoder: &mut FrameDecoder, block: impl io::Read) -> Result<(), Trouble> {
    let decoded = decoder.decode_blocks(block, BlockDecodingStrategy::UptoBlocks(1));
    decoded.map(drop).map_err(|_| damaged("a block is damaged"))
}

/// The number in up to eight bytes, the lowest first.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a magic number begins a frame that is to be skipped.
fn is_skipped(magic: [u8; 4]) -> bool {
    u32::from_le_bytes(magic) & !0xf == SKIPPED
}

fn damaged(why: &'static str) -> Trouble {
    Trouble::Damaged(Coding::Zstd, why)
}
