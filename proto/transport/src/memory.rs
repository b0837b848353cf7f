//! A session within one process, for tests: the multiplexer over a pair of bounded channels.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::{Connect, ConnectAck};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::muxed::{self, Pipe};
use crate::{CloseReason, Config, Handshake, HandshakeError, Transport};

/// Messages in flight in one direction before the sender waits.
const CAPACITY: usize = 4;

/// One end of a pipe that carries no session yet.
#[derive(Debug)]
pub struct End {
    sender: PollSender<Bytes>,
    receiver: mpsc::Receiver<Bytes>,
}

/// A new pipe's two ends.
pub fn pipe() -> (End, End) {
    let (left_sender, right_receiver) = mpsc::channel(CAPACITY);
    let (right_sender, left_receiver) = mpsc::channel(CAPACITY);
    (
        End { sender: PollSender::new(left_sender), receiver: left_receiver },
        End { sender: PollSender::new(right_sender), receiver: right_receiver },
    )
}

/// Daemon: waits for the client's Connect, at most for `limit`. See [`crate::ws::accept`].
pub async fn accept(end: End, config: Config, limit: Duration) -> Result<Box<dyn Handshake>, HandshakeError> {
    muxed::accept("memory", end, config, limit).await
}

/// Client: asks for a session and waits for the answer, at most for `limit`. See [`crate::ws::connect`].
pub async fn connect(
    end: End,
    config: Config,
    connect: &Connect,
    moving: &[u32],
    limit: Duration,
) -> Result<(Arc<dyn Transport>, ConnectAck), HandshakeError> {
    muxed::connect("memory", end, config, connect, moving, limit).await
}

impl Pipe for End {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CloseReason>>> {
        self.receiver.poll_recv(cx).map(|message| message.map(Ok))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        self.sender.poll_reserve(cx).map_err(|_| CloseReason::PeerClosed)
    }

    fn start_send(&mut self, message: Bytes) -> Result<(), CloseReason> {
        self.sender.send_item(message).map_err(|_| CloseReason::PeerClosed)
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        self.sender.close();
        Poll::Ready(())
    }
}
