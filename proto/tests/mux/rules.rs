//! The rules one by one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, Frame};
use cok_proto::mux::{Event, ExchangeError, Role};
use cok_proto::{DrainReason, ErrorCode, ProtocolError, ResetCode};

use crate::pair::{Pair, Setup, data_frame, events, head_frame, read_all, request, response};

/// A request that was opened before a Drain used to follow it on the wire, which ended the session.
#[test]
fn drain_goes_out_behind_requests_that_were_opened_before_it() {
    let mut pair = Pair::new(Setup::default());
    pair.daemon.open(request("/"), true).unwrap();
    pair.daemon.drain(DrainReason::Restart, Duration::from_secs(1));
    let frames = pair.frames(Role::Daemon);
    assert!(
        matches!(&frames[..], [Frame::Request { id: 1, .. }, Frame::Drain(drain)] if drain.last_exchange == Some(1)),
        "{frames:?}"
    );
}

/// Credit used to count from the moment it was due. A peer that sends without waiting for it could then go on for as
/// long as our own writing was stalled, until the counter overflowed.
#[test]
fn credit_counts_once_it_is_announced() {
    let mut pair = Pair::new(Setup { daemon_window: 1000, budget: 0, ..Setup::default() });
    let (daemon, _) = pair.open(true);
    pair.inject(Role::Daemon, head_frame(1, 200)).unwrap();
    for _ in 0..2 {
        pair.inject(Role::Daemon, data_frame(1, 500, false)).unwrap();
        assert_eq!(read_all(&mut pair.daemon, daemon).body.len(), 500);
    }
    let error = pair.inject(Role::Daemon, data_frame(1, 1, false)).unwrap_err();
    assert_eq!(error, ProtocolError::CreditExceeded { id: 1, excess: 1 }.into());
    assert!(
        matches!(&pair.frames(Role::Daemon)[..], [Frame::Error(message)] if message.code == ErrorCode::FlowControl)
    );
}

/// It used to come back with the end of the exchange, so that one exchange after the other could fill its grown window,
/// end, and leave it unread.
#[test]
fn what_a_window_borrowed_stays_borrowed_until_everything_was_read() {
    let setup = Setup { daemon_window: 1000, budget: 5000, ..Setup::default() };
    let mut pair = Pair::new(setup);
    let (daemon, client) = pair.open(true);
    pair.client.send_response(client, response(200), false).unwrap();
    while pair.daemon_budget.available() == setup.budget {
        pair.client.send_data(client, Bytes::from(vec![0; 1000]), false);
        pair.settle();
        read_all(&mut pair.daemon, daemon);
    }
    pair.client.send_data(client, Bytes::from(vec![0; 1500]), true);
    pair.settle();
    pair.client.release_send(client);
    pair.client.release_recv(client);
    assert_eq!((pair.daemon.open_exchanges(), pair.daemon.unread_bytes()), (0, 1500));
    assert!(pair.daemon_budget.available() < setup.budget);
    assert!(read_all(&mut pair.daemon, daemon).ended);
    assert_eq!(pair.daemon_budget.available(), setup.budget);
}

/// The client used to end the session when exchanges that were over on the wire still had their users.
#[test]
fn a_client_with_too_many_unfinished_ends_sends_requests_back() {
    let mut pair = Pair::new(Setup { max_exchanges: 2, ..Setup::default() });
    let mut held = Vec::new();
    let mut refused = Vec::new();
    for round in 0..4 {
        let keys = [(); 2].map(|()| pair.daemon.open(request("/"), true).unwrap());
        pair.settle();
        held.extend(events(&mut pair.client).into_iter().filter_map(|event| match event {
            Event::Opened { key, .. } => Some(key),
            _ => None,
        }));
        for key in keys {
            if pair.daemon.broken(key) == Some(ExchangeError::Reset(ResetCode::Unprocessed)) {
                refused.push(round);
            }
            pair.daemon.release_send(key);
            pair.daemon.release_recv(key);
        }
        pair.settle();
    }
    assert_eq!((held.len(), refused), (4, vec![2, 2, 3, 3]));
    for key in held {
        pair.client.release_send(key);
        pair.client.release_recv(key);
    }
    let (_, _client) = pair.open(true);
}

#[test]
fn requests_sent_back_while_nothing_can_be_written_are_bounded() {
    let mut pair = Pair::new(Setup { max_exchanges: 1, ..Setup::default() });
    let mut failed = None;
    for round in 0..5000 {
        // A gap in the ids keeps the runs apart.
        let id = 1 + 2 * round;
        let mut message = BytesMut::new();
        frame::put_request(&mut message, id, &request("/"), true);
        frame::put_reset(&mut message, id, ResetCode::Cancelled);
        if let Err(error) = pair.inject(Role::Client, &message) {
            failed = Some((round, error));
            break;
        }
    }
    assert_eq!(failed, Some((1002, ProtocolError::TooManyExchanges(1).into())));
}
