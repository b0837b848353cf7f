//! The rules of a session that hold over every transport, one by one.

#![expect(clippy::unwrap_used, reason = "in a test, it is the test that fails")]

use std::time::{Duration, Instant};

use cok_proto::session::{Admission, Carrier, MAX_EXCHANGES, Session, Signal};
use cok_proto::{
    Bound, Connect, ConnectAck, Drain, DrainReason, ErrorCode, ErrorMessage, Frame, OpenError, ProtocolError, Role,
    SessionError, TunnelFrame,
};

const CARRIERS: [Carrier; 2] = [Carrier::Pipe, Carrier::Streams];
const SECOND: Duration = Duration::from_secs(1);

/// A session whose handshake is done.
fn established(role: Role, carrier: Carrier, now: Instant) -> Session {
    let connect = Connect::default();
    let ack = ack(4);
    let session = match role {
        Role::Daemon => {
            let mut session = Session::daemon(carrier, 4);
            session.receive(Frame::Connect(connect), now).unwrap();
            assert!(session.accept(&ack, &[]) && !session.accept(&ack, &[]));
            session
        }
        Role::Client => {
            let mut session = Session::client(carrier, &connect, &[]);
            session.receive(Frame::ConnectAck(ack), now).unwrap();
            session
        }
    };
    assert!(session.is_established());
    session
}

fn ack(max_exchanges: u32) -> ConnectAck {
    ConnectAck {
        subdomain: Some("demo".to_owned()),
        url: Some("https://demo.example.com".to_owned()),
        max_exchanges,
        ..ConnectAck::default()
    }
}

fn drain(deadline: Duration, last_exchange: Option<u32>) -> Frame {
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap();
    Frame::Drain(Drain { reason: DrainReason::Shutdown, deadline_ms, last_exchange })
}

#[test]
fn a_client_allows_no_more_exchanges_than_the_limit() {
    for carrier in CARRIERS {
        let now = Instant::now();
        let mut session = Session::client(carrier, &Connect::default(), &[]);
        session.receive(Frame::ConnectAck(ack(u32::MAX)), now).unwrap();
        assert_eq!(session.max_exchanges(), MAX_EXCHANGES);
    }
}

#[test]
fn a_path_is_tested_before_connect_over_streams_only() {
    let now = Instant::now();
    let ping = Frame::Ping([1; 8]);
    let mut streams = Session::daemon(Carrier::Streams, 4);
    assert_eq!(streams.receive(ping.clone(), now), Ok(Some(Signal::Ping([1; 8]))));
    let mut pipe = Session::daemon(Carrier::Pipe, 4);
    assert!(matches!(pipe.receive(ping, now), Err(SessionError::Protocol(_))));
}

#[test]
fn a_daemon_answers_a_drain_once_with_handover() {
    for carrier in CARRIERS {
        let now = Instant::now();
        let mut session = established(Role::Daemon, carrier, now);
        session.opened(1, now);
        session.announced(1);
        assert!(matches!(session.receive(drain(SECOND, None), now), Ok(Some(Signal::Drain(_)))));
        assert!(!session.is_drained(0), "its own Drain is still to be sent");
        let answer = session.take_drain().unwrap();
        assert_eq!((answer.reason, answer.deadline_ms, answer.last_exchange), (DrainReason::Handover, 1000, Some(1)));
        assert_eq!(session.receive(drain(SECOND / 2, None), now), Ok(None), "a second Drain is ignored");
        assert_eq!(session.take_drain(), None);
        assert_eq!(session.drain_deadline(), Some(now + 2 * SECOND), "one second more than the peer takes");
        assert_eq!(session.may_open(0, 0), Err(OpenError::Unavailable));
        assert!(session.is_drained(0) && !session.is_drained(1));
    }
}

#[test]
fn a_later_drain_only_brings_the_end_forward() {
    for carrier in CARRIERS {
        let now = Instant::now();
        let mut session = established(Role::Daemon, carrier, now);
        session.drain(DrainReason::Restart, 9 * SECOND, now);
        session.drain(DrainReason::Shutdown, 20 * SECOND, now);
        assert_eq!(session.drain_deadline(), Some(now + 9 * SECOND));
        session.drain(DrainReason::Shutdown, 2 * SECOND, now);
        assert_eq!(session.drain_deadline(), Some(now + 2 * SECOND));
        let sent = session.take_drain().unwrap();
        assert_eq!((sent.reason, sent.deadline_ms), (DrainReason::Restart, 9000));
        assert_eq!(session.take_drain(), None);
    }
}

#[test]
fn requests_that_a_drain_overtakes_are_waited_for_over_streams() {
    let now = Instant::now();
    let mut session = established(Role::Client, Carrier::Streams, now);
    session.receive(drain(SECOND, Some(2)), now).unwrap();
    for id in [1, 2] {
        assert!(!session.is_drained(0));
        assert_eq!(session.request(id, 0, 0), Ok(Admission::Accept));
    }
    assert!(session.is_drained(0));

    let mut session = established(Role::Client, Carrier::Pipe, now);
    session.receive(drain(SECOND, Some(2)), now).unwrap();
    assert!(session.is_drained(0));
    assert!(matches!(session.request(1, 0, 0), Err(ProtocolError::Unexpected { .. })));
}

#[test]
fn requests_that_cross_the_clients_own_drain_are_served() {
    for carrier in CARRIERS {
        let now = Instant::now();
        let mut session = established(Role::Client, carrier, now);
        session.drain(DrainReason::Shutdown, SECOND, now);
        assert_eq!(session.request(1, 0, 0), Ok(Admission::Accept));
        assert!(!session.is_drained(0), "the daemon has not answered");
    }
}

#[test]
fn a_client_that_holds_too_many_ends_refuses_requests() {
    for carrier in CARRIERS {
        let mut session = established(Role::Client, carrier, Instant::now());
        assert_eq!(session.request(1, 0, 7), Ok(Admission::Accept));
        assert_eq!(session.request(2, 0, 8), Ok(Admission::Refuse));
        assert!(session.was_opened(2) && !session.was_opened(3) && !session.was_opened(0));
    }
}

#[test]
fn the_last_id_drains_the_session() {
    for carrier in CARRIERS {
        let now = Instant::now();
        let mut session = established(Role::Daemon, carrier, now);
        let last = (1 << 31) - 1 - MAX_EXCHANGES;
        session.opened(last - 1, now);
        assert!(!session.is_draining());
        session.opened(last, now);
        assert_eq!(session.take_drain().map(|drain| drain.reason), Some(DrainReason::Ids));
    }
}

#[test]
fn a_session_fails_once_and_with_a_bounded_text() {
    let mut session = established(Role::Daemon, Carrier::Streams, Instant::now());
    let error = ErrorMessage { code: ErrorCode::Internal, message: "ä".repeat(1000), retryable: true };
    let sent = session.fail(&error).unwrap();
    assert_eq!(sent.message, "ä".repeat(512));
    assert_eq!(session.error(), Some(&sent));
    assert_eq!(session.fail(&error), None);
    session.close();
    assert_eq!(session.error(), Some(&sent));
    assert_eq!(session.may_open(0, 0), Err(OpenError::Unavailable));
    assert_eq!(session.request(1, 0, 0), Ok(Admission::Refuse));
}

/// Sends the same frame again until the session ends with `limit_reached`; how many were taken.
fn taken(session: &mut Session, frame: &Frame, now: Instant) -> usize {
    for count in 0..20_000 {
        match session.receive(frame.clone(), now) {
            Ok(_) => {}
            Err(SessionError::Protocol(error)) => {
                assert_eq!(error.code(), ErrorCode::LimitReached, "{error}");
                return count;
            }
            Err(error) => panic!("{error}"),
        }
    }
    20_000
}

#[test]
fn a_client_may_not_flood_the_control_frames() {
    let now = Instant::now();
    for carrier in CARRIERS {
        for frame in [Frame::Ping([1; 8]), Frame::Pong([1; 8]), drain(SECOND, None), Frame::Skipped { length: 7 }] {
            let mut session = established(Role::Daemon, carrier, now);
            assert_eq!(taken(&mut session, &frame, now), 1000, "{frame:?}");
            // A client chooses its daemon, and does not judge it.
            assert_eq!(taken(&mut established(Role::Client, carrier, now), &frame, now), 20_000);
        }
    }
}

#[test]
fn a_client_may_bind_and_unbind_all_tunnels_twice_but_not_forever() {
    let now = Instant::now();
    for carrier in CARRIERS {
        let mut session = established(Role::Daemon, carrier, now);
        let mut churn = |id| -> Result<(), SessionError> {
            session
                .receive(Frame::Tunnel { id, frame: TunnelFrame::Bind(serde_json::from_str("{}").unwrap()) }, now)?;
            session.bound(id, Bound { subdomain: "a".to_owned(), url: "u".to_owned() }).unwrap();
            session.answers_sent();
            let frame = TunnelFrame::Unbind(serde_json::from_str(r#"{"reason":"closed"}"#).unwrap());
            session.receive(Frame::Tunnel { id, frame }, now)?;
            Ok(())
        };
        let churned = (1..100_000).take_while(|id| churn(*id).is_ok()).count();
        assert!((2000..2600).contains(&churned), "{churned}");
    }
}

#[test]
fn keep_alives_never_end_a_session() {
    let began = Instant::now();
    for carrier in CARRIERS {
        let mut session = established(Role::Daemon, carrier, began);
        for second in 0..100_000 {
            let now = began + second * SECOND;
            for _ in 0..50 {
                assert!(session.receive(Frame::Ping([1; 8]), now).is_ok());
            }
        }
    }
}
