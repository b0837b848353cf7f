//! HTTP/2 connections to the service. Many exchanges share one, and a task of its own drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Ping;
use h2::client::{Builder, SendRequest};
use http::uri::Scheme;
use parking_lot::Mutex;
use tracing::debug;

use super::wire::Wire;

/// The window of one stream: enough within one machine or network. It bounds what a stalled visitor can hold.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The window of a connection: the widest that there is (RFC 9113, section 6.9.1). With less, a few stalled visitors would
/// stop all others. The streams' windows are the bound.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// The bytes of a request's body that may wait in one stream for the socket.
const SEND_BUFFER: usize = 64 * 1024;
/// The longest header list that is read. The tunnel carries less.
const HEADER_LIST: u32 = 128 * 1024;
/// The most connections at once. Another one is opened when all have as many streams as the service allows.
const MAX_CONNECTIONS: usize = 8;

/// All connections that take new streams.
#[derive(Debug, Default)]
pub(crate) struct H2Pool {
    links: Mutex<Vec<Link>>,
}

#[derive(Debug)]
struct Link {
    sender: SendRequest<Bytes>,
    /// The number of exchanges that use it. The address of this counter identifies the connection.
    active: Arc<AtomicUsize>,
}

impl H2Pool {
    /// A place on a connection; `None` if another connection should be opened.
    pub(crate) fn lease(self: &Arc<Self>, scheme: &Scheme) -> Option<Lease> {
        let links = self.links.lock();
        let roomy =
            links.iter().find(|link| link.active.load(Ordering::Relaxed) < link.sender.current_max_send_streams());
        // With all connections open and full, the exchange queues on the least busy one.
        let queue = || {
            let least_busy = links.iter().min_by_key(|link| link.active.load(Ordering::Relaxed));
            least_busy.filter(|_| links.len() >= MAX_CONNECTIONS)
        };
        roomy.or_else(queue).map(|link| Lease::new(self.clone(), link, scheme.clone()))
    }

    /// Starts HTTP/2 on a fresh wire.
    pub(super) async fn open(self: &Arc<Self>, wire: Wire, scheme: &Scheme) -> Result<Lease, h2::Error> {
        let (sender, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .enable_push(false)
            .handshake(wire)
            .await?;
        let ping = connection.ping_pong();
        let link = Link { sender, active: Arc::default() };
        let lease = Lease::new(self.clone(), &link, scheme.clone());
        let (pool, active) = (Arc::downgrade(self), link.active.clone());
        tokio::spawn(async move {
            match connection.await {
                Ok(()) => debug!("the HTTP/2 connection to the service ended"),
                Err(error) => debug!(%error, "the HTTP/2 connection to the service ended: {error}"),
            }
            if let Some(pool) = pool.upgrade() {
                pool.forget(&active);
            }
        });
        // The service sends its settings first. So after its answer to a ping, the limit of streams is known.
        if let Some(mut ping) = ping {
            ping.ping(Ping::opaque()).await?;
        }
        self.links.lock().push(link);
        Ok(lease)
    }

    fn forget(&self, active: &Arc<AtomicUsize>) {
        self.links.lock().retain(|link| !Arc::ptr_eq(&link.active, active));
    }
}

/// A place for one exchange on a connection, for as long as it is held.
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<Bytes>,
    pool: Arc<H2Pool>,
    active: Arc<AtomicUsize>,
    scheme: Scheme,
}

impl Lease {
    fn new(pool: Arc<H2Pool>, link: &Link, scheme: Scheme) -> Self {
        link.active.fetch_add(1, Ordering::Relaxed);
        Self { sender: link.sender.clone(), pool, active: link.active.clone(), scheme }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme.clone()
    }

    /// Takes the connection out of the pool, since it takes no more streams.
    pub(crate) fn forget(&self) {
        self.pool.forget(&self.active);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}
