//! Encodes any frame, for tests that go from frames to bytes and back. The crate has one function for each type.

use bytes::{BufMut, BytesMut};
use cok_proto::frame::{self, Frame, FrameType, MAX_REQUEST_HEAD, MAX_RESPONSE_HEAD};
use cok_proto::head::fields_len;

/// Appends `frame`. `false` if it has no encoding: it is a skipped frame, or its head is too large.
pub(crate) fn encode(out: &mut BytesMut, frame: &Frame) -> bool {
    match frame {
        Frame::Connect(message) => frame::put_json(out, FrameType::Connect, message),
        Frame::ConnectAck(message) => frame::put_json(out, FrameType::ConnectAck, message),
        Frame::Drain(message) => frame::put_json(out, FrameType::Drain, message),
        Frame::Error(message) => frame::put_json(out, FrameType::Error, message),
        Frame::Tunnel { id, frame } => frame::put_tunnel(out, *id, frame),
        Frame::Request { id, tunnel, head, end }
            if head.encoded_len().is_ok_and(|length| length <= MAX_REQUEST_HEAD) =>
        {
            frame::put_request(out, *id, *tunnel, head, *end);
        }
        Frame::Response { id, head, end } if head.encoded_len().is_ok_and(|length| length <= MAX_RESPONSE_HEAD) => {
            frame::put_response(out, *id, head, *end);
        }
        Frame::Trailers { id, fields } if fields_len(fields).is_ok_and(|length| length <= MAX_RESPONSE_HEAD) => {
            frame::put_trailers(out, *id, fields);
        }
        Frame::Data { id, body, end } => {
            frame::put_data_header(out, *id, body.len(), *end);
            out.put_slice(body);
        }
        Frame::Reset { id, code } => frame::put_reset(out, *id, *code),
        Frame::Break { id, code } => frame::put_break(out, *id, *code),
        Frame::WindowUpdate { id, increment } => frame::put_window_update(out, *id, *increment),
        Frame::Ping(opaque) => frame::put_ping(out, *opaque),
        Frame::Pong(opaque) => frame::put_pong(out, *opaque),
        Frame::Request { .. } | Frame::Response { .. } | Frame::Trailers { .. } | Frame::Skipped { .. } => {
            return false;
        }
    }
    true
}
