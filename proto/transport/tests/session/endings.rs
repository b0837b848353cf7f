//! How exchanges and sessions end.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use cok_proto::{Drain, DrainReason, ErrorCode, ErrorMessage, ResetCode, SessionError};
use cok_transport::{CloseReason, ExchangeError, HandshakeError, OpenError, Received, Status, quic};

use crate::pair::{Ends, LIMIT, Pair, config, connect, head, noise, ok, read_all, send_all, soon};

#[tokio::test]
async fn both_handles_learn_that_a_visitor_left() {
    let (pair, _ends) = Pair::new().await;
    let (asked, incoming) = pair.exchange(false).await;
    let cok_transport::ExchangeHalves { mut send, mut recv } = incoming.exchange;
    send.send_response(ok(), false).unwrap();
    soon(send.ready()).await.unwrap();
    drop(asked);
    assert_eq!(soon(recv.recv()).await, Err(ExchangeError::Reset(ResetCode::Cancelled)));
    let broken = soon(poll_fn(|cx| send.poll_broken(cx))).await;
    assert_eq!(broken, ExchangeError::Reset(ResetCode::Cancelled));
    let (mut asked, mut incoming) = pair.exchange(true).await;
    incoming.exchange.send.send_response(ok(), true).unwrap();
    assert!(read_all(&mut asked.recv).await.0.is_empty());
}

#[tokio::test]
async fn the_reset_code_of_a_failed_service_reaches_the_daemon() {
    let (pair, _ends) = Pair::new().await;
    for code in [ResetCode::LocalRefused, ResetCode::LocalTimeout, ResetCode::TooLarge, ResetCode::Other(77)] {
        let (mut asked, incoming) = pair.exchange(false).await;
        let mut exchange = incoming.exchange;
        exchange.send.reset(code);
        assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::Reset(code)));
        assert_eq!(soon(poll_fn(|cx| asked.send.poll_broken(cx))).await, ExchangeError::Reset(code));
        // The other handle on our side gets the code too.
        assert_eq!(soon(exchange.recv.recv()).await, Err(ExchangeError::Reset(code)));
    }
    let (mut asked, incoming) = pair.exchange(true).await;
    drop(incoming);
    assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::Reset(ResetCode::LocalBroken)));
}

#[tokio::test]
async fn a_drained_session_ends_once_its_exchanges_have() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, incoming) = pair.exchange(true).await;
    pair.daemon.drain(DrainReason::Restart, LIMIT);
    assert!(matches!(pair.daemon.open(0, head("/"), true), Err(OpenError::Unavailable)));
    let mut status = pair.client.status();
    let draining = soon(status.wait_for(|status| *status != Status::Open)).await.unwrap().clone();
    let Status::Draining(Drain { reason: DrainReason::Restart, last_exchange: Some(1), .. }) = draining else {
        panic!("{draining:?}");
    };
    let body = noise(3_000_000);
    let mut send = incoming.exchange.send;
    send.send_response(ok(), false).unwrap();
    let ((), (received, _)) = tokio::join!(send_all(&mut send, &body, 40_000), read_all(&mut asked.recv));
    assert!(received == body);
    drop((asked, send, incoming.exchange.recv));
    assert_eq!(soon(pair.daemon.closed()).await, CloseReason::Drained);
    assert_eq!(soon(pair.client.closed()).await, CloseReason::Drained);
    assert!(soon(pair.client.accept()).await.is_none());
}

#[tokio::test]
async fn a_draining_client_takes_nothing_new_and_finishes_open_exchanges() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, incoming) = pair.exchange(true).await;
    pair.client.drain(DrainReason::Shutdown, LIMIT);
    soon(pair.daemon.status().wait_for(|status| *status != Status::Open)).await.unwrap();
    assert!(matches!(pair.daemon.open(0, head("/"), true), Err(OpenError::Unavailable)));
    let mut exchange = incoming.exchange;
    exchange.send.send_response(ok(), false).unwrap();
    send_all(&mut exchange.send, &Bytes::from_static(b"late"), 4).await;
    assert_eq!(read_all(&mut asked.recv).await.0, b"late");
    drop((asked, exchange));
    assert_eq!(soon(pair.client.closed()).await, CloseReason::Drained);
    assert_eq!(soon(pair.daemon.closed()).await, CloseReason::Drained);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, _incoming) = pair.exchange(true).await;
    pair.daemon.drain(DrainReason::Restart, Duration::from_millis(50));
    assert_eq!(soon(pair.daemon.closed()).await, CloseReason::Drained);
    assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::SessionLost));
    soon(pair.client.closed()).await;
}

#[tokio::test]
async fn an_error_arrives_before_the_connection_closes() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, _incoming) = pair.exchange(true).await;
    let error = ErrorMessage { code: ErrorCode::Replaced, message: "taken over".to_owned(), retryable: false };
    pair.daemon.close(error.clone());
    assert_eq!(soon(pair.client.closed()).await, SessionError::Peer(error.clone()).into());
    assert_eq!(soon(pair.daemon.closed()).await, SessionError::Local(error).into());
    assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::SessionLost));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let ends = Ends::new();
    let (link, connection) = ends.link().await;
    let error = ErrorMessage { code: ErrorCode::NameTaken, message: "in use".to_owned(), retryable: false };
    let said = error.clone();
    tokio::spawn(async move {
        quic::accept(connection, config(), LIMIT).await.unwrap().refuse(&said);
    });
    let refused = soon(link.connect(config(), &connect(), &[], LIMIT)).await.unwrap_err();
    assert_eq!(refused, HandshakeError::Closed(SessionError::Peer(error).into()));
}

#[tokio::test]
async fn a_path_is_tested_before_connect() {
    let ends = Ends::new();
    let (mut link, connection) = ends.link().await;
    let accepting = tokio::spawn(quic::accept(connection, config(), LIMIT));
    for _ in 0..3 {
        soon(link.echo(LIMIT)).await.unwrap();
    }
    drop(link);
    assert!(matches!(soon(accepting).await.unwrap(), Err(HandshakeError::Closed(CloseReason::PeerClosed))));
}

#[tokio::test]
async fn a_client_without_connect_times_out() {
    let ends = Ends::new();
    let (_link, connection) = ends.link().await;
    let short = Duration::from_millis(50);
    let result = soon(quic::accept(connection, config(), short)).await;
    assert!(matches!(result, Err(HandshakeError::TimedOut(limit)) if limit == short));
}

#[tokio::test]
async fn only_a_path_that_stops_answering_turns_bad() {
    let (pair, ends) = Pair::new().await;
    let (_asked, mut incoming) = pair.exchange(false).await;
    tokio::select! {
        reason = pair.path.turned_bad() => panic!("{reason}"),
        () = tokio::time::sleep(Duration::from_secs(4)) => {}
    }
    // Nothing answers on this port any more. The peer keeps its state, so nothing reports that it is gone.
    ends.server.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let reason = soon(pair.path.turned_bad()).await;
    assert!(reason.contains("nothing came over UDP"), "{reason}");
    incoming.exchange.send.send_response(ok(), true).unwrap();
    assert!(matches!(&*pair.client.status().borrow(), Status::Open));
}

#[tokio::test]
async fn a_response_without_a_body_is_one_head() {
    let (pair, _ends) = Pair::new().await;
    let (mut asked, mut incoming) = pair.exchange(true).await;
    incoming.exchange.send.send_response(ok(), true).unwrap();
    assert_eq!(soon(asked.recv.recv()).await, Ok(Received::Head { head: ok(), end: true }));
}
