//! The order of sending: small and first frames go ahead of bulk, and bulk takes turns.

use std::collections::HashMap;

use bytes::Bytes;
use cok_proto::Role;
use cok_proto::frame::{DATA_CHUNK, Frame, MESSAGE_TARGET};
use cok_proto::mux::{ExchangeKey, SEND_BUFFER};

use crate::pair::{Pair, Setup, decode_all, request, response};

fn roomy() -> Pair {
    Pair::new(Setup { daemon_window: 8 << 20, client_window: 8 << 20, ..Setup::default() })
}

/// A pair whose client sends `count` responses, each past its first bytes.
fn in_bulk(count: usize) -> (Pair, Vec<(ExchangeKey, ExchangeKey)>) {
    let mut pair = roomy();
    let keys: Vec<_> = (0..count).map(|_| pair.open(true)).collect();
    for (_, client) in &keys {
        pair.client.send_response(*client, response(200), false).unwrap();
        pair.client.send_data(*client, Bytes::from_static(b"first"), false);
    }
    pair.settle();
    for (_, client) in &keys {
        fill(&mut pair, *client);
    }
    (pair, keys)
}

fn fill(pair: &mut Pair, key: ExchangeKey) {
    while pair.client.send_ready(key) == Ok(true) {
        pair.client.send_data(key, Bytes::from(vec![7; SEND_BUFFER / 4]), false);
    }
}

/// The frames of the client's next message.
fn next(pair: &mut Pair) -> Vec<Frame> {
    assert!(pair.transmit(Role::Client));
    decode_all(pair.to_daemon.pop_back().unwrap())
}

#[test]
fn exchanges_progress_within_one_data_frame_of_each_other() {
    let (mut pair, keys) = in_bulk(7);
    let mut frames: HashMap<u32, usize> = HashMap::new();
    for _ in 0..200 {
        for frame in next(&mut pair) {
            let Frame::Data { id, .. } = frame else { panic!("{frame:?}") };
            *frames.entry(id).or_default() += 1;
        }
        let (least, most) = (frames.values().min().unwrap(), frames.values().max().unwrap());
        assert!(frames.len() < 7 || most - least <= 1, "{frames:?}");
        for (_, client) in &keys {
            fill(&mut pair, *client);
        }
    }
    assert_eq!(frames.len(), 7);
}

#[test]
fn waiting_bodies_take_turns() {
    let mut pair = roomy();
    let keys: Vec<_> = (0..5).map(|_| pair.open(true)).collect();
    for (_, client) in &keys {
        pair.client.send_response(*client, response(200), false).unwrap();
    }
    pair.settle();
    // One exchange has less than the others: it leaves the round, and the others go on.
    for (index, (_, client)) in keys.iter().enumerate() {
        let chunks = if index == 2 { 3 } else { 6 };
        pair.client.send_data(*client, Bytes::from(vec![7; chunks * DATA_CHUNK]), true);
    }
    let mut ids = Vec::new();
    for frame in pair.frames(Role::Client) {
        let Frame::Data { id, .. } = frame else { panic!("{frame:?}") };
        ids.push(id);
    }
    let expected: Vec<u32> = (0..6).flat_map(|round| (1..=5).filter(move |id| *id != 3 || round < 3)).collect();
    assert_eq!(ids, expected);
}

#[test]
fn a_small_response_waits_for_at_most_one_bulk_message() {
    let (mut pair, _) = in_bulk(20);
    next(&mut pair);
    pair.daemon.open(0, request("/quick"), true).unwrap();
    pair.transmit(Role::Daemon);
    pair.deliver(Role::Client).unwrap().unwrap();
    let quick_client = pair.opened();
    pair.client.send_response(quick_client, response(200), false).unwrap();
    pair.client.send_data(quick_client, Bytes::from_static(b"answer"), true);
    let frames = next(&mut pair);
    assert!(
        matches!(&frames[..2], [Frame::Response { id: 21, .. }, Frame::Data { id: 21, end: true, .. }]),
        "{frames:?}"
    );
}

#[test]
fn control_goes_ahead_of_heads_and_heads_ahead_of_bulk() {
    let (mut pair, keys) = in_bulk(3);
    let (_, ready) = pair.open(true);
    pair.to_daemon.clear();
    pair.client.send_response(ready, response(200), false).unwrap();
    pair.client.reset(keys[0].1, cok_proto::ResetCode::LocalBroken);
    pair.inject(Role::Client, b"\x01\xf0\0\0\0\0\x0812345678").unwrap();
    let frames = pair.frames(Role::Client);
    let [Frame::Pong(_), Frame::Reset { id: 1, .. }, Frame::Response { id: 4, .. }, ..] = &frames[..] else {
        panic!("{frames:?}")
    };
}

#[test]
fn a_full_chunk_fills_a_message() {
    let (mut pair, _) = in_bulk(1);
    let message = {
        assert!(pair.transmit(Role::Client));
        pair.to_daemon.pop_back().unwrap()
    };
    assert_eq!(message.len(), MESSAGE_TARGET);
    assert!(matches!(&decode_all(message)[..], [Frame::Data { body, .. }] if body.len() == DATA_CHUNK));
}

#[test]
fn frames_that_are_ready_together_leave_in_one_message() {
    let mut pair = roomy();
    let keys: Vec<_> = (0..50).map(|_| pair.open(true)).collect();
    for (_, client) in &keys {
        pair.client.send_response(*client, response(200), false).unwrap();
        pair.client.send_data(*client, Bytes::from_static(b"a small answer"), true);
    }
    assert_eq!(next(&mut pair).len(), 100);
    assert!(!pair.transmit(Role::Client));
}

#[test]
fn an_exchange_without_credit_does_not_hold_up_others() {
    let mut pair = Pair::new(Setup { daemon_window: 1000, ..Setup::default() });
    let (_, stuck) = pair.open(true);
    let (quick, quick_client) = pair.open(true);
    for key in [stuck, quick_client] {
        pair.client.send_response(key, response(200), false).unwrap();
    }
    pair.client.send_data(stuck, Bytes::from(vec![0; 5000]), false);
    for _ in 0..50 {
        pair.client.send_data(quick_client, Bytes::from(vec![0; 400]), false);
        pair.settle();
        assert_eq!(crate::pair::read_all(&mut pair.daemon, quick).body.len(), 400);
    }
    assert_eq!(pair.daemon.unread_bytes(), 1000);
}
