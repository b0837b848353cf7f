//! Merges small DATA frames of one stream that came together.
//!
//! The library closes a connection with too many small DATA frames that wait to be read. A gRPC client sends thousands of
//! small messages at once, each in a frame of its own, and its service may be slower. HTTP gives the limits of DATA frames no
//! meaning (RFC 9113, section 8.1), so nothing is lost.

use super::frames::{DATA, HEADER, Header};

/// Frames with fewer bytes than this are merged. Those are the ones that the library bounds.
const SMALL: usize = 256;
/// The most bytes of a merged frame: what every peer may send (RFC 9113, section 4.2).
const MOST: usize = 16 * 1024;

/// A frame that may grow.
struct Open {
    /// Where its header is.
    at: usize,
    header: Header,
}

/// Merges frames in `bytes`, which begin with a frame and may end within one. Returns how many bytes are left.
pub(super) fn merge(bytes: &mut [u8]) -> usize {
    let (mut read, mut written) = (0, 0);
    let mut open: Option<Open> = None;
    while let Some(header) = header_at(bytes, read) {
        let end = read + HEADER + header.length;
        if end > bytes.len() {
            break;
        }
        let is_small = header.kind == DATA && header.flags == 0 && (1..SMALL).contains(&header.length);
        let start = match &mut open {
            Some(Open { at, header: first })
                if is_small && first.stream == header.stream && first.length + header.length <= MOST =>
            {
                first.length += header.length;
                write_length(bytes, *at, first.length);
                read + HEADER
            }
            _ => {
                open = is_small.then_some(Open { at: written, header });
                read
            }
        };
        shift(bytes, start, end, written);
        written += end - start;
        read = end;
    }
    let end = bytes.len();
    shift(bytes, read, end, written);
    written + (end - read)
}

fn header_at(bytes: &[u8], at: usize) -> Option<Header> {
    bytes.get(at..)?.first_chunk().map(|header| Header::parse(*header))
}

/// Writes a frame's length over the old one.
fn write_length(bytes: &mut [u8], at: usize, length: usize) {
    let [_, length @ ..] = (length as u32).to_be_bytes();
    if let Some(place) = bytes.get_mut(at..at + length.len()) {
        place.copy_from_slice(&length);
    }
}

/// Moves bytes forward to `to`.
fn shift(bytes: &mut [u8], start: usize, end: usize, to: usize) {
    if start != to {
        bytes.copy_within(start..end, to);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn merged(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = frames.concat();
        let length = merge(&mut bytes);
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn small_data_frames_of_one_stream_become_one() {
        let small = |stream, text: &str| frame(DATA, 0, stream, text.as_bytes());
        assert_eq!(merged(&[small(1, "a"), small(1, "bc"), small(1, "d")]), small(1, "abcd"));
        // Another frame between them, another stream, the end, padding or a large frame keeps them apart.
        let ping = frame(6, 0, 0, &[0; 8]);
        for apart in
            [ping, small(3, "x"), frame(DATA, 1, 1, b"x"), frame(DATA, 8, 1, b"\0x"), small(1, &"x".repeat(SMALL))]
        {
            let frames = [small(1, "a"), apart, small(1, "b")];
            assert_eq!(merged(&frames), frames.concat());
        }
    }

    #[test]
    fn a_merged_frame_is_no_longer_than_any_peer_may_send() {
        let bytes = merged(&vec![frame(DATA, 0, 1, &[7; 255]); 100]);
        let mut rest = &bytes[..];
        let mut count = 0;
        while let Some(header) = header_at(rest, 0) {
            assert!(header.length <= MOST);
            rest = &rest[HEADER + header.length..];
            count += 1;
        }
        assert_eq!((count, bytes.len()), (2, 100 * 255 + 2 * HEADER));
    }

    /// What frames carry.
    #[derive(Debug, Default, PartialEq)]
    struct Content {
        /// The payloads of DATA frames by their streams.
        streams: BTreeMap<u32, Vec<u8>>,
        /// The other frames.
        others: Vec<Vec<u8>>,
        /// What is behind the last whole frame.
        rest: Vec<u8>,
    }

    fn content(mut bytes: &[u8]) -> Content {
        let mut content = Content::default();
        while let Some(header) = header_at(bytes, 0).filter(|header| bytes.len() >= HEADER + header.length) {
            let (frame, rest) = bytes.split_at(HEADER + header.length);
            if header.kind == DATA {
                content.streams.entry(header.stream).or_default().extend_from_slice(&frame[HEADER..]);
            } else {
                content.others.push(frame.to_vec());
            }
            bytes = rest;
        }
        content.rest = bytes.to_vec();
        content
    }

    proptest! {
        #[test]
        fn what_frames_carry_stays(
            frames in prop::collection::vec((0..3u8, 0..3u8, 0..3u32, 0..600usize), 0..40), cut in 0..700usize
        ) {
            let mut bytes: Vec<u8> = Vec::new();
            for (kind, flags, stream, length) in frames {
                bytes.extend(frame(kind, flags, stream, &vec![length as u8; length]));
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let before = content(&bytes);
            let length = merge(&mut bytes);
            bytes.truncate(length);
            prop_assert_eq!(content(&bytes), before);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut merged = bytes.clone();
            prop_assert!(merge(&mut merged) <= bytes.len());
        }
    }
}
