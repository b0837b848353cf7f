//! Puts an axum application at a public address, without a port on this machine:
//!
//!     COK_SERVER=https://tunnel.example.com COK_API_KEY=cok_… cargo run --example axum
//!
//! It has a page, a WebSocket at /socket and a gRPC method, /echo/Unary. COK_SUBDOMAIN names the tunnel, and COK_TRANSPORT
//! chooses quic or ws. COK_CA_FILE and COK_CONNECT_TO are for a daemon with certificates of its own, and without a public
//! name.

use std::env;
use std::error::Error;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use cok_client::{Client, TransportChoice, VisitorAddress};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const PAGE: &str = r#"<!doctype html><title>axum</title>
<h1>Hello, VISITOR</h1>
<p>The WebSocket says: <b id="said">nothing yet</b></p>
<script>
const socket = new WebSocket(location.origin.replace("https", "wss") + "/socket");
socket.onopen = () => socket.send("from the page");
socket.onmessage = event => document.getElementById("said").textContent = event.data;
</script>
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/", get(page))
        .route("/echo", post(echo))
        .route("/socket", any(socket))
        .route("/echo/Unary", post(grpc))
        .route("/panic", get(panic));

    let mut client = Client::builder(env::var("COK_SERVER")?, env::var("COK_API_KEY")?);
    if let Ok(file) = env::var("COK_CA_FILE") {
        client = client.ca_file(file);
    }
    if let Ok(address) = env::var("COK_CONNECT_TO") {
        client = client.connect_to(address.parse()?);
    }
    match env::var("COK_TRANSPORT").as_deref() {
        Ok("quic") => client = client.transport(TransportChoice::Quic),
        Ok("ws") => client = client.transport(TransportChoice::Ws),
        _ => {}
    }
    let mut tunnel = client.tunnel().service(app);
    if let Ok(name) = env::var("COK_SUBDOMAIN") {
        tunnel = tunnel.subdomain(name);
    }
    let tunnel = tunnel.open().await?;
    println!("{}", tunnel.url());
    tokio::signal::ctrl_c().await?;
    tunnel.close().await;
    Ok(())
}

async fn page(Extension(VisitorAddress(visitor)): Extension<VisitorAddress>) -> Html<String> {
    Html(PAGE.replace("VISITOR", &visitor.to_string()))
}

/// Sends the body back as it comes.
async fn echo(body: Body) -> Body {
    body
}

async fn panic() -> StatusCode {
    panic!("as you wish")
}

/// Accepts a WebSocket and echoes its messages. With axum's feature `ws`, this is an extractor.
async fn socket(mut request: Request) -> Response {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())) else {
        return (StatusCode::BAD_REQUEST, "this is a WebSocket").into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let head = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static(""))),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, head).into_response()
}

/// Answers a gRPC call with its own message. With tonic, this is `Routes::into_axum_router`.
async fn grpc(message: Bytes) -> Response {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
    ([(CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}
