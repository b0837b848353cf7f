//! The rules one by one.

use std::time::Duration;

use bytes::Bytes;
use cok_proto::frame::Frame;
use cok_proto::mux::Role;
use cok_proto::{DrainReason, ErrorCode, ProtocolError};

use crate::pair::{Pair, Setup, data_frame, head_frame, read_all, request, response};

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
