//! How exchanges begin, on either side.

use std::sync::Arc;

use cok_proto::RequestHead;
use cok_proto::stream::ExchangeReader;
use quinn::{RecvStream, SendStream};

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
