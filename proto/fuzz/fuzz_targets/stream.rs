//! The readers of streams, fed with any bytes in pieces of any length. The length of the pieces must not change the
//! result.

#![no_main]

use std::time::Instant;

use bytes::Bytes;
use cok_proto::stream::{Arrived, ControlReader, ExchangeReader};
use cok_proto::{Received, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, wire)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    for role in [Role::Daemon, Role::Client] {
        assert_eq!(exchange(role, wire, piece), exchange(role, wire, wire.len().max(1)));
    }
    assert_eq!(control(wire, piece), control(wire, wire.len().max(1)));
});

/// The parts that a reader returns, with neighbouring body bytes joined. `false` if it refused the stream.
fn exchange(role: Role, wire: &[u8], piece: usize) -> (Vec<String>, Vec<u8>, bool) {
    let mut reader = ExchangeReader::new(role, 1);
    let (mut seen, mut body) = (Vec::new(), Vec::new());
    for piece in wire.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.read(Instant::now()) {
                Ok(Some(Arrived::Part(Received::Data { data, end }))) => {
                    body.extend_from_slice(&data);
                    if end {
                        seen.push(format!("end at {}", body.len()));
                    }
                }
                Ok(Some(other)) => seen.push(format!("{other:?} at {}", body.len())),
                Ok(None) => break,
                Err(_) => return (seen, body, false),
            }
        }
    }
    (seen, body, true)
}

fn control(wire: &[u8], piece: usize) -> (Vec<String>, bool) {
    let mut reader = ControlReader::default();
    let mut seen = Vec::new();
    for piece in wire.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.read() {
                Ok(Some(frame)) => seen.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(_) => return (seen, false),
            }
        }
    }
    (seen, true)
}
