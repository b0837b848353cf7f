//! Requests in the forms of other tools: a line for curl, and HAR.

mod curl;
mod har;

use std::time::{Duration, SystemTime};

use super::decode::Message;

pub(crate) use self::curl::{NoCurl, curl};
pub(crate) use self::har::{begin, end, entry};

/// A request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange<'a> {
    /// Its number.
    pub(crate) id: u64,
    /// The name of its tunnel.
    pub(crate) tunnel: Option<&'a str>,
    /// When it began.
    pub(crate) began: SystemTime,
    /// The request.
    pub(crate) request: Request<'a>,
    /// The response, once its head has come.
    pub(crate) response: Option<Response<'a>>,
    /// Where the time went.
    pub(crate) timings: Timings,
    /// Why it broke off.
    pub(crate) failure: Option<&'a str>,
    /// The protocol between client and service, such as `HTTP/1.1`.
    pub(crate) protocol: Option<&'a str>,
    /// The trace that it belongs to.
    pub(crate) trace_id: Option<&'a str>,
    /// The number of the request that it repeats.
    pub(crate) replay_of: Option<u64>,
    /// Its messages, if it carries some.
    pub(crate) messages: &'a [Passed<'a>],
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// Scheme and authority of the public address, such as `https://demo.example.com`.
    pub(crate) origin: &'a str,
    /// Path and query, or `*`.
    pub(crate) target: &'a [u8],
    /// What was sent behind it.
    pub(crate) content: Half<'a>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// The reason phrase, if it has one.
    pub(crate) reason: &'a [u8],
    /// What was sent behind it.
    pub(crate) content: Half<'a>,
}

/// Fields and body of a request or a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Half<'a> {
    /// The fields in their order.
    pub(crate) fields: Vec<Field<'a>>,
    /// The fields behind the body.
    pub(crate) trailers: Vec<Field<'a>>,
    /// The body as it passed, as far as it was captured.
    pub(crate) body: &'a [u8],
    /// The length of the body as it passed.
    pub(crate) size: u64,
    /// All of the body was captured.
    pub(crate) is_whole: bool,
}

/// A field of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its value.
    pub(crate) value: &'a [u8],
}

/// Where the time went. What is not known is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timings {
    /// Until the service had the request.
    pub(crate) request: Option<Duration>,
    /// From there to the first byte of the response.
    pub(crate) service: Option<Duration>,
    /// From there to the end.
    pub(crate) response: Option<Duration>,
    /// All of it.
    pub(crate) total: Duration,
}

/// A message and its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed<'a> {
    /// It came from the visitor.
    pub(crate) is_from_visitor: bool,
    /// When it passed.
    pub(crate) at: SystemTime,
    /// The message.
    pub(crate) message: &'a Message,
}

impl<'a> Half<'a> {
    /// The values of the fields with this name, which is in lower case.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The type of its content. Empty if it has none.
    fn content_type(&self) -> &'a [u8] {
        self.values("content-type").next().unwrap_or_default()
    }
}
