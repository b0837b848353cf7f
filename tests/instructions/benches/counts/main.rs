//! The steps of a request, for `tests/counts`: the codec, heads, two multiplexers, and a request from the daemon's end of a
//! session to a service in the client's process and back.

#![expect(clippy::unwrap_used, reason = "in a benchmark, it is the benchmark that fails")]
#![expect(missing_docs, reason = "a macro makes the modules")]

mod heads;
mod multiplexers;
mod session;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use cok_http::hop_by_hop::{strip_request, strip_response};
use cok_proto::frame::{self, Frame};
use cok_proto::{RequestHead, ResponseHead};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::{HeaderMap, StatusCode};

use self::multiplexers::Pair;
use self::session::Session;

/// How often a short step is repeated, so that what surrounds it does not count.
const TIMES: usize = 100;
/// Exchanges at once in a session.
const EXCHANGES: usize = 64;

/// The frames of one exchange in both directions.
fn put_exchange(out: &mut BytesMut, id: u32, request: &RequestHead, response: &ResponseHead, body: &[u8]) {
    frame::put_request(out, id, 0, request, true);
    frame::put_response(out, id, response, false);
    frame::put_data_header(out, id, body.len(), true);
    out.extend_from_slice(body);
    frame::put_window_update(out, id, 128 * 1024);
}

fn exchange_frames() -> Bytes {
    let mut out = BytesMut::new();
    for id in 0..TIMES {
        put_exchange(&mut out, id as u32, &heads::request(), &heads::response(), &[b'x'; 128]);
    }
    out.freeze()
}

#[library_benchmark]
#[bench::of_an_exchange(heads::request(), heads::response(), BytesMut::with_capacity(1 << 20))]
fn encode_frames(request: RequestHead, response: ResponseHead, mut out: BytesMut) -> BytesMut {
    for id in 0..TIMES {
        put_exchange(&mut out, id as u32, black_box(&request), black_box(&response), &[b'x'; 128]);
    }
    out
}

#[library_benchmark]
#[bench::of_an_exchange(exchange_frames())]
fn decode_frames(mut frames: Bytes) {
    while !frames.is_empty() {
        drop(black_box(Frame::decode(&mut frames).unwrap()));
    }
}

#[library_benchmark]
#[bench::of_a_browser(heads::request_bytes())]
fn decode_request(bytes: Bytes) {
    for _ in 0..TIMES {
        drop(black_box(RequestHead::decode(bytes.clone()).unwrap()));
    }
}

#[library_benchmark]
#[bench::of_nginx(heads::response_bytes())]
fn decode_response(bytes: Bytes) {
    for _ in 0..TIMES {
        drop(black_box(ResponseHead::decode(bytes.clone()).unwrap()));
    }
}

#[library_benchmark]
#[bench::of_a_browser(vec![heads::browsers_fields(); TIMES])]
fn strip_requests(all: Vec<HeaderMap>) {
    for mut fields in all {
        strip_request(&mut fields, |_| false);
        drop(black_box(fields));
    }
}

#[library_benchmark]
#[bench::of_nginx(vec![heads::nginx_fields(); TIMES])]
fn strip_responses(all: Vec<HeaderMap>) {
    for mut fields in all {
        strip_response(StatusCode::OK, &mut fields);
        drop(black_box(fields));
    }
}

#[library_benchmark]
#[bench::one_after_the_other(Pair::new(), 1)]
#[bench::at_once(Pair::new(), EXCHANGES)]
fn multiplex(mut pair: Pair, at_once: usize) -> Pair {
    for _ in 0..EXCHANGES / at_once {
        pair.exchange(at_once);
    }
    pair
}

#[library_benchmark]
#[bench::one_after_the_other(Session::new(), 1)]
#[bench::at_once(Session::new(), EXCHANGES)]
fn answer(session: Session, at_once: usize) -> Session {
    for _ in 0..EXCHANGES / at_once {
        session.visit(at_once);
    }
    session
}

library_benchmark_group!(name = codec, benchmarks = [encode_frames, decode_frames]);
library_benchmark_group!(name = head, benchmarks = [decode_request, decode_response, strip_requests, strip_responses]);
library_benchmark_group!(name = mux, benchmarks = multiplex);
library_benchmark_group!(name = request, benchmarks = answer);
main!(library_benchmark_groups = [codec, head, mux, request]);
