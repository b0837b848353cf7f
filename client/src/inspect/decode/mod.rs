//! Takes the bytes of exchanges apart for people. Everything here is pure: no I/O, no locks, no clock.
//!
//! - [`Stream`] reports the messages of an event stream, a WebSocket, a gRPC call or lines of JSON as they pass.
//! - [`body()`] shows a whole body: text, JSON laid out, forms, images, or a dump.
//! - [`Coding`] names the content codings that both undo.
//!
//! Bytes come from visitors and services, so every buffer and every call has a limit.

mod body;
mod charset;
mod coding;
mod codings;
mod event_stream;
mod form;
mod grpc;
mod hex;
mod image;
mod json;
mod kind;
mod lines;
mod media_type;
mod message;
mod stream;
mod trouble;
mod websocket;

pub(crate) use self::body::{BodyLimits, Content, Plain, Shown, body, decoded};
pub(crate) use self::coding::Coding;
pub(crate) use self::form::{Pair, Part, urlencoded};
pub(crate) use self::media_type::MediaType;
pub(crate) use self::message::{Message, MessageKind};
pub(crate) use self::stream::{Kind, Limits, Progress, Stream};
pub(crate) use self::trouble::Trouble;
pub(crate) use self::websocket::Negotiated;

#[cfg(test)]
pub(super) mod tests {
    pub(in super::super) use super::codings::tests::gzip;
}
