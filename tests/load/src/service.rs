//! Small answers, downloads and uploads of a second, WebSockets and streams of events.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::PAUSE;
use crate::exchanges::{Body, bytes, pieces};

/// More than any visitor of a test reads.
const HUGE: u64 = 1 << 30;

/// The send buffer of a connection in bytes, and how many connections may wait to be accepted.
const SEND_BUFFER: u32 = 128 * 1024;
const BACKLOG: u32 = 4096;

/// The queries of all requests for `/`, answered or not.
type Asked = Arc<Mutex<String>>;

/// Serves until the process is killed.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    // Many visitors at once must neither be refused nor fill the kernel's memory.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    let listener = socket.listen(BACKLOG)?;
    println!("http://{}", listener.local_addr()?);
    let asked = Asked::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let asked = asked.clone();
        let service = service_fn(move |request| answer(request, asked.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

async fn answer(mut request: Request<Incoming>, asked: Asked) -> Result<Response<Body>, hyper::Error> {
    let full = |text: String| Response::new(Full::from(text).boxed_unsync());
    Ok(match request.uri().path() {
        "/" => {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let _infallible = writeln!(asked, "{}", request.uri().query().unwrap_or_default());
            full("hello".to_owned())
        }
        "/asked" => full(asked.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        "/slow" => Response::new(pieces()),
        "/huge" => Response::new(bytes(HUGE)),
        // It takes no body, and never answers.
        "/ignored" => pending().await,
        "/upload" => full(request.into_body().collect().await?.to_bytes().len().to_string()),
        "/news" => news(),
        "/talk" => talk(&mut request),
        _ => status(StatusCode::NOT_FOUND),
    })
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

fn news() -> Response<Body> {
    let events = stream::unfold((), async |()| {
        sleep(PAUSE).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data: now\n\n"))), ()))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    response
}

/// RFC 6455, section 4.2.2.
fn talk(request: &mut Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else { return status(StatusCode::BAD_REQUEST) };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(echo(hyper::upgrade::on(request)));
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, &accept)] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut talk =
        WebSocketStream::<TokioIo<Upgraded>>::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    // The library sends its Close frame during the next read.
    while let Some(Ok(message)) = talk.next().await {
        if message.is_text() && talk.send(message).await.is_err() {
            return;
        }
    }
}
