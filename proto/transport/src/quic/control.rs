//! The control stream: the client's first bidirectional stream, which carries the frames of the whole session.
//!
//! The rules for these frames are in cok-proto; here they are read, written and waited for.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use cok_proto::frame::{self, FrameType};
use cok_proto::session::{Session, Signal};
use cok_proto::stream::ControlReader;
use cok_proto::{ErrorMessage, Frame, ProtocolError, Role};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};

use super::liveness::{PeerLiveness, Verdict};
use super::shared::Shared;
use super::turns;
use crate::{CloseReason, SessionError};

/// How long an Error frame may take to arrive before the connection is closed anyway.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often readers that stall are looked for while there are exchanges.
const AUDIT_EVERY: Duration = Duration::from_millis(50);
/// Bytes read at once. Control frames are short and rare.
const READ: usize = 4 * 1024;

/// Both directions of the control stream.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) reader: ControlReader,
}

impl Control {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        // Control frames must not wait behind megabytes of bodies.
        let _closed = send.set_priority(turns::CONTROL);
        Self { send, recv, reader: ControlReader::default() }
    }

    /// Before the session is established: the next frame.
    pub(super) async fn frame(&mut self, connection: &Connection) -> Result<Frame, CloseReason> {
        loop {
            if let Some(frame) = self.reader.read().map_err(|error| refuse(connection, &error))? {
                return Ok(frame);
            }
            match self.recv.read_chunk(READ, true).await {
                Ok(Some(chunk)) => self.reader.push(chunk.bytes),
                Ok(None) => return Err(CloseReason::PeerClosed),
                Err(_) => return Err(close_reason(connection)),
            }
        }
    }

    /// Before the session is established: the meaning of the next frame.
    pub(super) async fn signal(
        &mut self,
        connection: &Connection,
        session: &mut Session,
    ) -> Result<Signal, CloseReason> {
        loop {
            let frame = self.frame(connection).await?;
            match session.receive(frame, Instant::now()) {
                Ok(Some(signal)) => return Ok(signal),
                Ok(None) => {}
                Err(SessionError::Protocol(error)) => return Err(refuse(connection, &error)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Before the session is established: answers a Ping.
    pub(super) async fn pong(&mut self, connection: &Connection, opaque: [u8; 8]) -> Result<(), CloseReason> {
        let mut pong = BytesMut::new();
        frame::put_pong(&mut pong, opaque);
        self.send(connection, &pong).await
    }

    /// Before the session is established: sends one frame.
    pub(super) async fn send(&mut self, connection: &Connection, frame: &[u8]) -> Result<(), CloseReason> {
        self.send.write_all(frame).await.map_err(|_| close_reason(connection))
    }
}

/// Sends an Error frame, and closes the connection once it has arrived.
pub(super) fn fail(connection: Connection, mut control: Control, error: ErrorMessage) {
    tokio::spawn(async move {
        let mut last = BytesMut::new();
        frame::put_json(&mut last, FrameType::Error, &error);
        let said = async {
            control.send.write_all(&last).await.ok()?;
            control.send.finish().ok()?;
            control.send.stopped().await.ok()
        };
        let _in_time = tokio::time::timeout(LAST_WORDS, said).await;
        connection.close(VarInt::from_u32(error.code.to_u32()), b"");
    });
}

/// Why a connection has ended, translated from quinn's error.
pub(super) fn close_reason(connection: &Connection) -> CloseReason {
    match connection.close_reason() {
        Some(reason) => reason_of(&reason),
        None => CloseReason::Lost("the control stream broke".to_owned()),
    }
}

fn reason_of(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(closed) if closed.error_code == VarInt::from_u32(0) => {
            CloseReason::PeerClosed
        }
        ConnectionError::TimedOut => SessionError::Silent.into(),
        ConnectionError::Reset => CloseReason::Forgotten,
        error => CloseReason::Lost(error.to_string()),
    }
}

/// Closes the connection of a peer that breaks the protocol before the session is established.
pub(super) fn refuse(connection: &Connection, error: &ProtocolError) -> CloseReason {
    connection.close(VarInt::from_u32(error.code().to_u32()), error.to_string().as_bytes());
    SessionError::Protocol(error.clone()).into()
}

/// Drives an established session to its end.
pub(super) async fn drive(shared: Arc<Shared>, control: Control) {
    let reason = Driver::new(&shared, control).run().await;
    // Open exchanges break with the connection.
    let code = shared.lock().session.error().map_or(0, |error| error.code.to_u32());
    shared.connection.close(VarInt::from_u32(code), b"");
    shared.closed(reason);
}

struct Driver<'a> {
    shared: &'a Shared,
    control: Control,
    /// Frames that are being written.
    writing: Bytes,
    /// Our direction of the control stream is finished.
    fin_sent: bool,
    /// The peer's direction of the control stream is finished.
    fin_received: bool,
    /// When the connection is closed after our Error frame, delivered or not.
    last_words: Option<Instant>,
    /// When readers that stall are looked for next. Other events must not put it off.
    audit_at: Option<Instant>,
    /// Daemon: whether the client is still there.
    liveness: Option<PeerLiveness>,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Shared, control: Control) -> Self {
        Self {
            shared,
            control,
            writing: Bytes::new(),
            fin_sent: false,
            fin_received: false,
            last_words: None,
            audit_at: None,
            liveness: (shared.role == Role::Daemon).then(|| PeerLiveness::new(Instant::now())),
        }
    }

    async fn run(mut self) -> CloseReason {
        loop {
            self.check_peer();
            let drained = match self.read_frames() {
                Ok(()) => self.gather(),
                Err(reason) => return reason,
            };
            if drained && self.fin_sent && self.fin_received {
                return CloseReason::Drained;
            }
            if let Err(reason) = self.wait().await {
                return reason;
            }
        }
    }

    /// Acts on frames that have come, unless the session has failed.
    fn read_frames(&mut self) -> Result<(), CloseReason> {
        while !self.shared.lock().session.is_closed() {
            let frame = match self.control.reader.read() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.shared.fail(&(&error).into());
                    return Ok(());
                }
            };
            self.shared.receive(frame)?;
        }
        Ok(())
    }

    /// Takes frames to write. Whether the session has drained on this side.
    fn gather(&mut self) -> bool {
        let mut state = self.shared.lock();
        // A session that has failed says so at once.
        let corked = state.corked && !state.session.is_closed();
        if self.writing.is_empty() && !self.fin_sent && !corked {
            if let Some(opaque) = state.pong.take() {
                frame::put_pong(&mut state.outbox, opaque);
            }
            if std::mem::take(&mut state.ping) {
                frame::put_ping(&mut state.outbox, [0; 8]);
            }
            self.writing = state.outbox.split().freeze();
            state.session.answers_sent();
        }
        let drained = !corked && state.is_drained();
        let failed = state.session.is_closed();
        drop(state);
        // After Error or the last exchange, our direction of the control stream ends.
        if (failed || drained) && self.writing.is_empty() && !self.fin_sent {
            self.fin_sent = true;
            let _stopped = self.control.send.finish();
        }
        if failed && self.last_words.is_none() {
            self.last_words = Some(Instant::now() + LAST_WORDS);
        }
        drained
    }

    /// Daemon: judges whether the client is still there, once a sample is due.
    fn check_peer(&mut self) {
        let now = Instant::now();
        let Some(liveness) = self.liveness.as_mut().filter(|liveness| liveness.next() <= now) else { return };
        let verdict = liveness.sample(&self.shared.connection.stats(), now);
        if verdict == Verdict::Ask {
            self.shared.lock().ping = true;
        }
        let silent = match verdict {
            Verdict::Fine if liveness.is_asked() => return,
            verdict => verdict == Verdict::Silent,
        };
        self.shared.silent.send_if_modified(|before| std::mem::replace(before, silent) != silent);
    }

    /// Waits until something changes.
    async fn wait(&mut self) -> Result<(), CloseReason> {
        let Self { shared, control, writing, audit_at, .. } = self;
        let Control { send, recv, reader } = control;
        let deadline = [self.last_words, shared.lock().session.drain_deadline()].into_iter().flatten().min();
        let check_at = self.liveness.as_ref().map(PeerLiveness::next);
        let (failed, fin_sent) = (self.last_words.is_some(), self.fin_sent);
        let delivered = send.stopped();
        let write = async { if writing.is_empty() { pending().await } else { send.write(writing).await } };
        tokio::select! {
            read = recv.read_chunk(READ, true), if !self.fin_received && !failed => match read {
                Ok(Some(chunk)) => reader.push(chunk.bytes),
                Ok(None) if shared.lock().session.is_draining() => self.fin_received = true,
                Ok(None) => return Err(CloseReason::PeerClosed),
                Err(_) => return Err(close_reason(&shared.connection)),
            },
            written = write => match written {
                Ok(count) => writing.advance(count),
                // A peer that stops the control stream counts as gone.
                Err(WriteError::Stopped(_)) => return Err(CloseReason::PeerClosed),
                Err(_) => return Err(close_reason(&shared.connection)),
            },
            // Our Error has arrived.
            _ = delivered, if failed && fin_sent => return Err(CloseReason::Drained),
            error = shared.connection.closed() => return Err(match reason_of(&error) {
                CloseReason::PeerClosed if shared.lock().session.is_draining() => CloseReason::Drained,
                reason => reason,
            }),
            () = shared.attention.notified() => {
                audit_at.get_or_insert_with(|| Instant::now() + AUDIT_EVERY);
            }
            () = until(*audit_at) => *audit_at = shared.audit().then(|| Instant::now() + AUDIT_EVERY),
            () = until(deadline) => return Err(CloseReason::Drained),
            () = until(check_at) => {}
        }
        Ok(())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
