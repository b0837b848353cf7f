//! How fast a tunnel is: a service of its own sends bytes to a visitor of its own, through the public address.
//!
//! This is what visitors get. It is a tunnel and a request like any other, so the key's limits hold. A secret path keeps
//! strangers from having it send.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::network::Network;
use super::{Check, stranger};
use crate::client::Client;
use crate::dial;
use crate::options::ClientOptions;
use crate::server::Server;
use crate::service::Body;
use crate::settings::OpenError;
use crate::transport::TransportChoice;

/// How long bytes are counted.
const MEASURED: Duration = Duration::from_secs(3);
/// Timeout of everything before the first byte.
const BEGINNING: Duration = Duration::from_secs(10);
/// The bytes that are sent at most: 3 s at 10 Gbit/s.
const MOST: u64 = 4 << 30;
/// The bytes of one part of the body.
const PART: usize = 64 * 1024;

/// Measures each transport that can be used.
pub(super) async fn measure(
    options: &ClientOptions,
    found: &Network,
    has_session: bool,
    report: &mut impl FnMut(Check),
) {
    // One installation for both, so that the server picks one name.
    let instance = stranger();
    for (name, transport) in [("goodput_quic", TransportChoice::Quic), ("goodput_ws", TransportChoice::Ws)] {
        let is_quic = transport == TransportChoice::Quic;
        let why_not = match (&found.without_quic, options.transport) {
            _ if !has_session => Some("there is no session"),
            (Some(why), _) if is_quic => Some(why.as_str()),
            _ if is_quic && !found.has_quic => Some("QUIC carries no data"),
            (_, TransportChoice::Quic) if !is_quic => Some("--transport quic does without"),
            _ => None,
        };
        report(match why_not {
            Some(why) => Check::skipped(name, why),
            None => measure_one(name, options, transport, instance.clone()).await,
        });
    }
}

async fn measure_one(
    name: &'static str,
    options: &ClientOptions,
    transport: TransportChoice,
    instance: Option<String>,
) -> Check {
    let (Some(instance), Some(secret)) = (instance, stranger()) else {
        return Check::skipped(name, "the system gives no random numbers");
    };
    let path = format!("/{secret}");
    let (client, driver) = Client::new(ClientOptions { transport, instance, keep_trying: false, ..options.clone() });
    let client = client.start(driver);
    let sender = Sender(path.clone());
    let check = match timeout(BEGINNING, client.tunnel().service(sender).open()).await {
        Err(_) => Check::failed(name, "the tunnel is not online in time", "try again"),
        // The key may allow no further tunnel, or none without a name. The network is not at fault then.
        Ok(Err(OpenError::Refused { reason, .. })) => Check::skipped(name, format!("no tunnel to measure: {reason}")),
        Ok(Err(error)) => Check::failed(name, error.to_string(), "try again"),
        Ok(Ok(tunnel)) => {
            let url = tunnel.url();
            match visit(options, &url, &path).await {
                Ok(mbit_per_s) => {
                    let detail = format!("{mbit_per_s:.0} Mbit/s from here to a visitor of {url}");
                    Check { mbit_per_s: Some((mbit_per_s * 10.0).round() / 10.0), ..Check::ok(name, detail) }
                }
                Err(Lost { why, advice }) => {
                    Check::failed(name, format!("a visitor of {url} gets nothing: {why}"), advice)
                }
            }
        }
    };
    let _late = timeout(BEGINNING, client.close()).await;
    check
}

/// Why a visitor gets nothing, and what to do.
#[derive(Debug)]
struct Lost {
    why: String,
    advice: &'static str,
}

/// Reads from the public address for a while. Returns Mbit/s.
async fn visit(options: &ClientOptions, url: &str, path: &str) -> Result<f64, Lost> {
    let unanswered = |why| Lost {
        why,
        advice: "the server's operator should look at the DNS and the certificate for all names under the server's",
    };
    let (response, _sender) = ask(options, url, path).await.map_err(unanswered)?;
    rate(response.into_body()).await.map_err(|why| Lost {
        why,
        advice: "something on the way holds data back; try the other --transport, and a smaller MTU",
    })
}

/// Sends the visitor's request. Returns the response, whose connection ends with the sender.
async fn ask(
    options: &ClientOptions,
    url: &str,
    path: &str,
) -> Result<(Response<Incoming>, http1::SendRequest<Empty<Bytes>>), String> {
    let text = |error: hyper::Error| error.to_string();
    let server: Server = url.parse().map_err(|_| "its address is not understood".to_owned())?;
    let authority = server.authority();
    let config = dial::Config { server, ..options.dial() };
    let request = Request::get(path).header("host", authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let begin = async {
        let addresses = dial::addresses(&config).await.map_err(|cause| cause.to_string())?;
        let stream = dial::tls(&config, &addresses, &config.tls).await.map_err(|cause| cause.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // It ends with the response.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(text)?;
        Ok::<_, String>((response, sender))
    };
    let (response, sender) = timeout(BEGINNING, begin).await.map_err(|_| "no answer in time".to_owned())??;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()));
    }
    Ok((response, sender))
}

/// Reads a body for a while. Returns Mbit/s; one without a single byte is an error.
async fn rate<B>(mut body: B) -> Result<f64, String>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    let (began, mut bytes) = (Instant::now(), 0u64);
    while let Ok(frame) = timeout_at(began + MEASURED, body.frame()).await {
        match frame {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(error)) => return Err(error.to_string()),
            None => break,
        }
    }
    if bytes == 0 {
        return Err(format!("the answer has no body within {} s", MEASURED.as_secs()));
    }
    Ok(bytes as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64())
}

/// A service that sends bytes to whom knows its path.
#[derive(Clone, Debug)]
struct Sender(String);

impl Service<Request<Body>> for Sender {
    type Response = Response<Zeros>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_known = request.uri().path() == self.0;
        let mut response = Response::new(Zeros(if is_known { MOST } else { 0 }));
        if !is_known {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        ready(Ok(response))
    }
}

/// A body of zeros, with this many bytes left.
#[derive(Debug)]
struct Zeros(u64);

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ZEROS: [u8; PART] = [0; PART];
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 = self.0.saturating_sub(PART as u64);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS)))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// A body that stalls after its head.
    #[derive(Debug)]
    struct Stalled;

    impl http_body::Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_byte_is_no_rate() {
        assert!(rate(Stalled).await.is_err());
        assert!(rate(Empty::new()).await.is_err());
        assert!(rate(Full::new(Bytes::from_static(b"some"))).await.is_ok());
    }
}
