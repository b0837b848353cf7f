//! One request: its head, its answer, and its end.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use tracing::debug;

use super::account::Account;
use super::body::{Body, Broken, Receiver};
use super::fields::check_head;
use super::frames::{DATA, Piece, write_integer};
use super::quic::{Adapter, Half};
use super::request_state::RequestState;
use super::violation::wire;
use crate::edge::body;
use crate::edge::request::RequestBody;
use crate::edge::service;
use crate::edge::visitor::Visitor;
use crate::exchanges::{Leash, Waiting};

/// How much of a response that is there already goes into one write, about.
const GATHER: usize = 64 * 1024;
/// The most chunks in one write.
const MAX_CHUNKS: usize = 64;

/// How long a visitor may delay an acknowledgement (RFC 9000, section 18.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);
/// The longest time that the reset of a response waits for the bytes before it. A connection whose other streams are busy
/// takes all of it.
const SETTLE: Duration = Duration::from_secs(1);

/// What the connection's task hands to a request's.
pub(super) struct Stream {
    /// Resolves to the request's head as h3 decodes it.
    pub(super) resolver: RequestResolver<Adapter, Bytes>,
    /// What h3 reads from and writes to.
    pub(super) half: Half,
    /// The outgoing side of the stream.
    pub(super) send: quinn::SendStream,
    /// The incoming side of the stream.
    pub(super) recv: quinn::RecvStream,
    /// The connection of the stream.
    pub(super) connection: quinn::Connection,
    /// The account of the connection.
    pub(super) account: Account,
}

/// Serves one request, until its response has arrived or is not wanted any more.
pub(super) async fn serve(visitor: Arc<Visitor>, stream: Stream, leash: Leash) {
    let (state, account, connection) = (RequestState::new(), stream.account.clone(), stream.connection.clone());
    let mut asked = false;
    serve_stream(visitor, stream, leash, state.clone(), &mut asked).await;
    // A stream without a request costs the same, however it ended.
    if (!asked || state.aborted() == Some(Code::H3_REQUEST_CANCELLED))
        && let Err(violation) = account.cancelled(asked)
    {
        violation.close(&connection);
    }
}

/// Notes in `asked` that a head has come.
async fn serve_stream(visitor: Arc<Visitor>, stream: Stream, leash: Leash, state: Arc<RequestState>, asked: &mut bool) {
    let Stream { resolver, half, send, recv, connection, account } = stream;
    let mut sender = Sender { stream: send, state: state.clone(), finished: false };
    let mut receiver = Receiver::new(recv, connection.clone(), state.clone(), account.clone());
    let limit = visitor.edge.exchanges.config().head_timeout.min(visitor.edge.config().header_timeout);
    let frame = match tokio::time::timeout(limit, head(&mut receiver)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(broken)) => {
            debug!(?broken, "no request");
            return receiver.give_up(broken);
        }
        Err(_) => return state.abort(Code::H3_REQUEST_REJECTED),
    };
    account.request();
    *asked = true;
    half.put_head(frame);
    let (request, stream) = match resolver.resolve_request().await {
        Ok(resolved) => resolved,
        Err(StreamError::HeaderTooBig { .. }) => {
            // h3 has written a 431.
            if sender.write(&mut [half.take_written()]).await.is_ok() {
                sender.finish().await;
            }
            return;
        }
        Err(error) => {
            debug!(%error, "no request");
            // h3 closes the connection by itself where that is due.
            let code = if let StreamError::StreamError { code, .. } = error { code } else { Code::H3_MESSAGE_ERROR };
            return state.abort(code);
        }
    };
    let declared = match check_head(&request) {
        Ok(declared) => declared,
        Err(violation) => {
            debug!(?violation, "no request");
            return receiver.give_up(violation.into());
        }
    };
    let (writer, reader) = stream.split();
    if let Ok(body) = Body::new(receiver, reader, half.clone(), state, declared) {
        let mut request = request.map(|()| RequestBody::Stream(Box::pin(body)));
        request.extensions_mut().insert(leash);
        // A visitor who has left needs no answer.
        if respond(&visitor, request, Writer { h3: writer, half }, &mut sender, &connection).await.is_ok() {
            account.answered();
        }
    }
}

/// The frame with a request's head.
async fn head(receiver: &mut Receiver) -> Result<Bytes, Broken> {
    match std::future::poll_fn(|cx| receiver.poll_piece(cx)).await? {
        Some(Piece::Head(frame)) => Ok(frame),
        // The guard lets nothing come before it, and no stream end without it.
        _ => Err(Broken::Gone),
    }
}

/// Has a request answered, and sends the response. Nothing is kept of either once the visitor has left.
async fn respond(
    visitor: &Arc<Visitor>,
    request: Request<RequestBody>,
    mut writer: Writer,
    sender: &mut Sender,
    connection: &quinn::Connection,
) -> Result<(), Left> {
    let state = sender.state.clone();
    let mut stopped = pin!(sender.stream.stopped());
    let response = {
        let mut responding = pin!(service::respond(visitor, Box::new(request), None));
        loop {
            let response = tokio::select! {
                biased;
                () = state.changed() => None,
                _ = &mut stopped => return Err(sender.cancelled()),
                response = &mut responding => Some(response),
            };
            sender.stands()?;
            while let Some(interim) = state.interim.next() {
                let mut response = Response::new(());
                (*response.status_mut(), *response.headers_mut()) = (interim.status, interim.headers);
                let head = writer.head(response).await.ok_or_else(|| sender.unable())?;
                let written = tokio::time::timeout(visitor.edge.exchanges.patience(), sender.write(&mut [head])).await;
                written.unwrap_or_else(|_| Err(sender.unable()))?;
            }
            if let Some(response) = response {
                break response;
            }
        }
    };
    let limit = if response.body().is_own() { visitor.edge.exchanges.patience() } else { Duration::MAX };
    let sent = tokio::time::timeout(limit, send(response, writer, sender, connection)).await;
    sent.unwrap_or_else(|_| Err(sender.unable()))
}

/// Sends a response.
async fn send(
    response: Response<body::Body>,
    mut writer: Writer,
    sender: &mut Sender,
    connection: &quinn::Connection,
) -> Result<(), Left> {
    let state = sender.state.clone();
    let mut stopped = pin!(sender.stream.stopped());
    let (mut parts, mut body) = response.into_parts();
    complete(&mut parts.headers, &body);
    let head = writer.head(Response::from_parts(parts, ())).await.ok_or_else(|| sender.unable())?;
    let mut ready = Ready::new(head);
    loop {
        let step = tokio::select! {
            biased;
            () = state.changed() => Step::More,
            _ = &mut stopped => return Err(sender.cancelled()),
            step = std::future::poll_fn(|cx| ready.poll_gather(&mut body, cx)) => step,
        };
        sender.stands()?;
        let last = match step {
            Step::More => None,
            Step::End => Some(Bytes::new()),
            Step::Trailers(trailers) => Some(writer.trailers(trailers).await.ok_or_else(|| sender.unable())?),
            Step::Broken => {
                sender.write(ready.take(None)).await?;
                tokio::select! {
                    () = settle(connection) => {}
                    _ = &mut stopped => {}
                }
                return Err(sender.unable());
            }
        };
        let ended = last.is_some();
        // A head or trailers may wait for their visitor as well.
        let fields = ready.parts[Ready::HEAD].len() + last.as_ref().map_or(0, Bytes::len);
        ready.waiting.extend(body.wait(fields));
        sender.write(ready.take(last)).await?;
        ready.clear();
        if ended {
            break;
        }
    }
    // The response counts as answered from here on.
    drop(body);
    sender.finish().await;
    Ok(())
}

/// Waits until what was written has probably arrived. A reset makes QUIC forget what is not acknowledged (RFC 9000, section
/// 3.5), and the library does not tell how much that is. But it sends no more frames of streams once it has no bytes
/// left and has lost none.
async fn settle(connection: &quinn::Connection) {
    let began = Instant::now();
    let mut sent = None;
    loop {
        let stats = connection.stats();
        // A loss shows after three round trips and the visitor's delay of acknowledgements (RFC 9002, section 6.2.1).
        let look = stats.path.rtt * 3 + MAX_ACK_DELAY;
        if sent.replace(stats.frame_tx.stream) == Some(stats.frame_tx.stream) || began.elapsed() >= SETTLE {
            return;
        }
        tokio::time::sleep(look.min(SETTLE)).await;
    }
}

/// What hyper adds to heads over the other versions.
fn complete(headers: &mut HeaderMap, body: &body::Body) {
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, date);
    }
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// Encodes field sections.
struct Writer {
    h3: RequestStream<Half, Bytes>,
    half: Half,
}

impl Writer {
    /// The frame of a head; `None` if it is longer than the visitor takes.
    async fn head(&mut self, head: Response<()>) -> Option<Bytes> {
        self.h3.send_response(head).await.inspect_err(|error| debug!(%error, "no response")).ok()?;
        Some(self.half.take_written())
    }

    /// The frame of trailers; `None` if they are longer than the visitor takes.
    async fn trailers(&mut self, trailers: HeaderMap) -> Option<Bytes> {
        self.h3.send_trailers(trailers).await.inspect_err(|error| debug!(%error, "no trailers")).ok()?;
        Some(self.half.take_written())
    }
}

/// The parts of a response that are ready, in slots, so that one write sends them all.
struct Ready {
    /// A head, the header of a DATA frame, its payload, and trailers; what is absent is empty.
    parts: Vec<Bytes>,
    /// Bytes of payload.
    length: usize,
    /// Counts all of it as waiting until it is written.
    waiting: Vec<Waiting>,
}

/// How the gathering of a response ended.
enum Step {
    /// Nothing more is there at the moment.
    More,
    End,
    Trailers(HeaderMap),
    /// The response broke off.
    Broken,
}

impl Ready {
    const HEAD: usize = 0;
    const FRAME_HEADER: usize = 1;
    const PAYLOAD: usize = 2;

    fn new(head: Bytes) -> Self {
        Self { parts: vec![head, Bytes::new()], length: 0, waiting: Vec::new() }
    }

    /// Takes from a body what it has ready; pending only as long as there is nothing to write at all.
    fn poll_gather(&mut self, body: &mut body::Body, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            if body.is_end_stream() {
                return Poll::Ready(Step::End);
            }
            if self.length >= GATHER || self.parts.len() >= Self::PAYLOAD + MAX_CHUNKS {
                return Poll::Ready(Step::More);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending if self.length == 0 && self.parts[Self::HEAD].is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Step::More),
                Poll::Ready(None) => return Poll::Ready(Step::End),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Step::Broken),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => {
                        let (data, waiting) = chunk.into_parts();
                        self.length += data.len();
                        self.waiting.extend(waiting);
                        self.parts.push(data);
                    }
                    Err(frame) => return Poll::Ready(Step::Trailers(frame.into_trailers().unwrap_or_default())),
                },
            }
        }
    }

    /// All that was gathered, and `last` behind it, to be written; it is emptied by that.
    fn take(&mut self, last: Option<Bytes>) -> &mut [Bytes] {
        if self.length > 0 {
            let mut header = BytesMut::new();
            write_integer(DATA, &mut header);
            write_integer(self.length as u64, &mut header);
            self.parts[Self::FRAME_HEADER] = header.freeze();
        }
        self.parts.extend(last);
        self.length = 0;
        &mut self.parts
    }

    /// Makes room after a write.
    fn clear(&mut self) {
        self.parts.truncate(Self::PAYLOAD);
        self.waiting.clear();
    }
}

/// The outgoing side of a request's stream. Dropping it before its end resets it.
struct Sender {
    stream: quinn::SendStream,
    state: Arc<RequestState>,
    finished: bool,
}

/// The visitor has left. [`RequestState::aborted`] has the code.
#[derive(Debug)]
struct Left;

impl Sender {
    /// Whether the request has not been given up.
    fn stands(&self) -> Result<(), Left> {
        if self.state.aborted().is_some() { Err(Left) } else { Ok(()) }
    }

    /// The visitor does not want the response.
    fn cancelled(&self) -> Left {
        self.state.abort(Code::H3_REQUEST_CANCELLED);
        Left
    }

    /// The response can't go on.
    fn unable(&self) -> Left {
        self.state.abort(Code::H3_INTERNAL_ERROR);
        Left
    }

    /// Writes all parts, which are empty afterwards.
    async fn write(&mut self, parts: &mut [Bytes]) -> Result<(), Left> {
        // Writing nothing would wait for credit, of which an end needs none.
        if parts.iter().all(Bytes::is_empty) {
            return Ok(());
        }
        let state = self.state.clone();
        loop {
            tokio::select! {
                biased;
                () = state.changed() => self.stands()?,
                // What is written is cut off from the parts, so that this may begin again.
                written = self.stream.write_all_chunks(parts) => return written.map_err(|_| self.cancelled()),
            }
        }
    }

    /// Ends the stream, and waits until all of it has arrived or the visitor has lost interest.
    async fn finish(&mut self) {
        if self.stream.finish().is_ok() {
            self.finished = true;
            if let Ok(Some(_stopped)) = self.stream.stopped().await {
                self.finished = false;
                self.state.abort(Code::H3_REQUEST_CANCELLED);
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished {
            let code = self.state.aborted().unwrap_or(Code::H3_INTERNAL_ERROR);
            let _already_closed = self.stream.reset(wire(code));
        }
    }
}
