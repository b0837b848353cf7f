//! The rules one by one.

use std::time::Duration;

use cok_proto::frame::Frame;
use cok_proto::mux::Role;
use cok_proto::DrainReason;

use crate::pair::{Pair, Setup, request};

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
