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

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(super) use self::stream::Stream;
pub(super) use self::verdicts::{Judged, Verdicts};
use super::unread::Timed;
use crate::host::flushes::Flushing;

/// The TLS connection below an upgraded one, and what was read from it already.
pub(super) fn unwrap(upgraded: Upgraded) -> Option<(TlsStream<TcpStream>, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<Stream<Flushing<Timed>>>>().ok()?;
    let (stream, held) = parts.io.into_inner().into_inner();
    Some((stream.into_inner()?.into_inner(), [&parts.read_buf[..], &held].concat()))
}
