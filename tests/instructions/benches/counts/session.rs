//! A session in memory: its daemon's end, and a client with a service in its process. One thread runs all of it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cok_client::{Body, LocalService, serve_session};
use cok_proto::{Connect, ConnectAck, RequestHead, WindowBudget};
use cok_transport::{Config, ExchangeHalves, Received, Transport, memory};
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

use crate::heads;

const WINDOW: u32 = 256 * 1024;
const LIMIT: Duration = Duration::from_secs(600);
const BODY: &[u8] = &[b'x'; 128];

/// Answers as nginx would.
#[derive(Clone)]
struct Answers;

impl Service<Request<Body>> for Answers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
        *response.headers_mut() = heads::nginx_fields();
        ready(Ok(response))
    }
}

/// The session.
pub(crate) struct Session {
    runtime: Runtime,
    daemon: Arc<dyn Transport>,
    head: Arc<RequestHead>,
}

impl Session {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let daemon = runtime.block_on(establish());
        let session = Self { runtime, daemon, head: Arc::new(heads::request()) };
        // The first request meets what is made only once.
        session.visit(1);
        session
    }

    /// Sends requests at once and reads their answers.
    pub(crate) fn visit(&self, at_once: usize) {
        self.runtime.block_on(async {
            let open = || self.daemon.open(0, self.head.clone(), true).unwrap();
            let exchanges: Vec<_> = (0..at_once).map(|_| open()).collect();
            for ExchangeHalves { mut recv, send: _send } in exchanges {
                let mut is_over = false;
                while !is_over {
                    is_over = match recv.recv().await.unwrap() {
                        Received::Head { end, .. } | Received::Data { end, .. } => end,
                        Received::Trailers(_) => true,
                    };
                }
            }
        });
    }
}

/// Both ends, of which the client's is served by a task.
async fn establish() -> Arc<dyn Transport> {
    let limits = || Config { initial_window: WINDOW, max_exchanges: 1000, budget: WindowBudget::new(1 << 20) };
    let url = Some("https://demo.tunnel.example.com".to_owned());
    let ack = ConnectAck { url, initial_window: WINDOW, max_exchanges: 1000, ..ConnectAck::default() };
    let ack = ConnectAck { subdomain: Some("demo".to_owned()), ..ack };
    let ask = Connect { initial_window: WINDOW, ..Connect::default() };
    let (left, right) = memory::pipe();
    let accept = async { memory::accept(left, limits(), LIMIT).await.unwrap().accept(&ack, &[]).uncork() };
    let (daemon, client) = tokio::join!(accept, memory::connect(right, limits(), &ask, &[], LIMIT));
    tokio::spawn(serve_session(client.unwrap().0, LocalService::new(Answers)));
    daemon
}
