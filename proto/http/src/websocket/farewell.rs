//! Closes a visitor's WebSocket when the daemon or the client goes away. The visitor gets a Close frame between two frames
//! of the service, and nothing of the service after it. The service gets the visitor's answer like any other frame, so both
//! see a closing handshake (RFC 6455, section 7).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frames::Frames;

/// FIN and the opcode of a Close frame.
const CLOSE: u8 = 0x88;
/// Status code 1001, "going away" (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

/// A Close frame as a server sends it, without a mask: code 1001 and why, cut to the 123 bytes that fit.
pub fn going_away(why: &str) -> Bytes {
    let fits = |end: &usize| *end <= MAX_CONTROL - size_of::<u16>() && why.is_char_boundary(*end);
    let end = (0..=why.len()).rev().find(fits).unwrap_or_default();
    let why = &why.as_bytes()[..end];
    let mut frame = BytesMut::with_capacity(2 + size_of::<u16>() + why.len());
    frame.put_u8(CLOSE);
    frame.put_u8((size_of::<u16>() + why.len()) as u8);
    frame.put_u16(GOING_AWAY);
    frame.put_slice(why);
    frame.freeze()
}

/// Closes a WebSocket towards its visitor once it is due.
#[derive(Debug)]
pub struct Farewell {
    frames: Frames,
    close: Bytes,
    /// The close was asked for.
    due: bool,
    /// Our Close frame was sent.
    said: bool,
}

impl Farewell {
    /// For a WebSocket that has sent nothing yet. `close` is the frame that closes it, such as [`going_away`].
    pub fn new(close: Bytes) -> Self {
        Self { frames: Frames::default(), close, due: false, said: false }
    }

    /// Asks for the Close frame.
    pub fn set_due(&mut self) {
        self.due = true;
    }

    /// Whether the visitor got a Close frame, from us or from the service.
    pub fn is_said(&self) -> bool {
        self.said || self.frames.closed()
    }

    /// The part of the service's bytes that the visitor gets. Before the close is due, it gets all of them. After that it
    /// gets the rest of the current frame, and nothing after our Close. A Close frame of the service replaces ours.
    pub fn pass(&mut self, mut data: Bytes) -> Bytes {
        if !self.due || self.frames.closed() {
            self.frames.follow(&data);
        } else if self.said {
            data.clear();
        } else {
            data.truncate(self.frames.finish(&data));
        }
        data
    }

    /// The Close frame, once: when it is due and no frame is half sent.
    pub fn close(&mut self) -> Option<Bytes> {
        let now = self.due && !self.said && self.frames.at_boundary() && !self.frames.closed();
        self.said |= now;
        now.then(|| self.close.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x82\x7e\x00\x80";
    const CLOSED: &[u8] = b"\x88\x05\x03\xe9bye";

    /// A frame of 128 bytes, and a small one behind it.
    fn stream() -> Vec<u8> {
        [FRAME, &[7; 128], b"\x81\x02hi"].concat()
    }

    /// All that a visitor gets of a stream that is to be closed after `cut` bytes.
    fn seen(stream: &[u8], cut: usize) -> Vec<u8> {
        let mut farewell = Farewell::new(going_away("bye"));
        let mut seen = farewell.pass(Bytes::copy_from_slice(&stream[..cut])).to_vec();
        assert_eq!(farewell.close(), None);
        farewell.set_due();
        seen.extend(farewell.close().unwrap_or_default());
        for chunk in stream[cut..].chunks(5) {
            seen.extend(farewell.pass(Bytes::copy_from_slice(chunk)));
            seen.extend(farewell.close().unwrap_or_default());
        }
        assert!(farewell.is_said());
        seen
    }

    #[test]
    fn the_close_stands_behind_the_frame_that_was_under_way() {
        let stream = stream();
        let (first, second) = (FRAME.len() + 128, stream.len());
        for cut in 0..=stream.len() {
            let end = [0, first, second].into_iter().find(|end| *end >= cut).unwrap_or(second);
            assert_eq!(seen(&stream, cut), [&stream[..end], CLOSED].concat(), "due at byte {cut}");
        }
    }

    #[test]
    fn the_close_may_stand_between_the_fragments_of_a_message() {
        let stream = b"\x01\x02he\x89\x00\x80\x03llo";
        assert_eq!(seen(stream, 4), [&stream[..4], CLOSED].concat());
        assert_eq!(seen(stream, 5), [&stream[..6], CLOSED].concat());
        assert_eq!(seen(stream, 7), [&stream[..], CLOSED].concat());
    }

    #[test]
    fn a_service_that_closes_by_itself_closes_alone() {
        let stream = b"\x81\x02hi\x88\x02\x03\xe8";
        for cut in 5..=stream.len() {
            assert_eq!(seen(stream, cut), stream, "due at byte {cut}");
        }
        assert_eq!(seen(stream, 4), [&stream[..4], CLOSED].concat());
    }

    #[test]
    fn the_close_is_well_formed() {
        assert_eq!(going_away("bye"), CLOSED);
        for why in ["", "the server is restarting", &"é".repeat(100)] {
            let (close, mut frames) = (going_away(why), Frames::default());
            frames.follow(&close);
            assert!(frames.closed() && frames.at_boundary());
            assert!(usize::from(close[1]) == close.len() - 2 && close.len() - 2 <= MAX_CONTROL);
            assert!(why.starts_with(std::str::from_utf8(&close[4..]).unwrap()));
        }
    }
}
