//! Exchanges that leave HTTP: once the service has answered 101, raw bytes go both ways.

use bytes::{Bytes, BytesMut};
use cok_proto::RequestHead;
use cok_transport::{Received, RecvHalf, SendHalf};
use http::header::{CONNECTION, HeaderValue};
use http::{Method, StatusCode};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::body::RequestBody;
use super::respond::{explain, pump, split};
use super::{Failure, Proxy, request};

/// What an upgraded connection reads at once, and holds while idle.
const READ_BUFFER: usize = 16 * 1024;

/// Sends the request on a connection of its own and, after a 101, carries bytes until both ways have ended.
pub(super) async fn exchange(
    proxy: &Proxy,
    head: RequestHead,
    send: &mut Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
) -> Result<(), Failure> {
    let mut message = request::build(head, RequestBody::empty(), &proxy.local, &proxy.host);
    debug_assert!(*message.method() == Method::GET, "the daemon makes every upgrade a GET");
    message.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let io = proxy.local.http1_io().await?;
    let broke = |error: hyper::Error| Failure::Broke(explain(&error));
    let (mut sender, driver) = http1::handshake(io).await.map_err(broke)?;
    // An upgrade is one connection for a long time: a task for it costs little and keeps hyper's own order of things.
    let driver = tokio::spawn(driver.with_upgrades());
    let _abort = AbortOnDrop(driver.abort_handle());
    let wait = async {
        tokio::select! {
            response = sender.send_request(message) => response.map_err(broke),
            _error = std::future::poll_fn(|cx| send.poll_broken(cx)) => Err(Failure::Gone),
        }
    };
    let mut response = match proxy.response_timeout {
        None => wait.await?,
        Some(limit) => tokio::time::timeout(limit, wait).await.map_err(|_| Failure::Slow(limit))??,
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, mut body) = split(response);
        send.send_response(head, false).map_err(|_| Failure::TooLarge)?;
        return pump(None, &mut body, send).await;
    }
    let upgraded = hyper::upgrade::on(&mut response);
    let (head, _no_body) = split(response);
    send.send_response(head, false).map_err(|_| Failure::TooLarge)?;
    let upgraded = upgraded.await.map_err(broke)?;
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    tokio::try_join!(to_tunnel(reader, send), to_service(recv, writer))?;
    Ok(())
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn to_tunnel(mut reader: ReadHalf<TokioIo<Upgraded>>, send: &mut Box<dyn SendHalf>) -> Result<(), Failure> {
    let mut buffer = BytesMut::new();
    loop {
        send.ready().await.map_err(|_| Failure::Gone)?;
        buffer.reserve(READ_BUFFER);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read.map_err(|error| Failure::Broke(error.to_string()))?,
            _error = std::future::poll_fn(|cx| send.poll_broken(cx)) => return Err(Failure::Gone),
        };
        if read == 0 {
            send.send_data(Bytes::new(), true);
            return Ok(());
        }
        send.send_data(buffer.split().freeze(), false);
    }
}

async fn to_service(mut recv: Box<dyn RecvHalf>, mut writer: WriteHalf<TokioIo<Upgraded>>) -> Result<(), Failure> {
    let broke = |error: std::io::Error| Failure::Broke(error.to_string());
    loop {
        let end = match recv.recv().await.map_err(|_| Failure::Gone)? {
            Received::Data { data, end } => {
                writer.write_all(&data).await.map_err(broke)?;
                end
            }
            Received::Trailers(_) => true,
            Received::Head { .. } => false,
        };
        writer.flush().await.map_err(broke)?;
        if end {
            return writer.shutdown().await.map_err(broke);
        }
    }
}
