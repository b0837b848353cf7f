//! Visitors over HTTP/3 (RFC 9114): one connection after its QUIC handshake, requests handed to the same `service` as
//! over the other versions.
//!
//! quinn carries the streams, the guard in `frames` and `fields` bounds and judges what comes in on them, and h3 decodes
//! what is left; `quic` says what it gets to see. One task accepts, and each request has one of its own (`request`).

mod account;
mod body;
mod fields;
mod frames;
mod quic;
mod request;
mod request_state;
mod unidirectional;
mod violation;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError};
use h3::server;
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use self::account::Account;
use self::quic::{Adapter, Control, Half};
use self::violation::wire;
use super::lifecycle::{Action, Lifecycle, Protocol};
use super::parts::{Config, Edge};
use super::visitor::{Arrival, Peer, Visitor};
use crate::exchanges::Leash;

/// Requests at once on one connection; fewer would be too few (RFC 9114, section 6.1), and each that might be costs
/// half a kilobyte.
const STREAMS: u32 = 100;
/// How much of all requests' bodies may be under way, in initial windows: 4 MiB by default, as over HTTP/2. Of one it may
/// be a quarter (the stream's window, which is QUIC's for tunnels too), so that one upload starves no other.
const CONNECTION_WINDOW: u32 = 16;
/// Streams of our own: control, and two of QPACK.
const OWN_STREAMS: usize = 3;
/// How long a GOAWAY may take to be written.
const GOAWAY_LIMIT: Duration = Duration::from_secs(5);

/// h3's side of a connection.
type H3 = server::Connection<Adapter, Bytes>;

/// Serves one visitor's connection to its end. It holds its permit for as long as anything of it is left.
pub(crate) async fn serve(edge: Arc<Edge>, connection: Connection, arrival: Arrival) {
    let Arrival { permit, present, fresh } = arrival;
    let peer = connection.remote_address();
    let visitor = Visitor::new(edge, Peer::Moving(connection.clone()), permit, present);
    let config = Arc::clone(&visitor.edge.config());
    let opened = tokio::time::timeout(config.handshake_timeout, open(&connection, &config)).await;
    let ended = match opened {
        Ok(Ok(h3)) => {
            let served = Served { visitor: visitor.clone(), connection: connection.clone(), h3 }.run(fresh);
            visitor.end.run_until_cancelled(served).await.unwrap_or(Ok(()))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(()),
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "visitor's connection ended: {error}");
    }
    connection.close(wire(Code::H3_NO_ERROR), b"");
}

/// Opens our streams and says our settings.
async fn open(connection: &Connection, config: &Config) -> Result<H3, Box<dyn std::error::Error + Send + Sync>> {
    connection.set_receive_window(VarInt::from_u32(config.initial_window.saturating_mul(CONNECTION_WINDOW)));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
    let mut own = VecDeque::with_capacity(OWN_STREAMS);
    while own.len() < OWN_STREAMS {
        own.push_back(connection.open_uni().await?);
    }
    let mut builder = server::builder();
    builder.max_field_section_size(config.max_header_bytes.into()).send_grease(false);
    Ok(builder.build(Adapter::new(connection.clone(), own)).await?)
}

/// A connection that is served.
struct Served {
    visitor: Arc<Visitor>,
    connection: Connection,
    h3: H3,
}

/// What happens on a connection.
enum Event {
    Request(quinn::SendStream, quinn::RecvStream),
    Control(Control),
    /// The lifecycle asks for something.
    Due(Action),
    /// All requests are through.
    AllAnswered,
    Lost(quinn::ConnectionError),
    /// h3 has found something wrong, and closed the connection.
    Refused(ConnectionError),
}

impl Served {
    async fn run(mut self, fresh: TaskTrackerToken) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (sender, mut controls) = mpsc::channel(1);
        let account = Account::new();
        tokio::spawn(unidirectional::accept(self.connection.clone(), sender, account.clone()));
        let mut lifecycle = Lifecycle::new(&self.visitor, Protocol::Http3, fresh);
        let requests = TaskTracker::new();
        loop {
            let event = tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((send, recv)) => Event::Request(send, recv),
                    Err(error) => Event::Lost(error),
                },
                Some(control) = controls.recv() => Event::Control(control),
                // No request was offered, so this can only fail.
                refused = self.h3.accept() => match refused {
                    Ok(_) => continue,
                    Err(error) => Event::Refused(error),
                },
                action = poll_fn(|cx| lifecycle.poll(cx)) => Event::Due(action),
                () = requests.wait(), if lifecycle.has_requests() => Event::AllAnswered,
            };
            match event {
                // The visitor knows that this one was not looked at, and may send it elsewhere.
                Event::Request(mut send, mut recv) if lifecycle.is_finishing() => {
                    let _ = send.reset(wire(Code::H3_REQUEST_REJECTED));
                    let _ = recv.stop(wire(Code::H3_REQUEST_REJECTED));
                }
                Event::Request(send, recv) => {
                    lifecycle.asked();
                    let half = Half::new(send.id());
                    self.h3.inner.conn.offer_request(half.clone());
                    let Some(resolver) = self.h3.accept().await? else { return Ok(()) };
                    let connection = self.connection.clone();
                    let account = account.clone();
                    let stream = request::Stream { resolver, half, send, recv, connection, account };
                    let leash = Leash::of_stream(&self.visitor.end);
                    let served = Box::pin(request::serve(self.visitor.clone(), stream, leash.clone()));
                    requests.spawn(async move { leash.hold(served).await });
                }
                // h3 reads it when it is polled next.
                Event::Control(control) => self.h3.inner.conn.offer_control(control),
                // Without a first request, h3 knows no other id than that of the first.
                Event::Due(Action::Announce) => self.goaway(usize::MAX).await?,
                // The id is that of the first request that will not be served.
                Event::Due(Action::Finish) => self.goaway(1).await?,
                Event::Due(Action::Abandon | Action::Close) => return Ok(()),
                Event::AllAnswered => lifecycle.all_answered(),
                Event::Lost(error) => return Err(error.into()),
                Event::Refused(error) => return Err(error.into()),
            }
            if lifecycle.is_finishing() {
                requests.close();
            }
        }
    }

    async fn goaway(&mut self, requests: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(tokio::time::timeout(GOAWAY_LIMIT, self.h3.shutdown(requests)).await??)
    }
}
