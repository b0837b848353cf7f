//! The client's end of the control socket. It trusts its owner, but bounds what a broken one may cost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::socket::{self, Answering, Listener, SocketPath};
use super::{Answer, ClientLine, Place, Request, read_line, to_line};
use crate::cli::overview::Overview;
use crate::cli::running::{Changes, NotReloaded};

/// The longest request, in bytes.
const LONGEST_REQUEST: usize = 4096;
/// The most connections at once. Further ones wait.
const MAX_CONNECTIONS: usize = 16;
/// The most time for a request to arrive, and for an answer to leave.
const LIMIT: Duration = Duration::from_secs(5);
/// The wait after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the program is asked to do.
#[derive(Debug)]
pub(in crate::cli) enum Order {
    /// Read the file again, and answer.
    Reload(oneshot::Sender<Result<Changes, NotReloaded>>),
    /// Read again which share links are revoked, and answer.
    Revoke(oneshot::Sender<Result<(), String>>),
    /// Stop.
    Stop,
}

/// The control socket of this process. Dropping it removes the socket.
#[derive(Debug)]
pub(in crate::cli) struct Control {
    listener: Listener,
    path: SocketPath,
}

impl Control {
    /// Makes the socket. Without it, the client runs all the same.
    pub(in crate::cli) async fn new(state_dir: &Path) -> Option<Self> {
        match socket::listen(state_dir, std::process::id()).await {
            Ok((listener, path)) => Some(Self { listener, path }),
            Err(error) => {
                let state_dir = state_dir.display();
                warn!(
                    event = "no_control_socket", %state_dir, %error,
                    "cannot make a control socket in {state_dir}: {error}; `status`, `reload` and `stop` will not find this \
                     client"
                );
                None
            }
        }
    }
}

/// Answers requests until it is dropped. Without a socket, it waits.
pub(in crate::cli) async fn serve(
    control: Option<Control>,
    server: String,
    overview: Arc<Overview>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
) {
    let Some(Control { mut listener, path: _path }) = control else { return std::future::pending().await };
    let service = Arc::new(Service { server, overview, orders, stop });
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                debug!("the control socket accepts no connection: {error}");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            if let Err(error) = service.connection(stream).await {
                debug!("the control socket: {error}");
            }
            drop(permit);
        });
    }
}

struct Service {
    server: String,
    overview: Arc<Overview>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
}

impl Service {
    async fn connection(&self, mut stream: Answering) -> std::io::Result<()> {
        let Some(line) = timeout(LIMIT, read_line(&mut stream, LONGEST_REQUEST)).await?? else { return Ok(()) };
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => self.answer(request).await,
            Err(error) => Answer::Failed { reason: format!("this client does not know the request: {error}") },
        };
        timeout(LIMIT, stream.write_all(&to_line(&answer)?)).await??;
        if answer == Answer::Stopping {
            // The end of the connection tells the other end that the program has ended.
            return std::future::pending().await;
        }
        Ok(())
    }

    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => {
                let tunnels = tokio::select! {
                    tunnels = timeout(LIMIT, self.overview.lines()) => tunnels.unwrap_or_default(),
                    () = self.stop.cancelled() => Vec::new(),
                };
                Answer::Status(ClientLine {
                    pid: std::process::id(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    server: self.server.clone(),
                    stopping: self.stop.is_cancelled(),
                    tunnels,
                })
            }
            Request::Reload if self.stop.is_cancelled() => {
                Answer::Failed { reason: "the client is stopping".to_owned() }
            }
            Request::Reload => {
                let (sender, done) = oneshot::channel();
                let _ended = self.orders.send(Order::Reload(sender)).await;
                match done.await {
                    Ok(Ok(changes)) => Answer::Reloaded { message: changes.to_string(), changes },
                    Ok(Err(NotReloaded(mistakes))) => Answer::NotReloaded { mistakes },
                    Err(_) => Answer::Failed { reason: "the client is stopping".to_owned() },
                }
            }
            Request::Revoke => {
                let (sender, done) = oneshot::channel();
                let _ended = self.orders.send(Order::Revoke(sender)).await;
                match done.await {
                    Ok(Ok(())) => Answer::Revoked,
                    Ok(Err(reason)) => Answer::Failed { reason },
                    Err(_) => Answer::Failed { reason: "the client is stopping".to_owned() },
                }
            }
            Request::Inspector => match self.overview.inspector() {
                Some(inspector) => {
                    Answer::Inspector(Place { address: inspector.address(), token: inspector.token().to_owned() })
                }
                None => Answer::NoInspector,
            },
            Request::Stop => {
                let _ended = self.orders.send(Order::Stop).await;
                Answer::Stopping
            }
        }
    }
}
