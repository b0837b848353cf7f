//! Upgrades over every transport: a request with a body, then raw bytes, or an answer that declines.

use std::sync::Arc;

use bytes::Bytes;
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, ExchangeHalves, Incoming, Received};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::carried::{CARRIED, Session};
use crate::pair::{head, ok, read_all, send_all, soon};

fn upgrade() -> Arc<RequestHead> {
    let mut upgrade = (*head("/raw")).clone();
    upgrade.headers.insert("upgrade", HeaderValue::from_static("raw"));
    upgrade.into()
}

fn switch() -> ResponseHead {
    ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS, HeaderMap::new())
}

async fn asked(session: &Session, end: bool) -> (ExchangeHalves, Incoming) {
    let asked = session.daemon.open(0, upgrade(), end).unwrap();
    let incoming = soon(session.client.accept()).await.unwrap();
    assert_eq!(incoming.end, end);
    (asked, incoming)
}

#[tokio::test]
async fn raw_bytes_follow_the_body_of_an_upgrade() {
    for by in CARRIED {
        for body in [false, true] {
            let session = Session::new(by).await;
            let (mut asked, incoming) = asked(&session, !body).await;
            let mut exchange = incoming.exchange;
            if body {
                send_all(&mut asked.send, &Bytes::from_static(b"a body"), 4).await;
                assert_eq!(read_all(&mut exchange.recv).await.0, b"a body", "{by:?}");
            }
            exchange.send.send_response(switch(), false).unwrap();
            send_all(&mut exchange.send, &Bytes::from_static(b"hello"), 5).await;
            assert_eq!(soon(asked.recv.recv()).await, Ok(Received::Head { head: switch(), end: false }), "{by:?}");
            assert_eq!(read_all(&mut asked.recv).await.0, b"hello");
            // One direction is closed, the other goes on.
            send_all(&mut asked.send, &Bytes::from_static(b"raw bytes"), 3).await;
            assert_eq!(read_all(&mut exchange.recv).await.0, b"raw bytes", "{by:?}");
        }
    }
}

/// The daemon's FIN follows the answer, not the body: over QUIC it would end the raw bytes.
#[tokio::test]
async fn a_declined_upgrade_is_an_ordinary_exchange() {
    for by in CARRIED {
        let session = Session::new(by).await;
        for body in [false, true] {
            let (mut asked, incoming) = asked(&session, !body).await;
            let mut exchange = incoming.exchange;
            if body {
                send_all(&mut asked.send, &Bytes::from_static(b"a body"), 6).await;
                assert_eq!(read_all(&mut exchange.recv).await.0, b"a body", "{by:?}");
            }
            exchange.send.send_response(ok(), false).unwrap();
            send_all(&mut exchange.send, &Bytes::from_static(b"no"), 2).await;
            drop(exchange);
            assert_eq!(soon(asked.recv.recv()).await, Ok(Received::Head { head: ok(), end: false }), "{by:?}");
            assert_eq!(read_all(&mut asked.recv).await.0, b"no");
            // Nothing is left to send, so leaving abandons nothing.
            drop(asked);
        }
        // A body that the answer did not wait for still arrives.
        let (mut late, incoming) = asked(&session, false).await;
        let mut exchange = incoming.exchange;
        exchange.send.send_response(ok(), true).unwrap();
        assert_eq!(soon(late.recv.recv()).await, Ok(Received::Head { head: ok(), end: true }), "{by:?}");
        send_all(&mut late.send, &Bytes::from_static(b"late"), 2).await;
        assert_eq!(read_all(&mut exchange.recv).await.0, b"late", "{by:?}");
        session.exchange(0).await;
    }
}

#[tokio::test]
async fn a_101_that_may_not_be_sent_breaks_only_its_exchange() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let (mut early, mut incoming) = asked(&session, false).await;
        incoming.exchange.send.send_response(switch(), false).unwrap();
        let broken = Err(ExchangeError::Reset(ResetCode::LocalBroken));
        assert_eq!(soon(early.recv.recv()).await, broken, "{by:?}: the body has not ended");
        let (mut plain, mut incoming) = session.exchange(0).await;
        incoming.exchange.send.send_response(switch(), false).unwrap();
        assert_eq!(soon(plain.recv.recv()).await, broken, "{by:?}: it is no upgrade");
        session.exchange(0).await;
    }
}
