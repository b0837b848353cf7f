//! Single exchanges of a visitor with the service.

use std::convert::Infallible;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use crate::connection::Connector;
use crate::visit::Why;
use crate::{PAUSE, PIECE, PIECES};

/// The body of requests and of the service's responses.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The longest silence of a WebSocket's peer.
const SILENCE: Duration = Duration::from_secs(20);

/// A body in pieces with a pause after each: it takes one second.
pub(crate) fn pieces() -> Body {
    let pieces = stream::unfold(0, async |number| {
        if number > 0 {
            sleep(PAUSE).await;
        }
        (number < PIECES).then(|| (Ok(Frame::data(PIECE)), number + 1))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A body of this many bytes, as fast as it is taken.
pub(crate) fn bytes(mut left: u64) -> Body {
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let pieces = stream::poll_fn(move |_| {
        let length = left.min(piece.len() as u64);
        left -= length;
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece.slice(..length as usize)))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Sends a request and waits for the head of the response.
pub(crate) async fn ask(
    requests: &mut SendRequest<Body>,
    method: Method,
    host: &str,
    path: &str,
    body: Body,
) -> Result<Response<Incoming>, Why> {
    let request = Request::builder().method(method).uri(path).header(HOST, host).body(body);
    let request = request.map_err(|error| Why::wrong(error.to_string()))?;
    Ok(requests.send_request(request).await?)
}

/// Reads the whole response body, which must equal `wanted`.
pub(crate) async fn is(response: Response<Incoming>, wanted: &[u8]) -> Result<(), Why> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(Why::wrong(format!("status {status}")));
    }
    let read = response.into_body().collect().await?.to_bytes();
    if read == wanted { Ok(()) } else { Err(Why::wrong(format!("{} other bytes", read.len()))) }
}

/// A download that takes a second.
pub(crate) async fn download(connector: &Connector, host: &str) -> Result<(), Why> {
    let mut requests = connector.http(host).await?;
    let response = ask(&mut requests, Method::GET, host, "/slow", Body::default()).await?;
    is(response, &PIECE.repeat(PIECES)).await
}

/// An upload that takes a second.
pub(crate) async fn upload(connector: &Connector, host: &str) -> Result<(), Why> {
    let mut requests = connector.http(host).await?;
    let response = ask(&mut requests, Method::POST, host, "/upload", pieces()).await?;
    is(response, (PIECE.len() * PIECES).to_string().as_bytes()).await
}

/// Exchanges messages over a WebSocket until the peer closes it as going away, with a full closing handshake. Calls
/// `here` once it is connected.
pub(crate) async fn talk(
    connector: &Connector,
    host: &str,
    stop: &CancellationToken,
    here: impl FnOnce(),
) -> Result<(), Why> {
    let stream = connector.connect(host).await?;
    let (mut talk, _) = tokio_tungstenite::client_async(format!("wss://{host}/talk"), stream).await?;
    here();
    while !stop.is_cancelled() {
        talk.send(Message::text("hello")).await?;
        match timeout(SILENCE, talk.next()).await {
            Err(_) => return Err(Why::TimedOut),
            Ok(Some(Ok(Message::Text(text)))) if text == "hello" => {}
            Ok(Some(Ok(Message::Close(Some(frame))))) if frame.code == CloseCode::Away => {
                // The library sends its Close frame during the next read.
                return match timeout(SILENCE, talk.next()).await {
                    Ok(None) => Ok(()),
                    other => Err(Why::wrong(format!("after the closing handshake: {other:?}"))),
                };
            }
            Ok(Some(Ok(other))) => return Err(Why::wrong(format!("{other:?}"))),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => return Err(Why::BrokeOff("no closing handshake".to_owned())),
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Reads a stream of events to its clean end. Calls `here` once it is connected.
pub(crate) async fn listen(
    connector: &Connector,
    host: &str,
    stop: &CancellationToken,
    here: impl FnOnce(),
) -> Result<(), Why> {
    let mut requests = connector.http(host).await?;
    let response = ask(&mut requests, Method::GET, host, "/news", Body::default()).await?;
    if response.status() != StatusCode::OK {
        return Err(Why::wrong(format!("status {}", response.status())));
    }
    here();
    let mut events = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = tokio::select! { frame = events.frame() => frame, () = stop.cancelled() => None } {
        read.extend_from_slice(&frame?.into_data().unwrap_or_default());
        while let Some(end) = read.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = read.drain(..end + 2).collect();
            if event != b"data: now\n\n" {
                return Err(Why::wrong(format!("the event {:?}", String::from_utf8_lossy(&event))));
            }
        }
    }
    if read.is_empty() { Ok(()) } else { Err(Why::wrong("half an event")) }
}
