//! HTTP/1.1 as it comes: a layer between TLS and the HTTP library, which judges the bytes of each request before the
//! library tidies them.
//!
//! The layer finds where each message ends by itself ([`head`], [`chunks`]), and hands one message after the other to the
//! library. A faulty head never gets there: the library sees a [harmless one](head::stand_in) in its place, and the
//! service gets the verdict through [`Verdicts`]. Of a connection whose framing is in doubt nothing more is read.

mod chunks;
mod head;
mod stream;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::stream::Stream;
pub(super) use self::verdicts::{Judged, Verdicts};
use super::unread::Timed;
use crate::host::flushes::{Flushes, Flushing};

/// A visitor's connection under the HTTP library.
pub(super) type Io = Stream<Flushing<Timed>>;

/// Judges the requests on a fresh connection. `max_head` is the longest head in bytes, and `head_limit` the time from a head's
/// first byte to its last. Boxed: the library takes it and gives it back.
pub(super) fn judged(
    stream: Timed,
    flushes: Flushes,
    max_head: usize,
    head_limit: Duration,
    verdicts: Arc<Verdicts>,
) -> Box<Io> {
    Box::new(Stream::new(Flushing::new(stream, flushes), max_head, verdicts).within(head_limit))
}

/// The TLS connection below an upgraded one, and what was read from it already.
pub(super) fn unwrap(upgraded: Upgraded) -> Option<(TlsStream<TcpStream>, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<Box<Io>>>().ok()?;
    let (stream, held) = parts.io.into_inner().into_inner();
    Some((stream.into_inner()?.into_inner(), [&parts.read_buf[..], &held].concat()))
}
