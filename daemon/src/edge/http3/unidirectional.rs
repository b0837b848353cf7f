//! The peer's unidirectional streams (RFC 9114, section 6.2): its settings and its QPACK instructions. Neither side gets
//! a dynamic table, so few instructions are valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::account::Account;
use super::frames::{ControlFrames, read_integer};
use super::quic::Control;
use super::violation::{Violation, wire};
use bytes::Bytes;
use h3::error::Code;
use quinn::{Connection, RecvStream};
use tokio::sync::mpsc;

const CONTROL: u64 = 0x00;
const PUSH: u64 = 0x01;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// Takes the peer's streams until the connection ends, each in a task of its own; QUIC's limit bounds their number. The
/// control stream with its settings goes to `controls`.
pub(super) async fn accept(connection: Connection, controls: mpsc::Sender<Control>, account: Account) {
    let seen = Arc::new(AtomicU8::new(0));
    while let Ok(stream) = connection.accept_uni().await {
        if let Err(violation) = account.stream() {
            return violation.close(&connection);
        }
        let (connection, controls, seen) = (connection.clone(), controls.clone(), seen.clone());
        let account = account.clone();
        tokio::spawn(async move {
            if let Err(violation) = read(stream, &controls, &seen, &account).await {
                violation.close(&connection);
            }
        });
    }
}

/// Reads a stream as its type demands.
async fn read(
    mut stream: RecvStream,
    controls: &mpsc::Sender<Control>,
    seen: &AtomicU8,
    account: &Account,
) -> Result<(), Violation> {
    const TWICE: Violation = Violation::connection(Code::H3_STREAM_CREATION_ERROR, "a second stream of its type");
    // A stream may end before its type is known.
    let Some((kind, rest)) = stream_type(&mut stream).await else { return Ok(()) };
    if let CONTROL | QPACK_ENCODER | QPACK_DECODER = kind
        && seen.fetch_or(1 << kind, Ordering::Relaxed) & 1 << kind != 0
    {
        return Err(TWICE);
    }
    let mut stream = Critical { stream, first: Some(rest).filter(|rest| !rest.is_empty()) };
    match kind {
        CONTROL => control(&mut stream, controls, account).await,
        QPACK_ENCODER => encoder(&mut stream, account).await,
        QPACK_DECODER => decoder(&mut stream, account).await,
        PUSH => Err(Violation::connection(Code::H3_STREAM_CREATION_ERROR, "a push by a client")),
        _ => {
            let _already_closed = stream.stream.stop(wire(Code::H3_STREAM_CREATION_ERROR));
            Ok(())
        }
    }
}

/// The type of a stream, and what came behind it.
async fn stream_type(stream: &mut RecvStream) -> Option<(u64, Bytes)> {
    let mut read: Vec<u8> = Vec::new();
    loop {
        let chunk = stream.read_chunk(usize::MAX, true).await.ok()??.bytes;
        let before = read.len();
        // The type has eight bytes at the most.
        read.extend_from_slice(&chunk[..chunk.len().min(8)]);
        let mut rest = &read[..];
        if let Some(kind) = read_integer(&mut rest) {
            let used = read.len() - rest.len() - before;
            return Some((kind, chunk.slice(used..)));
        }
    }
}

/// A stream that must not end before the connection does.
struct Critical {
    stream: RecvStream,
    first: Option<Bytes>,
}

impl Critical {
    /// What comes next; `None` once the connection is gone.
    async fn next(&mut self) -> Result<Option<Bytes>, Violation> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Ok(None) | Err(quinn::ReadError::Reset(_)) => {
                Err(Violation::connection(Code::H3_CLOSED_CRITICAL_STREAM, "a stream that has to last has ended"))
            }
            Err(_) => Ok(None),
        }
    }
}

/// The control stream. h3 judges its settings; the frames after them are judged here and dropped.
async fn control(stream: &mut Critical, controls: &mpsc::Sender<Control>, account: &Account) -> Result<(), Violation> {
    let mut frames = ControlFrames::new();
    while let Some(bytes) = stream.next().await? {
        frames.push(bytes);
        while let Some(settings) = frames.next()? {
            // There is one SETTINGS frame at most, so there is room.
            let _ = controls.try_send(Control::new(stream.stream.id(), &settings));
        }
        account.settle(&mut frames.toll)?;
    }
    Ok(())
}

/// The stream of the peer's encoder. Our table has no bytes, so the only valid instruction sets its capacity to zero
/// (RFC 9204, section 3.2.3).
async fn encoder(stream: &mut Critical, account: &Account) -> Result<(), Violation> {
    const CAPACITY_NONE: u8 = 0b0010_0000;
    while let Some(bytes) = stream.next().await? {
        if bytes.iter().any(|byte| *byte != CAPACITY_NONE) {
            let reason = "an insertion into a table that was not granted";
            return Err(Violation::connection(Code::QPACK_ENCODER_STREAM_ERROR, reason));
        }
        account.instructions(bytes.len())?;
    }
    Ok(())
}

/// The stream of the peer's decoder. We insert nothing, so the only valid instruction is Stream Cancellation
/// (RFC 9204, section 4.4).
async fn decoder(stream: &mut Critical, account: &Account) -> Result<(), Violation> {
    let mut instructions = DecoderInstructions::default();
    while let Some(bytes) = stream.next().await? {
        account.instructions(instructions.read(&bytes)?)?;
    }
    Ok(())
}

/// Reads Stream Cancellations, `01` and an integer with a prefix of six bits; drops them.
#[derive(Debug, Default)]
struct DecoderInstructions {
    /// Inside an integer: how many of its bytes have come after the prefix.
    within: Option<usize>,
}

impl DecoderInstructions {
    /// Enough for a stream's id.
    const MAX_INTEGER: usize = 9;

    /// Returns how many have begun.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        const WRONG: Violation =
            Violation::connection(Code::QPACK_DECODER_STREAM_ERROR, "an acknowledgement of nothing");
        let mut begun = 0;
        for byte in bytes {
            begun += usize::from(self.within.is_none());
            self.within = match self.within {
                None if byte >> 6 != 0b01 => return Err(WRONG),
                None => (byte & 0x3f == 0x3f).then_some(0),
                Some(Self::MAX_INTEGER) => return Err(WRONG),
                Some(read) => (byte & 0x80 != 0).then_some(read + 1),
            };
        }
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cancellations_are_taken_from_a_decoder() {
        let read = |parts: &[&[u8]]| {
            let mut instructions = DecoderInstructions::default();
            let mut begun = 0;
            for part in parts {
                begun += instructions.read(part).map_err(|violation| violation.code)?;
            }
            Ok(begun)
        };
        assert_eq!(read(&[b"\x40\x44\x7f\x85\x01\x40"]), Ok(4));
        assert_eq!(read(&[b"\x7f", b"\x85", b"\x01", b"\x40"]), Ok(2));
        for wrong in [&b"\x80"[..], b"\x00", b"\x01", b"\x40\x80", b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(read(&[wrong]), Err(Code::QPACK_DECODER_STREAM_ERROR), "{wrong:?}");
        }
    }
}
