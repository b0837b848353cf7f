//! Tunnels over every transport: asked for, answered, ended, moved.

use std::time::Duration;

use bytes::Bytes;
use cok_proto::{
    Bind, Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage, ResetCode, SessionError, TunnelFrame, Unbind,
    UnbindReason,
};
use cok_transport::{CloseReason, Corked, ExchangeError, OpenError, Received};

use crate::carried::{CARRIED, Carried, Session, bound, heard};
use crate::pair::{LIMIT, ack, connect, head, noise, ok, read_all, send_all, soon};

fn refusal() -> ErrorMessage {
    ErrorMessage { code: ErrorCode::NameTaken, message: "in use".to_owned(), retryable: true }
}

fn closed() -> Unbind {
    Unbind::new(UnbindReason::Closed, LIMIT)
}

#[tokio::test]
async fn binds_are_answered_and_their_tunnels_carry_requests() {
    for by in CARRIED {
        let session = Session::new(by).await;
        session.bind(1).await;
        assert!(session.client.bind(2, &Bind::default()) && !session.client.bind(2, &Bind::default()));
        heard(&session.daemon).await;
        assert!(session.daemon.answer_bind(2, Err(refusal())), "{by:?}");
        assert_eq!(heard(&session.client).await, (2, TunnelFrame::Refused(refusal())));
        assert_eq!(session.daemon.open(2, head("/"), true).unwrap_err(), OpenError::Unbound);
        for tunnel in [0, 1] {
            let (mut asked, mut incoming) = session.exchange(tunnel).await;
            incoming.exchange.send.send_response(ok(), true).unwrap();
            assert!(matches!(soon(asked.recv.recv()).await, Ok(Received::Head { end: true, .. })));
        }
    }
}

#[tokio::test]
async fn an_ended_tunnel_lets_its_exchanges_finish() {
    for by in CARRIED {
        let session = Session::new(by).await;
        session.bind(1).await;
        let (mut asked, mut incoming) = session.exchange(1).await;
        assert!(session.client.unbind(1, &closed()) && !session.client.unbind(1, &closed()));
        assert_eq!(heard(&session.daemon).await, (1, TunnelFrame::Unbind(closed())));
        assert!(!session.daemon.unbind(1, &closed()), "{by:?}");
        assert_eq!(session.daemon.open(1, head("/"), true).unwrap_err(), OpenError::Unbound);
        incoming.exchange.send.send_response(ok(), true).unwrap();
        assert!(matches!(soon(asked.recv.recv()).await, Ok(Received::Head { end: true, .. })));
        session.exchange(0).await;
    }
}

#[tokio::test]
async fn the_exchanges_of_a_tunnel_are_reset_alone() {
    for by in CARRIED {
        let session = Session::new(by).await;
        session.bind(1).await;
        let (mut asked, mut incoming) = session.exchange(1).await;
        let (mut kept, mut kept_incoming) = session.exchange(0).await;
        session.daemon.unbind(1, &Unbind::new(UnbindReason::Revoked, Duration::ZERO));
        session.daemon.reset_tunnel(1, ResetCode::Cancelled);
        let cancelled = ExchangeError::Reset(ResetCode::Cancelled);
        assert_eq!(soon(asked.recv.recv()).await, Err(cancelled), "{by:?}");
        assert_eq!(soon(incoming.exchange.recv.recv()).await, Err(cancelled), "{by:?}");
        assert!(matches!(heard(&session.client).await, (1, TunnelFrame::Unbind(_))));
        kept_incoming.exchange.send.send_response(ok(), true).unwrap();
        assert!(soon(kept.recv.recv()).await.is_ok());
        // And from the client's side.
        session.bind(2).await;
        let (mut asked, _incoming) = session.exchange(2).await;
        session.client.reset_tunnel(2, ResetCode::LocalBroken);
        assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::Reset(ResetCode::LocalBroken)), "{by:?}");
    }
}

/// The client has ended the tunnel, and the daemon does not know yet.
#[tokio::test]
async fn a_request_that_crosses_an_unbind_is_unprocessed() {
    for by in CARRIED {
        let session = Session::new(by).await;
        session.bind(1).await;
        session.client.unbind(1, &closed());
        // Nothing has been delivered since: the daemon's side still has the tunnel.
        if let Ok(mut asked) = session.daemon.open(1, head("/"), true) {
            let accepting = session.client.clone();
            tokio::spawn(async move { while accepting.accept().await.is_some() {} });
            assert_eq!(soon(asked.recv.recv()).await, Err(ExchangeError::Reset(ResetCode::Unprocessed)), "{by:?}");
        }
    }
}

#[tokio::test]
async fn a_withdrawn_bind_still_gets_its_answer() {
    for by in CARRIED {
        let session = Session::new(by).await;
        for id in 1..=64 {
            assert!(session.client.bind(id, &Bind::default()) && session.client.unbind(id, &closed()));
            assert!(matches!(heard(&session.daemon).await, (_, TunnelFrame::Bind(_))));
            assert!(matches!(heard(&session.daemon).await, (_, TunnelFrame::Unbind(_))));
            assert!(!session.daemon.answer_bind(id, Ok(bound(id))), "{by:?}");
            // Its answer has come once another one has.
            if id % 32 == 0 {
                session.bind(1000 + id).await;
                break;
            }
        }
    }
}

#[tokio::test]
async fn tunnels_move_under_their_ids() {
    for by in CARRIED {
        let connect = Connect { tunnel: false, replaces: Some("old".to_owned()), ..connect() };
        let ack = ConnectAck { subdomain: None, url: None, moved: 2, ..ack() };
        let moved = [(0, bound(0)), (7, bound(7))];
        let session = Session::begin(by, &connect, &[0, 3, 7], &ack, &moved).await;
        // Over QUIC, a request may overtake the Bound of its tunnel.
        session.exchange(7).await;
        assert_eq!(heard(&session.client).await, (0, TunnelFrame::Bound(bound(0))), "{by:?}");
        assert_eq!(heard(&session.client).await, (7, TunnelFrame::Bound(bound(7))));
        session.exchange(0).await;
        assert_eq!(session.daemon.open(3, head("/"), true).unwrap_err(), OpenError::Unbound);
        assert!(!session.client.bind(7, &Bind::default()));
        session.bind(8).await;
    }
}

#[tokio::test]
async fn a_thousand_tunnels_move() {
    for by in CARRIED {
        let connect = Connect { tunnel: false, replaces: Some("old".to_owned()), ..connect() };
        let ack = ConnectAck { subdomain: None, url: None, moved: 1000, ..ack() };
        let ids: Vec<u32> = (0..1000).collect();
        let long =
            |id| cok_proto::Bound { subdomain: format!("{id:063}"), url: format!("https://{id:063}.example.com") };
        let moved: Vec<_> = ids.iter().map(|&id| (id, long(id))).collect();
        let session = Session::begin(by, &connect, &ids, &ack, &moved).await;
        for id in ids {
            assert_eq!(heard(&session.client).await, (id, TunnelFrame::Bound(long(id))), "{by:?}");
        }
        session.exchange(999).await;
    }
}

#[tokio::test]
async fn a_bind_that_crosses_a_drain_is_refused() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let (mut asked, mut incoming) = session.exchange(0).await;
        session.daemon.drain(DrainReason::Restart, LIMIT);
        // The client has not heard of it: nothing has run since.
        if session.client.bind(1, &Bind::default()) {
            let (id, TunnelFrame::Refused(error)) = heard(&session.client).await else { panic!("{by:?}") };
            assert_eq!((id, error.code, error.retryable), (1, ErrorCode::Draining, true));
        }
        asked.send.send_data(Bytes::new(), true);
        incoming.exchange.send.send_response(ok(), true).unwrap();
        assert!(soon(incoming.exchange.recv.recv()).await.is_ok() && soon(asked.recv.recv()).await.is_ok());
        drop((asked, incoming));
        assert_eq!(soon(session.client.closed()).await, CloseReason::Drained, "{by:?}");
        assert!(!session.client.bind(2, &Bind::default()) && !session.client.unbind(0, &closed()));
        assert!(soon(session.client.tunnel_frame()).await.is_none());
    }
}

/// Two hundred downloads of one tunnel, which are not read, leave room for another tunnel.
#[tokio::test]
async fn unread_exchanges_of_a_tunnel_do_not_hold_up_another() {
    for by in [Carried::Ws, Carried::Quic] {
        let session = Session::new(by).await;
        session.bind(1).await;
        let mut unread = Vec::new();
        for _ in 0..200 {
            let (asked, incoming) = session.exchange(0).await;
            tokio::spawn(async move {
                let mut send = incoming.exchange.send;
                send.send_response(ok(), false).unwrap();
                while send.ready().await.is_ok() {
                    send.send_data(vec![7; 16_000].into(), false);
                }
            });
            unread.push(asked);
        }
        let body = noise(100_000);
        for _ in 0..5 {
            let (mut asked, incoming) = session.exchange(1).await;
            let mut send = incoming.exchange.send;
            send.send_response(ok(), false).unwrap();
            let ((), (received, _)) = tokio::join!(send_all(&mut send, &body, 50_000), read_all(&mut asked.recv));
            assert!(received == body, "{by:?}");
        }
    }
}

#[tokio::test]
async fn what_a_corked_session_says_waits() {
    for by in CARRIED {
        let session = Session::new(by).await;
        assert!(session.client.bind(1, &Bind::default()));
        assert!(matches!(heard(&session.daemon).await, (1, TunnelFrame::Bind(_))));
        let corked = Corked::new(session.daemon.clone());
        assert!(corked.session().answer_bind(1, Ok(bound(1))));
        let early = tokio::time::timeout(Duration::from_millis(50), heard(&session.client)).await;
        assert!(early.is_err(), "{by:?}: {early:?}");
        drop(corked);
        assert_eq!(heard(&session.client).await, (1, TunnelFrame::Bound(bound(1))), "{by:?}");
    }
}

#[tokio::test]
async fn a_corked_session_that_fails_says_why() {
    for by in CARRIED {
        let session = Session::new(by).await;
        let corked = Corked::new(session.daemon.clone());
        let error = ErrorMessage { code: ErrorCode::NameTaken, message: "taken".to_owned(), retryable: false };
        corked.session().close(error.clone());
        tokio::task::yield_now().await;
        drop(corked);
        let reason = soon(session.client.closed()).await;
        assert_eq!(reason, CloseReason::Session(SessionError::Peer(error)), "{by:?}");
    }
}
