//! The Close frame of a visitor's WebSocket.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cok_proto::head::HeadTooLarge;
use cok_proto::{ResetCode, ResponseHead};
use cok_transport::{ExchangeError, Received};
use tokio::io::{AsyncReadExt as _, duplex};

use super::*;
use crate::drain::{Config, Drain, Phase};

/// Both halves of an exchange in which nothing happens.
#[derive(Debug)]
struct Silent;

impl RecvHalf for Silent {
    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        Poll::Pending
    }

    fn reset(&mut self, _code: ResetCode) {}
}

impl SendHalf for Silent {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<ExchangeError> {
        Poll::Pending
    }

    fn send_response(&mut self, _head: ResponseHead, _end: bool) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn send_data(&mut self, _data: Bytes, _end: bool) {}

    fn send_trailers(&mut self, _fields: HeaderMap) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn break_off(&mut self, _code: ResetCode) {}

    fn reset(&mut self, _code: ResetCode) {}
}

#[test]
fn the_visitor_gets_one_close_frame_in_the_farewell_phase() {
    let drain = Drain::new(Config::default());
    let (near, mut far) = duplex(1024);
    let mut carried = pin!(carry(near, Box::new(Silent), Box::new(Silent), Some(drain.watch(Phase::Farewell))));
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    assert!(carried.as_mut().poll(&mut cx).is_pending());
    assert!(pin!(far.read_buf(&mut seen)).poll(&mut cx).is_pending(), "nothing before the phase");
    drain.enter(Phase::Farewell);
    assert!(carried.as_mut().poll(&mut cx).is_pending(), "the service may still answer");
    assert!(matches!(pin!(far.read_buf(&mut seen)).poll(&mut cx), Poll::Ready(Ok(_))));
    assert!(carried.as_mut().poll(&mut cx).is_pending());
    assert!(pin!(far.read_buf(&mut seen)).poll(&mut cx).is_pending(), "once is enough");
    assert_eq!(seen, going_away(RESTARTING));
}
