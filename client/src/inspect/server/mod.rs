//! The inspector's server, on a thread and a runtime of its own: what a page asks for takes no time from the tunnels' tasks.
//!
//! `guard` decides who is answered, `api` answers with what `view` makes of captured exchanges, `events` follows them, and
//! `page` is what a browser shows.

mod api;
mod archive;
mod events;
mod guard;
mod page;
mod query;
mod reply;
mod state;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::inspect::shared::Shared;

/// The most connections at once. A browser opens six to one host.
const MAX_CONNECTIONS: usize = 64;
/// The most time for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The wait after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The threads that decode bodies and read the disk for viewers.
const MAX_VIEWERS: usize = 4;

/// Answers until `stop`.
pub(super) fn start(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_VIEWERS)
        .thread_name("inspector-view")
        .build()?;
    thread::Builder::new().name("inspector-page".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(listener, shared) => {}
            }
        });
        // A viewer may still read the disk.
        runtime.shutdown_background();
    })?;
    Ok(())
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    connection(stream, shared).await;
                    drop(permit);
                });
            }
            Err(error) => {
                debug!("the inspector accepts no connection: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _slower = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(api::answer(shared, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!("a connection to the inspector ended: {error}");
    }
}
