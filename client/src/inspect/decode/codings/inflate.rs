//! DEFLATE data (RFC 1951), with or without a zlib header (RFC 1950).

use flate2::{Decompress, FlushDecompress, Status};

use super::{Coding, Trouble};

/// What a decoder takes in memory: a window of 32 KiB, and tables of 11 KiB.
const MEMORY: usize = 43 << 10;

/// Decompresses DEFLATE data.
#[derive(Debug)]
pub(in super::super) struct Inflate {
    state: Decompress,
    /// The last block has ended.
    ended: bool,
    /// The data is damaged. What came before the damage is out.
    damaged: bool,
    /// Named in errors.
    coding: Coding,
}

impl Inflate {
    /// For raw data, or for data with a zlib header.
    pub(in super::super) fn new(zlib_header: bool, coding: Coding) -> Self {
        Self { state: Decompress::new(zlib_header), ended: false, damaged: false, coding }
    }

    /// How much it took and made. After the last block it takes nothing.
    pub(in super::super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        if self.ended {
            return Ok((0, 0));
        }
        let (taken, made) = (self.state.total_in(), self.state.total_out());
        if !self.damaged {
            match self.state.decompress(input, out, FlushDecompress::Sync) {
                Ok(status) => self.ended = status == Status::StreamEnd,
                Err(_) => self.damaged = true,
            }
        }
        let (taken, made) = ((self.state.total_in() - taken) as usize, (self.state.total_out() - made) as usize);
        if self.damaged && made == 0 {
            return Err(Trouble::Damaged(self.coding, "it breaks the rules of DEFLATE"));
        }
        Ok((taken, made))
    }

    /// Whether the last block has ended.
    pub(in super::super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Begins again with raw data and an empty window.
    pub(in super::super) fn restart(&mut self) {
        self.state.reset(false);
        (self.ended, self.damaged) = (false, false);
    }

    /// What it takes in memory.
    #[expect(clippy::unused_self, reason = "the others need it")]
    pub(in super::super) fn memory(&self) -> usize {
        MEMORY
    }
}
