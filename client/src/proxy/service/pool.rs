//! Idle HTTP/1.1 connections to the service.
//!
//! A connection waits here together with its driver, which is not polled meanwhile. The exchange that takes the connection
//! polls the driver from its own task. This saves a task for each connection and a hop for each chunk. The price: only an
//! exchange that takes a connection, or the sweep, notices that the service has closed it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::local::Io;
use crate::proxy::body::RequestBody;
use crate::proxy::respond::Interim;

/// The most idle connections. Each may hold a read buffer of a hundred kilobytes, and under a steady load few are idle.
const MAX_IDLE: usize = 64;
/// How long a connection may stay idle: less than services usually allow.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How often the sweep removes closed and old connections.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A connection and its driver.
pub(crate) struct Connection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    driver: Box<http1::Connection<TokioIo<Io>, RequestBody>>,
    /// The driver has ended: the connection is closed, or upgraded.
    ended: bool,
    /// Interim responses that the service has sent.
    pub(crate) interim: Arc<Interim>,
    /// It has carried a request before.
    pub(crate) reused: bool,
}

impl Connection {
    pub(crate) fn new(
        sender: http1::SendRequest<RequestBody>,
        driver: http1::Connection<TokioIo<Io>, RequestBody>,
    ) -> Self {
        Self { sender, driver: Box::new(driver), ended: false, interim: Arc::default(), reused: false }
    }

    /// Lets the connection read and write. Ready once it has ended. The response or its body reports the reason.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ended = self.ended || self.driver.poll_without_shutdown(cx).is_ready();
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// After an upgrade: the bare byte stream, and the bytes already read from it.
    pub(crate) fn into_io(self) -> (Io, Bytes) {
        let parts = self.driver.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    /// Whether another request can be sent.
    fn is_ready(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("reused", &self.reused).finish_non_exhaustive()
    }
}

/// The idle connections, the most recently used last.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    /// An empty pool. A task sweeps it while it exists.
    pub(crate) fn new() -> Arc<Self> {
        let pool = Arc::new(Self { idle: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// Takes the most recently used connection that is still open.
    pub(crate) fn take(&self) -> Option<Connection> {
        loop {
            let (_, mut connection) = self.idle.lock().pop()?;
            if connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection if it can carry another request.
    pub(crate) fn put(&self, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), connection));
        }
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.retain_mut(|(since, connection)| since.elapsed() < IDLE_FOR && connection.is_ready());
    }
}
