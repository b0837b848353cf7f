//! The end of a visitor's WebSocket when the daemon's time is up: a Close frame between two frames of the service's, and
//! then nothing of the service's any more. The visitor's answer goes to the service as all else it says, so both ends see
//! a closing handshake (RFC 6455, section 7).

use std::task::{Context, Poll};

use bytes::Bytes;

use super::frames::Frames;
use crate::drain::Watch;

/// A Close frame as a server sends it, without a mask: code 1001 "going away" (RFC 6455, section 7.4.1) and why.
const GOING_AWAY: &[u8] = b"\x88\x1a\x03\xe9the server is restarting";

/// What a WebSocket's visitor gets once the time is up.
#[derive(Debug)]
pub(super) struct Farewell {
    frames: Frames,
    time: Watch,
    /// The time is up.
    due: bool,
    /// The Close frame is on its way.
    said: bool,
}

impl Farewell {
    /// For a WebSocket of which nothing has passed yet.
    pub(super) fn new(time: Watch) -> Self {
        Self { frames: Frames::default(), time, due: false, said: false }
    }

    /// Ready once, when the time is up. Must always be polled by the same task.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.time.poll(cx);
        self.due |= due.is_ready();
        due
    }

    /// What of the service's bytes goes to the visitor: all of them, once the time is up those up to the end of the frame
    /// that is under way, and after our Close none. A service that has sent a Close itself needs no help.
    pub(super) fn pass(&mut self, mut data: Bytes) -> Bytes {
        if !self.due || self.frames.closed() {
            self.frames.follow(&data);
        } else if self.said {
            data.clear();
        } else {
            data.truncate(self.frames.finish(&data));
        }
        data
    }

    /// The Close frame, once, when it is time to send it.
    pub(super) fn close(&mut self) -> Option<&'static [u8]> {
        let now = self.due && !self.said && self.frames.at_boundary() && !self.frames.closed();
        self.said |= now;
        now.then_some(GOING_AWAY)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::drain::Drain;

    const FRAME: &[u8] = b"\x82\x7e\x00\x80";

    /// A frame of 128 bytes, and a small one behind it.
    fn stream() -> Vec<u8> {
        [FRAME, &[7; 128], b"\x81\x02hi"].concat()
    }

    fn watched() -> (Shutdown, Farewell) {
        let shutdown = Shutdown::default();
        let farewell = Farewell::new(shutdown.watch_time());
        (shutdown, farewell)
    }

    fn due(farewell: &mut Farewell) -> bool {
        farewell.poll_due(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// All that a visitor gets of a stream during which, after `cut` bytes, the time is up.
    fn seen(stream: &[u8], cut: usize) -> Vec<u8> {
        let (shutdown, mut farewell) = watched();
        assert!(!due(&mut farewell));
        let mut seen = farewell.pass(Bytes::copy_from_slice(&stream[..cut])).to_vec();
        assert_eq!(farewell.close(), None);
        shutdown.end_time();
        assert!(due(&mut farewell));
        assert!(!due(&mut farewell), "once is enough");
        seen.extend(farewell.close().unwrap_or_default());
        for chunk in stream[cut..].chunks(5) {
            seen.extend(farewell.pass(Bytes::copy_from_slice(chunk)));
            seen.extend(farewell.close().unwrap_or_default());
        }
        seen
    }

    #[test]
    fn the_close_stands_behind_the_frame_that_was_under_way() {
        let stream = stream();
        let (first, second) = (FRAME.len() + 128, stream.len());
        for cut in 0..=stream.len() {
            let end = [0, first, second].into_iter().find(|end| *end >= cut).unwrap_or(second);
            assert_eq!(seen(&stream, cut), [&stream[..end], GOING_AWAY].concat(), "time is up at byte {cut}");
        }
    }

    #[test]
    fn the_close_may_stand_between_the_fragments_of_a_message() {
        let stream = b"\x01\x02he\x89\x00\x80\x03llo";
        assert_eq!(seen(stream, 4), [&stream[..4], GOING_AWAY].concat());
        assert_eq!(seen(stream, 5), [&stream[..6], GOING_AWAY].concat());
        assert_eq!(seen(stream, 7), [&stream[..], GOING_AWAY].concat());
    }

    #[test]
    fn a_service_that_closes_by_itself_closes_alone() {
        let stream = b"\x81\x02hi\x88\x02\x03\xe8";
        for cut in 5..=stream.len() {
            assert_eq!(seen(stream, cut), stream, "time is up at byte {cut}");
        }
        assert_eq!(seen(stream, 4), [&stream[..4], GOING_AWAY].concat());
    }

    #[test]
    fn the_close_is_well_formed() {
        let mut frames = Frames::default();
        frames.follow(GOING_AWAY);
        assert!(frames.closed() && frames.at_boundary());
        assert_eq!(u16::from_be_bytes([GOING_AWAY[2], GOING_AWAY[3]]), 1001);
        // A control frame holds at most 125 bytes (RFC 6455, section 5.5).
        assert_eq!(usize::from(GOING_AWAY[1]), GOING_AWAY.len() - 2);
        assert!(GOING_AWAY.len() - 2 <= 125);
    }
}
