//! How exchanges begin, on either side.

use std::sync::Arc;

use cok_proto::stream::ExchangeReader;
use cok_proto::{RequestHead, ResetCode};
use quinn::{RecvStream, SendStream, VarInt};

use super::Opening;

/// A request that opens an exchange.
#[derive(Clone)]
pub(in crate::quic) struct Asked {
    pub(in crate::quic) tunnel: u32,
    pub(in crate::quic) head: Arc<RequestHead>,
    /// It has no body.
    pub(in crate::quic) end: bool,
}

/// The stream of a new exchange on the daemon.
pub(in crate::quic) enum Begin {
    /// The stream is open.
    Opened(SendStream, RecvStream),
    /// The peer grants no stream at the moment.
    Opening(Opening),
}

/// A stream that the daemon opened, up to and with the request's head.
pub(in crate::quic) struct Accepted {
    pub(in crate::quic) send: SendStream,
    pub(in crate::quic) recv: RecvStream,
    pub(in crate::quic) reader: ExchangeReader,
    pub(in crate::quic) id: u32,
}

/// The exchange's id: the number of its stream among the daemon's, from 1.
pub(in crate::quic) fn exchange_id(send: &SendStream) -> u32 {
    u32::try_from(send.id().index() + 1).unwrap_or(u32::MAX)
}

/// Abandons the exchange of this stream.
pub(in crate::quic) fn turn_away(mut send: SendStream, mut recv: RecvStream, code: ResetCode) {
    let code = VarInt::from_u32(code.to_u32());
    let _closed = send.reset(code);
    let _closed = recv.stop(code);
}
