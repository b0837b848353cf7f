//! Undoes content codings (RFC 9110, section 8.4.1) step by step, between buffers of its caller.

mod brotli;
mod deflate;
mod gzip;
mod inflate;
mod zstd;

use self::brotli::Brotli;
use self::deflate::Deflate;
use self::gzip::Gzip;
pub(super) use self::inflate::Inflate;
use self::zstd::Zstd;
use super::{Coding, Trouble};

/// What passes from one coding to the next at a time.
const BETWEEN: usize = 16 << 10;

/// What a decoder did in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// How much of the input it took.
    pub(super) taken: usize,
    /// How much output it made.
    pub(super) made: usize,
    /// How much all codings made together.
    pub(super) work: usize,
}

/// Judges whether data grows beyond what is useful to show.
#[derive(Debug)]
pub(super) struct Growth {
    free: u64,
    taken: u64,
    made: u64,
}

impl Growth {
    /// How much may come out of each byte. Text shrinks to a tenth, the same message again and again to a hundredth, and a bomb
    /// of zeros to a thousandth.
    const RATIO: u64 = 200;

    /// For data that may grow by `free` bytes in any case.
    pub(super) fn new(free: u64) -> Self {
        Self { free, taken: 0, made: 0 }
    }

    /// For a stream. Many small ones must not keep the decoders busy.
    pub(super) fn of_stream() -> Self {
        Self::new(1 << 20)
    }

    /// Adds one step.
    pub(super) fn add(&mut self, taken: usize, made: usize) -> Result<(), Trouble> {
        self.taken += taken as u64;
        self.made += made as u64;
        let most = self.free.saturating_add(self.taken.saturating_mul(Self::RATIO));
        if self.made > most { Err(Trouble::Expands) } else { Ok(()) }
    }
}

/// All codings of a body, the one that was applied last first.
#[derive(Debug)]
pub(super) struct Chain {
    stages: Vec<Stage>,
    /// A stage failed, after which the decoders hold nothing of use.
    trouble: Option<Trouble>,
}

/// One coding, and what it has made for the next one.
#[derive(Debug)]
struct Stage {
    decoder: Decoder,
    /// Empty for the last stage, which writes for the caller.
    made: Box<[u8]>,
    ready: std::ops::Range<usize>,
}

#[derive(Debug)]
enum Decoder {
    Gzip(Gzip),
    Deflate(Deflate),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
}

impl Chain {
    /// Undoes `codings`, given in the order in which they were applied. A decoder's window takes up to `window` bytes.
    pub(super) fn new(codings: &[Coding], window: usize) -> Self {
        let stage = |(place, coding): (usize, &Coding)| Stage {
            decoder: Decoder::new(*coding, window),
            made: vec![0; if place == 0 { 0 } else { BETWEEN }].into(),
            ready: 0..0,
        };
        Self { stages: codings.iter().enumerate().rev().map(stage).collect(), trouble: None }
    }

    /// Moves on as far as `input` and `out` allow. If it neither takes nor makes a byte, it needs more input.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Trouble> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone());
        }
        let result = self.advance(input, out);
        if let Err(trouble) = &result {
            self.trouble = Some(trouble.clone());
            self.stages.clear();
        }
        result
    }

    fn advance(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Trouble> {
        let mut step = Step::default();
        loop {
            let mut moved = false;
            for place in 0..self.stages.len() {
                let (before, rest) = self.stages.split_at_mut(place);
                let Some((stage, after)) = rest.split_first_mut() else { break };
                let source = match before.last() {
                    Some(last) => &last.made[last.ready.clone()],
                    None => &input[step.taken..],
                };
                let (taken, made) = if after.is_empty() {
                    stage.decoder.step(source, &mut out[step.made..])?
                } else if stage.ready.is_empty() {
                    let (taken, made) = stage.decoder.step(source, &mut stage.made)?;
                    stage.ready = 0..made;
                    (taken, made)
                } else {
                    (0, 0)
                };
                match before.last_mut() {
                    Some(last) => last.ready.start += taken,
                    None => step.taken += taken,
                }
                step.work += made;
                if after.is_empty() {
                    step.made += made;
                }
                moved |= taken > 0 || made > 0;
            }
            // One round gives its caller the chance to stop.
            if !moved || step.made > 0 || step.work >= BETWEEN {
                return Ok(step);
            }
        }
    }

    /// Whether the data may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.trouble.is_none() && self.stages.iter().all(|stage| stage.decoder.is_complete() && stage.ready.is_empty())
    }

    /// What its decoders and buffers take in memory.
    pub(super) fn memory(&self) -> usize {
        self.stages.iter().map(|stage| size_of::<Stage>() + stage.made.len() + stage.decoder.memory()).sum()
    }
}

impl Decoder {
    fn new(coding: Coding, window: usize) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(Gzip::new()),
            Coding::Deflate => Self::Deflate(Deflate::new()),
            Coding::Brotli => Self::Brotli(Brotli::new(window).into()),
            Coding::Zstd => Self::Zstd(Zstd::new(window).into()),
        }
    }

    /// How much it took and made.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        match self {
            Self::Gzip(decoder) => decoder.step(input, out),
            Self::Deflate(decoder) => decoder.step(input, out),
            Self::Brotli(decoder) => decoder.step(input, out),
            Self::Zstd(decoder) => decoder.step(input, out),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Gzip(decoder) => decoder.is_complete(),
            Self::Deflate(decoder) => decoder.is_complete(),
            Self::Brotli(decoder) => decoder.is_complete(),
            Self::Zstd(decoder) => decoder.is_complete(),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Gzip(decoder) => decoder.memory(),
            Self::Deflate(decoder) => decoder.memory(),
            Self::Brotli(decoder) => decoder.memory(),
            Self::Zstd(decoder) => decoder.memory(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
