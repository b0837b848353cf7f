//! Traffic that passes: heads, bodies of any length in any pieces, trailers, many exchanges at once.

use std::time::Duration;

use bytes::Bytes;
use cok_proto::ResponseHead;
use cok_transport::{OpenError, Received};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::pair::{Ends, MIB, Pair, config, head, noise, ok, read_all, send_all, soon};

#[tokio::test]
async fn a_whole_exchange() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, mut incoming) = pair.exchange(false).await;
    assert_eq!(incoming.head, *head("/"));
    send_all(&mut asked.send, &Bytes::from_static(b"question"), 3).await;
    assert_eq!(read_all(&mut incoming.exchange.recv).await.0, b"question");
    let send = &mut incoming.exchange.send;
    let hint = ResponseHead::new(StatusCode::EARLY_HINTS, HeaderMap::new());
    send.send_response(hint.clone(), false).unwrap();
    send.send_response(ok(), false).unwrap();
    send.ready().await.unwrap();
    send.send_data(Bytes::from_static(b"answer"), false);
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(fields.clone()).unwrap();
    assert_eq!(soon(asked.recv.recv()).await.unwrap(), Received::Head { head: hint, end: false });
    assert_eq!(soon(asked.recv.recv()).await.unwrap(), Received::Head { head: ok(), end: false });
    assert_eq!(read_all(&mut asked.recv).await, (b"answer".to_vec(), Some(fields)));
}

#[tokio::test]
async fn each_chunk_is_passed_on_at_once() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, mut incoming) = pair.exchange(true).await;
    incoming.exchange.send.send_response(ok(), false).unwrap();
    for step in 0..20_u8 {
        incoming.exchange.send.ready().await.unwrap();
        if step == 0 {
            assert!(matches!(soon(asked.recv.recv()).await.unwrap(), Received::Head { .. }));
        }
        incoming.exchange.send.send_data(vec![step].into(), false);
        let received = soon(asked.recv.recv()).await.unwrap();
        assert_eq!(received, Received::Data { data: vec![step].into(), end: false });
    }
}

#[tokio::test]
async fn large_bodies_both_ways_at_once() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, incoming) = pair.exchange(false).await;
    let body = noise(16 * MIB + 7);
    let echo = async {
        let mut exchange = incoming.exchange;
        exchange.send.send_response(ok(), false).unwrap();
        loop {
            let Received::Data { data, end } = soon(exchange.recv.recv()).await.unwrap() else { panic!("no data") };
            soon(exchange.send.ready()).await.unwrap();
            exchange.send.send_data(data, end);
            if end {
                return exchange.send.ready().await.is_ok();
            }
        }
    };
    let upload = async { send_all(&mut asked.send, &body, 50_000).await };
    let (_echoed, (), (received, trailers)) = tokio::join!(echo, upload, read_all(&mut asked.recv));
    assert!(received == body && trailers.is_none());
}

#[tokio::test]
async fn a_finished_body_arrives_after_its_sender_was_dropped() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, incoming) = pair.exchange(true).await;
    let body = noise(3 * MIB);
    let mut exchange = incoming.exchange;
    exchange.send.send_response(ok(), false).unwrap();
    exchange.send.ready().await.unwrap();
    // More than fits into the window.
    exchange.send.send_data(body.clone(), true);
    drop(exchange);
    assert!(read_all(&mut asked.recv).await.0 == body);
}

/// A regression: a session looks after readers that have waited for long. It took the end of a stream for a break when the
/// reader came at that moment and had read all but the last frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn responses_that_come_late_arrive_whole() {
    let (pair, _ends) = Pair::new().await;
    for _ in 0..10 {
        let mut readers = Vec::new();
        for number in 0..200 {
            let (mut asked, incoming) = pair.exchange(true).await;
            readers.push(tokio::spawn(async move {
                let head = asked.recv.recv().await;
                assert!(matches!(head, Ok(Received::Head { .. })), "{head:?}");
                // What follows a head is read a little later. The session may look in between.
                tokio::time::sleep(Duration::from_millis(2)).await;
                (read_all(&mut asked.recv).await.0, asked)
            }));
            let mut exchange = incoming.exchange;
            tokio::spawn(async move {
                // The service takes longer than the 50 ms after which a session looks.
                tokio::time::sleep(Duration::from_millis(60 + number % 100)).await;
                exchange.send.send_response(ok(), false).unwrap();
                exchange.send.send_data(Bytes::from_static(b"answer"), true);
            });
        }
        for reader in readers {
            assert_eq!(soon(reader).await.unwrap().0, b"answer");
        }
    }
}

#[tokio::test]
async fn stalled_readers_do_not_hold_up_others() {
    let ends = Ends::new();
    let pair = ends.session(config()).await;
    let body = noise(4 * MIB);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let (asked, incoming) = pair.exchange(true).await;
        let body = body.clone();
        tokio::spawn(async move {
            let mut send = incoming.exchange.send;
            send.send_response(ok(), false).unwrap();
            while send.ready().await.is_ok() {
                send.send_data(body.clone(), false);
            }
        });
        stalled.push(asked);
    }
    for _ in 0..4 {
        let (mut asked, incoming) = pair.exchange(true).await;
        let mut send = incoming.exchange.send;
        send.send_response(ok(), false).unwrap();
        let ((), (received, _)) = tokio::join!(send_all(&mut send, &body, 100_000), read_all(&mut asked.recv));
        assert!(received == body);
    }
    drop(stalled);
}

#[tokio::test]
async fn exchanges_wait_while_no_stream_is_granted() {
    let ends = Ends::new();
    // The daemon may open more than the client grants streams at first.
    let pair = ends.session(cok_transport::Config { max_exchanges: 3000, ..config() }).await;
    let asked: Vec<_> = (0..3000).map(|_| pair.daemon.open(0, head("/"), true).unwrap()).collect();
    assert!(matches!(pair.daemon.open(0, head("/"), true), Err(OpenError::Saturated)));
    let client = pair.client.clone();
    tokio::spawn(async move {
        while let Some(mut incoming) = client.accept().await {
            incoming.exchange.send.send_response(ok(), true).unwrap();
        }
    });
    for mut exchange in asked {
        assert!(read_all(&mut exchange.recv).await.0.is_empty());
    }
}

#[tokio::test]
async fn an_unwanted_upload_stops_and_the_response_goes_on() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, incoming) = pair.exchange(false).await;
    let cok_transport::ExchangeHalves { mut send, recv } = incoming.exchange;
    drop(recv);
    let stopped = soon(std::future::poll_fn(|cx| asked.send.poll_broken(cx))).await;
    assert_eq!(stopped, cok_transport::ExchangeError::Reset(cok_proto::ResetCode::NoError));
    send.send_response(ok(), false).unwrap();
    send_all(&mut send, &Bytes::from_static(b"enough"), 10).await;
    assert_eq!(read_all(&mut asked.recv).await.0, b"enough");
}
