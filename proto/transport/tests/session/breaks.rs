//! Bodies that break off: everything that was sent before arrives, then the failure.

use std::future::poll_fn;

use bytes::Bytes;
use cok_proto::{ConnectAck, DrainReason, ResetCode};
use cok_transport::{CloseReason, ExchangeError, ExchangeHalves, Received, RecvHalf, SendHalf};

use crate::carried::{CARRIED, Session};
use crate::pair::{LIMIT, ack, connect, head, noise, ok, soon};

/// Lengths within the first window and far beyond it.
const LENGTHS: [usize; 3] = [1, 100_000, 3_000_000];

/// Sends a body, breaks it off and leaves.
async fn send_and_break(mut send: Box<dyn SendHalf>, body: &Bytes, code: ResetCode) {
    for start in (0..body.len()).step_by(40_000) {
        soon(send.ready()).await.unwrap();
        send.send_data(body.slice(start..body.len().min(start + 40_000)), false);
    }
    send.break_off(code);
}

/// The body up to where it broke off, and the error.
async fn read_to_break(recv: &mut Box<dyn RecvHalf>) -> (Vec<u8>, ExchangeError) {
    let mut body = Vec::new();
    loop {
        match soon(recv.recv()).await {
            Ok(Received::Data { data, end }) => {
                assert!(!end, "what broke off must not look whole");
                body.extend_from_slice(&data);
            }
            Ok(part) => assert!(matches!(part, Received::Head { end: false, .. })),
            Err(error) => return (body, error),
        }
    }
}

#[tokio::test]
async fn the_last_words_of_a_service_arrive() {
    for by in CARRIED {
        let session = Session::new(by).await;
        for body in LENGTHS.map(noise) {
            let (asked, incoming) = session.exchange(0).await;
            let ExchangeHalves { mut recv, send: _upload } = asked;
            let ExchangeHalves { mut send, recv: request } = incoming.exchange;
            let serve = async {
                send.send_response(ok(), false).unwrap();
                send_and_break(send, &body, ResetCode::LocalBroken).await;
                drop(request);
            };
            let ((), (received, error)) = tokio::join!(serve, read_to_break(&mut recv));
            assert!(received == body, "{by:?}: {} of {} bytes", received.len(), body.len());
            assert_eq!(error, ExchangeError::Reset(ResetCode::LocalBroken), "{by:?}");
        }
    }
}

#[tokio::test]
async fn a_response_whose_sender_leaves_arrives_up_to_there() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let (mut asked, incoming) = session.exchange(0).await;
        let mut send = incoming.exchange.send;
        send.send_response(ok(), false).unwrap();
        soon(send.ready()).await.unwrap();
        send.send_data(Bytes::from_static(b"words"), false);
        drop((send, incoming.exchange.recv));
        let expected = (b"words".to_vec(), ExchangeError::Reset(ResetCode::LocalBroken));
        assert_eq!(read_to_break(&mut asked.recv).await, expected, "{by:?}");
    }
}

#[tokio::test]
async fn a_service_gets_what_a_visitor_sent_before_it_left() {
    for by in CARRIED {
        for body in LENGTHS.map(noise) {
            let session = Session::begin(by, &connect(), &[], &ConnectAck { max_exchanges: 1, ..ack() }, &[]).await;
            let (asked, incoming) = session.exchange(0).await;
            let ExchangeHalves { mut send, mut recv } = incoming.exchange;
            let visit = async {
                send_and_break(asked.send, &body, ResetCode::Cancelled).await;
                drop(asked.recv);
            };
            let ((), (received, error)) = tokio::join!(visit, read_to_break(&mut recv));
            assert!(received == body, "{by:?}: {} of {} bytes", received.len(), body.len());
            assert_eq!(error, ExchangeError::Reset(ResetCode::Cancelled), "{by:?}");
            let broken = soon(poll_fn(|cx| send.poll_broken(cx))).await;
            assert_eq!(broken, ExchangeError::Reset(ResetCode::Cancelled), "{by:?}: the response is not wanted");
            drop((send, recv));
            // The only place is free again.
            let free = async {
                let next = loop {
                    match session.daemon.open(0, head("/"), true) {
                        Ok(next) => break next,
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                let _incoming = session.client.accept().await.unwrap();
                drop(next);
            };
            soon(free).await;
        }
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_frees_a_response_that_broke_off_and_waits() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let (asked, incoming) = session.exchange(0).await;
        let ExchangeHalves { mut send, recv } = incoming.exchange;
        send.send_response(ok(), false).unwrap();
        soon(send.ready()).await.unwrap();
        send.send_data(noise(3_000_000), false);
        send.break_off(ResetCode::LocalBroken);
        drop((send, recv));
        session.client.drain(DrainReason::Shutdown, LIMIT);
        tokio::task::yield_now().await;
        assert!(!matches!(*session.client.status().borrow(), cok_transport::Status::Closed(_)), "{by:?}");
        drop(asked);
        assert_eq!(soon(session.client.closed()).await, CloseReason::Drained, "{by:?}");
    }
}

#[tokio::test]
async fn nothing_follows_a_break() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let (mut asked, incoming) = session.exchange(0).await;
        let ExchangeHalves { mut send, recv: _request } = incoming.exchange;
        send.send_response(ok(), false).unwrap();
        soon(send.ready()).await.unwrap();
        send.send_data(Bytes::from_static(b"words"), false);
        send.break_off(ResetCode::NoError);
        send.send_data(Bytes::from_static(b"more"), true);
        send.break_off(ResetCode::LocalBroken);
        let expected = (b"words".to_vec(), ExchangeError::Reset(ResetCode::Cancelled));
        assert_eq!(read_to_break(&mut asked.recv).await, expected, "{by:?}");
        assert_eq!(soon(asked.recv.recv()).await, Err(expected.1), "{by:?}");
    }
}
