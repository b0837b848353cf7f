//! The frame decoder, fed with any bytes. A frame that it accepts must encode to bytes that decode to the same frame. A
//! header alone must get the same verdict as within its frame.

#![no_main]

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{Frame, FrameHeader, FrameType, HEADER_LEN, MAX_CONTROL};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/encode.rs"]
mod encode;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::copy_from_slice(data);
    loop {
        let before = bytes.len();
        let header = FrameHeader::parse(&bytes);
        match Frame::decode(&mut bytes) {
            Ok(Some(frame)) => {
                let header = header.expect("judged alike").expect("whole");
                assert_eq!(before - bytes.len(), HEADER_LEN + header.length);
                round_trip(&frame, header);
            }
            Ok(None) => {
                assert_eq!(bytes.len(), before, "nothing is taken from an unfinished frame");
                assert!(header.expect("judged alike").is_none_or(|header| before < HEADER_LEN + header.length));
                return;
            }
            Err(_) => return,
        }
    }
});

fn round_trip(frame: &Frame, header: FrameHeader) {
    let mut encoded = BytesMut::new();
    if !encode::encode(&mut encoded, frame) {
        assert!(matches!(header.kind, FrameType::Skippable(_)), "{frame:?}");
        return;
    }
    // Fields with defaults may make a control payload longer than it came.
    if matches!(frame, Frame::Connect(_) | Frame::ConnectAck(_) | Frame::Drain(_) | Frame::Tunnel { .. } | Frame::Error(_))
        && encoded.len() > HEADER_LEN + MAX_CONTROL
    {
        return;
    }
    let encoded = encoded.freeze();
    let again = Frame::decode(&mut encoded.clone()).expect("valid").expect("whole");
    assert_eq!(frame, &again);
    let mut second = BytesMut::new();
    encode::encode(&mut second, &again);
    assert_eq!(encoded, second, "stable");
}
