//! The decoders of an exchange that carries messages, one for each direction.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderMap, HeaderValue};

use super::decode::{self, Coding, Limits, Message, Negotiated, Progress, Stream};
use super::kind::Kind;
use super::live::Side;

/// The decoders of one exchange.
#[derive(Debug)]
pub(super) struct Decoders {
    kind: Kind,
    request: Option<Stream>,
    response: Option<Stream>,
    /// Why a direction has no decoder.
    trouble: Option<String>,
}

/// The state of an exchange's decoders, for viewers.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoding {
    /// What they take in memory.
    pub(super) memory: usize,
    /// Why messages of a direction are not found any more.
    pub(super) trouble: Option<String>,
}

impl Decoders {
    /// None yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, request: None, response: None, trouble: None }
    }

    /// Whether raw bytes pass in place of bodies.
    pub(super) fn is_upgraded(&self) -> bool {
        matches!(self.kind, Kind::WebSocket | Kind::Upgrade)
    }

    /// Begins with the request's direction, whose head has these fields.
    pub(super) fn request(&mut self, fields: &HeaderMap) {
        self.request = self.body(fields);
    }

    /// Begins with the response's direction, whose head has these fields. Both directions of a WebSocket begin here.
    pub(super) fn response(&mut self, fields: &HeaderMap) {
        match self.kind {
            Kind::WebSocket => {
                let extensions = fields.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
                let negotiated = Negotiated::from_response(extensions);
                let stream = |deflate| Some(Stream::new(&decode::Kind::WebSocket(deflate), &[], Limits::default()));
                self.request = stream(negotiated.as_ref().map(|both| both.client));
                self.response = stream(negotiated.as_ref().map(|both| both.server));
            }
            Kind::Upgrade => {}
            Kind::EventStream | Kind::Grpc | Kind::JsonLines => self.response = self.body(fields),
        }
    }

    /// What finds the messages of a body.
    fn body(&mut self, fields: &HeaderMap) -> Option<Stream> {
        let named = |name| fields.get(name).map(HeaderValue::as_bytes);
        let encoding = named("grpc-encoding").or_else(|| named("connect-content-encoding"));
        let kind = decode::Kind::of_body(named(CONTENT_TYPE.as_str())?, encoding)?;
        match Coding::list(fields.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes)) {
            Ok(codings) => Some(Stream::new(&kind, &codings, Limits::default())),
            Err(trouble) => {
                self.trouble = Some(trouble.to_string());
                None
            }
        }
    }

    fn side(&mut self, side: Side) -> Option<&mut Stream> {
        match side {
            Side::Request => self.request.as_mut(),
            Side::Response => self.response.as_mut(),
        }
    }

    /// Takes bytes off the input, and adds messages that they complete. It is to be called until it is done.
    pub(super) fn push(&mut self, side: Side, input: &mut &[u8], messages: &mut Vec<Message>) -> Progress {
        match self.side(side) {
            Some(stream) => stream.push(input, messages),
            None => Progress::Done,
        }
    }

    /// Ends a direction. Returns what was incomplete.
    pub(super) fn end(&mut self, side: Side) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(stream) = self.side(side) {
            stream.end(&mut messages);
        }
        messages
    }

    /// Their state.
    pub(super) fn state(&self) -> Decoding {
        let streams = || self.request.iter().chain(&self.response);
        let trouble = streams().find_map(Stream::trouble).map(ToString::to_string);
        Decoding { memory: streams().map(Stream::memory).sum(), trouble: trouble.or_else(|| self.trouble.clone()) }
    }
}
