//! A WebSocket that sends back what it gets.

use cok_client::Body as RequestBody;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;

use super::{Body, TEXT, full};

/// The longest message: the page's have at most 1,000 characters.
const LONGEST: usize = 64 * 1024;

/// Accepts the WebSocket that a request asks for.
pub(super) fn accept(request: Request<RequestBody>) -> Response<Body> {
    let headers = request.headers();
    let asks = headers.get(UPGRADE).is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let key = key.and_then(|key| HeaderValue::try_from(key).ok());
    let (true, Some(key)) = (asks, key) else {
        let mut response = full(StatusCode::UPGRADE_REQUIRED, TEXT, "This address is for WebSockets.\n");
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    };
    tokio::spawn(async move {
        match echo(on(request)).await {
            Ok(()) | Err(Error::ConnectionClosed) => {}
            Err(error) => debug!(%error, "a WebSocket of the sample site ended: {error}"),
        }
    });
    let mut response = full(StatusCode::SWITCHING_PROTOCOLS, TEXT, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    response
}

async fn echo(upgraded: OnUpgrade) -> Result<(), Error> {
    let upgraded = upgraded.await.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
