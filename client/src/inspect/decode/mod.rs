//! Takes the bytes of exchanges apart for people. Everything here is pure: no I/O, no locks, no clock.
//!
//! - [`Stream`] reports the messages of an event stream, a WebSocket, a gRPC call or lines of JSON as they pass.
//! - [`Coding`] names the content codings that both undo.
//!
//! Bytes come from visitors and services, so every buffer and every call has a limit.

mod codings;
mod event_stream;
mod grpc;
mod lines;
mod message;
mod stream;
mod trouble;
mod websocket;

pub(crate) use self::codings::Coding;
pub(crate) use self::message::{Message, MessageKind};
pub(crate) use self::stream::{Kind, Limits, Progress, Stream};
pub(crate) use self::trouble::Trouble;
pub(crate) use self::websocket::{Negotiated, PerMessageDeflate};
