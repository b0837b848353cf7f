//! One direction of a captured exchange: its body in pieces, in memory or on disk, and its trailers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::spool::{BLOCK, Block, Spool};

/// A body that is longer is expected to fill a block.
const LONG: usize = 8192;

/// Why a body is not captured to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inspect) enum Cut {
    /// It is longer than what is captured of a body.
    Limit,
    /// The disk took no more.
    Disk,
    /// The inspector fell behind.
    Behind,
}

impl Cut {
    /// Its name in the interface.
    pub(in crate::inspect) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Disk => "disk",
            Self::Behind => "behind",
        }
    }
}

#[derive(Clone, Debug)]
enum Piece {
    Memory(Bytes),
    Disk(Arc<Block>, usize),
}

/// A direction.
#[derive(Clone, Debug, Default)]
pub(in crate::inspect) struct Part {
    pieces: Vec<Piece>,
    /// The end of the body, until it fills a block.
    tail: Vec<u8>,
    /// The bytes that were captured.
    captured: u64,
    /// What the pieces take in memory.
    memory: usize,
    /// Why the rest is missing.
    pub(in crate::inspect) cut: Option<Cut>,
    /// The trailers in the form of the tunnel.
    pub(in crate::inspect) trailers: Option<Bytes>,
    /// It has ended.
    pub(in crate::inspect) is_over: bool,
}

impl Part {
    /// A direction that has brought nothing yet, or that has no body.
    pub(super) fn new(is_over: bool) -> Self {
        Self { is_over, ..Self::default() }
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.memory
            + self.tail.capacity()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.trailers.as_ref().map_or(0, Bytes::len)
    }

    /// The bytes that were captured.
    pub(in crate::inspect) fn captured(&self) -> u64 {
        self.captured
    }

    /// Adds bytes. Returns a piece that should go to disk; [`Part::moved`] says where it went.
    pub(super) fn add(&mut self, bytes: Bytes) -> Option<Bytes> {
        self.captured += bytes.len() as u64;
        let full = if self.tail.is_empty() && bytes.len() >= BLOCK {
            bytes
        } else {
            let length = self.tail.len() + bytes.len();
            if length > LONG {
                // It has room for a whole block at once. To grow step by step, it would be copied each time.
                self.tail.reserve_exact(length.max(BLOCK) - self.tail.len());
            }
            self.tail.extend_from_slice(&bytes);
            if length < BLOCK {
                return None;
            }
            Bytes::from(std::mem::take(&mut self.tail))
        };
        self.memory += full.len();
        self.pieces.push(Piece::Memory(full.clone()));
        Some(full)
    }

    /// Notes that a piece is on disk.
    pub(super) fn moved(&mut self, piece: &Bytes, blocks: Vec<(Arc<Block>, usize)>) {
        let is_it = |other: &Piece| matches!(other, Piece::Memory(bytes) if bytes.as_ptr() == piece.as_ptr());
        let Some(at) = self.pieces.iter().rposition(is_it) else { return };
        self.memory -= piece.len();
        self.pieces.splice(at..=at, blocks.into_iter().map(|(block, length)| Piece::Disk(block, length)));
    }

    /// Gives spare room back, since nothing follows.
    pub(super) fn finish(&mut self) {
        self.is_over = true;
        self.tail.shrink_to_fit();
        self.pieces.shrink_to_fit();
    }

    /// Whether some of it is on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Disk(..)))
    }

    /// Reads the first `limit` bytes of the body. This may wait for the disk.
    pub(in crate::inspect) fn read(&self, spool: &Spool, limit: usize) -> io::Result<Bytes> {
        if self.pieces.is_empty() && self.tail.len() <= limit {
            return Ok(Bytes::copy_from_slice(&self.tail));
        }
        let mut whole = Vec::with_capacity(limit.min(self.captured as usize));
        for piece in &self.pieces {
            let left = limit - whole.len();
            match piece {
                Piece::Memory(bytes) => whole.extend_from_slice(&bytes[..bytes.len().min(left)]),
                Piece::Disk(block, length) => whole.extend_from_slice(&spool.read(block, left.min(*length))?),
            }
        }
        let left = limit - whole.len();
        whole.extend_from_slice(&self.tail[..self.tail.len().min(left)]);
        Ok(whole.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_as_it_came_wherever_its_pieces_are() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Some(folder.path()));
        let mut part = Part::default();
        let whole: Vec<u8> = (0..3 * BLOCK + 10).map(|at| (at % 251) as u8).collect();
        let (first, rest) = whole.split_at(BLOCK + 1);
        for (number, bytes) in [first].into_iter().chain(rest.chunks(40_000)).enumerate() {
            if let Some(piece) = part.add(Bytes::copy_from_slice(bytes))
                && number < 3
            {
                let blocks = piece.chunks(BLOCK).map(|bytes| (spool.write(bytes).unwrap(), bytes.len()));
                part.moved(&piece, blocks.collect());
            }
        }
        part.finish();
        assert_eq!(part.read(&spool, usize::MAX).unwrap(), whole);
        assert_eq!(part.read(&spool, 70_000).unwrap(), whole[..70_000]);
        assert!(part.is_on_disk() && part.memory() < whole.len());
        assert_eq!(part.captured(), whole.len() as u64);
    }
}
