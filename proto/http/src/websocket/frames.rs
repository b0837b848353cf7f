//! Where the frames of a WebSocket end (RFC 6455, section 5.2), in one direction. It reads only
//! headers and keeps no payload. It does not judge what the frames mean.
//!
//! ```text
//!  0          1                        2            4                10
//!  +----------+------------------------+------------+----------------+-----------------+----------+
//!  | FIN, RSV | MASK (1 bit), length   | length u16 | length u64     | masking key u32 | payload  |
//!  | opcode   | (7 bits)               | if it's 126| if it's 127    | if MASK is set  |          |
//!  +----------+------------------------+------------+----------------+-----------------+----------+
//! ```

/// The longest header without its masking key. The key counts as payload here.
const LONGEST_HEADER: usize = 10;
/// The bits of the first byte that hold the opcode.
const OPCODE: u8 = 0x0f;
/// The opcode of a Close frame (RFC 6455, section 5.5.1).
const CLOSE: u8 = 0x8;
/// The bit of the second byte that announces a masking key.
const MASK: u8 = 0x80;
/// The length of a masking key.
const MASKING_KEY: u64 = 4;

/// Follows one direction of a WebSocket.
#[derive(Debug, Default)]
pub struct Frames {
    /// The bytes of an incomplete header.
    header: [u8; LONGEST_HEADER],
    /// How many bytes of the header have come. Zero once it is complete.
    have: usize,
    /// How many bytes of the current frame follow its header.
    left: u64,
    /// A Close frame has begun.
    closed: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a Close frame has begun.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Moves on over what passes.
    pub fn follow(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let length = self.step(data);
            data = &data[length..];
        }
    }

    /// Moves on to the end of the frame that is under way, if there is one; returns how much of `data` belongs to it.
    pub fn finish(&mut self, data: &[u8]) -> usize {
        if self.at_boundary() { 0 } else { self.step(data) }
    }

    /// Moves on to the end of the next frame, or of the data; returns how far that is.
    fn step(&mut self, data: &[u8]) -> usize {
        let mut used = 0;
        while self.left == 0 {
            let Some(byte) = data.get(used) else { return used };
            self.header[self.have] = *byte;
            self.have += 1;
            used += 1;
            if self.have < self.header_length() {
                continue;
            }
            self.have = 0;
            self.left = self.rest_length();
            self.closed |= self.header[0] & OPCODE == CLOSE;
            if self.left == 0 {
                return used;
            }
        }
        let here = data.len() - used;
        let passed = usize::try_from(self.left).map_or(here, |left| left.min(here));
        self.left -= passed as u64;
        used + passed
    }

    /// How long the header is, as far as that is known.
    fn header_length(&self) -> usize {
        match (self.have, self.header[1] & !MASK) {
            (..2, _) | (_, ..126) => 2,
            (_, 126) => 4,
            (_, _) => LONGEST_HEADER,
        }
    }

    /// How much comes behind a header that is whole. A length that can't be (its highest bit is 0) is never reached.
    fn rest_length(&self) -> u64 {
        let [_, second, extended @ ..] = self.header;
        let [a, b, ..] = extended;
        let payload = match second & !MASK {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes(extended),
            length => length.into(),
        };
        let key = if second & MASK == 0 { 0 } else { MASKING_KEY };
        payload.saturating_add(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a peer would write it, with the shortest header for its length.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASK } else { 0 };
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(mask + length as u8),
            126..=0xffff => {
                frame.push(mask + 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask + 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0x88, length + if masked { 4 } else { 0 }));
        frame
    }

    #[test]
    fn every_kind_of_header_is_followed_wherever_it_is_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 127, 300, 0xffff, 0x1_0000] {
                let frame = frame(0x82, length, masked);
                // Every place in and around the header, and a few in the payload.
                for cut in (0..20.min(frame.len())).chain([frame.len() / 2, frame.len() - 1, frame.len()]) {
                    let mut frames = Frames::default();
                    frames.follow(&frame[..cut]);
                    let whole = cut == 0 || cut == frame.len();
                    assert_eq!(frames.at_boundary(), whole, "{length} bytes, masked: {masked}, cut at {cut}");
                    // What follows the frame is not its.
                    let rest = [&frame[cut..], b"\x81\x02hi"].concat();
                    let expected = if whole { 0 } else { frame.len() - cut };
                    assert_eq!(frames.finish(&rest), expected, "{length} bytes, masked: {masked}, cut at {cut}");
                    assert!(frames.at_boundary());
                    assert!(!frames.closed());
                }
            }
        }
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        for masked in [false, true] {
            let stream = [frame(0x01, 70_000, masked), frame(0x89, 0, masked), frame(0x80, 200, masked)];
            let mut frames = Frames::default();
            for frame in &stream {
                for (at, byte) in frame.iter().enumerate() {
                    frames.follow(&[*byte]);
                    assert_eq!(frames.at_boundary(), at + 1 == frame.len(), "byte {at} of {}", frame.len());
                }
            }
        }
    }

    #[test]
    fn a_close_is_seen_once_its_header_is_there() {
        let mut frames = Frames::default();
        // The payload is full of bytes that look like one.
        frames.follow(&frame(0x02, 1000, false));
        assert!(!frames.closed());
        frames.follow(b"\x88");
        assert!(!frames.closed() && !frames.at_boundary());
        frames.follow(b"\x02");
        assert!(frames.closed() && !frames.at_boundary());
        frames.follow(b"\x03\xe8");
        assert!(frames.closed() && frames.at_boundary());
    }

    #[test]
    fn a_length_beyond_all_bounds_is_no_boundary() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 0xff]);
        frames.follow(&[0xff; 8]);
        frames.follow(&[0; 4096]);
        assert!(!frames.at_boundary());
        assert_eq!(frames.finish(&[0; 4096]), 4096);
    }

    proptest! {
        /// However a stream of frames is cut, every boundary is found, and no other.
        #[test]
        fn boundaries_do_not_depend_on_how_the_stream_is_cut(
            shapes in prop::collection::vec((any::<u8>(), 0..70_000_usize, any::<bool>()), 1..6),
            cuts in prop::collection::vec(1..5_000_usize, 1..40),
        ) {
            let mut stream = Vec::new();
            let mut ends = vec![0];
            for (first, length, masked) in &shapes {
                stream.extend(frame(*first, *length, *masked));
                ends.push(stream.len());
            }
            let mut frames = Frames::default();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let next = (at + cuts.next().unwrap_or(&1)).min(stream.len());
                frames.follow(&stream[at..next]);
                at = next;
                prop_assert_eq!(frames.at_boundary(), ends.contains(&at));
                // Seen from here, the frame that is under way ends where it does.
                let mut ahead = Frames { header: frames.header, ..frames };
                let end = ends.iter().copied().find(|end| *end >= at).unwrap_or(at);
                prop_assert_eq!(ahead.finish(&stream[at..]), end - at);
            }
            prop_assert_eq!(frames.closed(), shapes.iter().any(|(first, ..)| first & OPCODE == CLOSE));
        }

        /// Whatever a service sends, nothing panics, and no more is taken than is there.
        #[test]
        fn any_bytes_are_followed(data in prop::collection::vec(any::<u8>(), 0..4096), cut in 0..4096_usize) {
            let cut = cut.min(data.len());
            let mut frames = Frames::default();
            frames.follow(&data[..cut]);
            prop_assert!(frames.finish(&data[cut..]) <= data.len() - cut);
        }
    }
}
