//! Two multiplexers whose messages pass by hand.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cok_proto::mux::{Config, Event, Mux};
use cok_proto::{Connect, ConnectAck, Received, WindowBudget};

use crate::heads;

const WINDOW: u32 = 256 * 1024;
const BODY: &[u8] = &[b'x'; 128];

/// A daemon's and a client's side of a session.
pub(crate) struct Pair {
    daemon: Mux,
    client: Mux,
    now: Instant,
}

impl Pair {
    /// An established session.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let config = || Config { initial_window: WINDOW, max_exchanges: 1000, budget: WindowBudget::new(1 << 20) };
        let connect = Connect { initial_window: WINDOW, ..Connect::default() };
        let client = Mux::client(config(), &connect, &[], now);
        let mut pair = Self { daemon: Mux::daemon(config(), now), client, now };
        pair.pass();
        pair.daemon.poll_event().unwrap();
        let url = Some("https://demo.tunnel.example.com".to_owned());
        let ack = ConnectAck { url, initial_window: WINDOW, max_exchanges: 1000, ..ConnectAck::default() };
        pair.daemon.accept(&ConnectAck { subdomain: Some("demo".to_owned()), ..ack }, &[]);
        pair.pass();
        pair.client.poll_event().unwrap();
        pair
    }

    /// Carries messages until there are none.
    fn pass(&mut self) {
        while carry(&mut self.daemon, &mut self.client, self.now) | carry(&mut self.client, &mut self.daemon, self.now)
        {
        }
    }

    /// Opens exchanges, answers them, and reads the answers.
    pub(crate) fn exchange(&mut self, at_once: usize) {
        let request = Arc::new(heads::request());
        let opened: Vec<_> = (0..at_once).map(|_| self.daemon.open(0, request.clone(), true).unwrap()).collect();
        self.pass();
        while let Some(event) = self.client.poll_event() {
            if let Event::Opened { key, .. } = event {
                self.client.send_response(key, heads::response(), false).unwrap();
                assert!(self.client.send_ready(key).unwrap());
                self.client.send_data(key, Bytes::from_static(BODY), true);
                self.client.release_send(key);
                self.client.release_recv(key);
            }
        }
        self.pass();
        while self.daemon.poll_event().is_some() {}
        for key in opened {
            loop {
                match self.daemon.recv(key).unwrap().unwrap() {
                    Received::Head { end: false, .. } => {}
                    Received::Data { data, end } => {
                        assert_eq!((data.len(), end), (BODY.len(), true));
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            self.daemon.release_send(key);
            self.daemon.release_recv(key);
        }
    }
}

/// Carries one message. `false` if there is none.
fn carry(from: &mut Mux, to: &mut Mux, now: Instant) -> bool {
    let mut out = BytesMut::new();
    let has_sent = from.transmit(&mut out);
    if has_sent {
        to.receive(out.freeze(), now).unwrap();
    }
    has_sent
}
