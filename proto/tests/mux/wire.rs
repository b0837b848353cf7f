//! A monitor of both pipes. It knows the specification's rules for senders, and nothing of the code under test.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cok_proto::frame::{Frame, FrameHeader, FrameType, HEADER_LEN, MAX_MESSAGE, MESSAGE_TARGET};
use cok_proto::{ResetCode, Role, TunnelFrame};

use cok_proto::session::MAX_UNANSWERED;

use crate::pair::decode_all;

#[derive(Debug, Default)]
pub(crate) struct Monitor {
    windows: [u32; 2],
    last_id: u32,
    targets: HashSet<String>,
    drained: [Option<u32>; 2],
    established: bool,
    finished: [bool; 2],
    pings: [Vec<[u8; 8]>; 2],
    exchanges: HashMap<u32, Exchange>,
    tunnels: HashMap<u32, Tunnel>,
    last_tunnel: u32,
    /// Tunnels that move here and have not been named.
    moving: u32,
}

#[derive(Debug, Default)]
struct Tunnel {
    /// Its Bind has no answer.
    asked: bool,
    /// It was bound. A request that waited may follow the daemon's Unbind.
    bound: bool,
    /// The side has sent Unbind.
    unbound: [bool; 2],
}

/// Index 0: what the daemon sends; 1: what the client sends.
#[derive(Debug, Default)]
struct Exchange {
    ended: [bool; 2],
    reset: [bool; 2],
    stopped: bool,
    final_head: bool,
    interim: usize,
    /// The sender's view: a WindowUpdate counts once it is delivered.
    credit: [u64; 2],
}

impl Monitor {
    /// Checks a message when its sender writes it.
    pub(crate) fn sent(&mut self, from: Role, message: &Bytes) {
        assert!(message.len() <= MAX_MESSAGE);
        if message.len() > MESSAGE_TARGET {
            let header = FrameHeader::parse(message).unwrap().unwrap();
            assert_eq!(message.len(), HEADER_LEN + header.length, "only a single long frame exceeds the target");
            assert!(!matches!(header.kind, FrameType::Data), "bulk stays within the target");
        }
        for frame in decode_all(message.clone()) {
            self.frame_sent(from, frame);
        }
    }

    /// Whether the request for the target `/index` has gone out.
    pub(crate) fn knows_target(&self, index: usize) -> bool {
        self.targets.contains(&format!("/{index}"))
    }

    fn frame_sent(&mut self, from: Role, frame: Frame) {
        let me = usize::from(from == Role::Client);
        assert!(!self.finished[me], "nothing follows an Error");
        match frame {
            Frame::Connect(connect) => {
                assert_eq!(from, Role::Client);
                self.windows[0] = connect.initial_window;
            }
            Frame::ConnectAck(ack) => {
                assert_eq!(from, Role::Daemon);
                assert!(!std::mem::replace(&mut self.established, true));
                self.windows[1] = ack.initial_window;
                self.moving = ack.moved;
                if ack.subdomain.is_some() {
                    self.tunnels.insert(0, Tunnel { bound: true, ..Tunnel::default() });
                }
            }
            Frame::Drain(drain) => {
                assert!(self.drained[me].is_none(), "one Drain for each side");
                if from == Role::Daemon {
                    assert!(drain.last_exchange.is_some_and(|last| last >= self.last_id), "names the last exchange");
                }
                self.drained[me] = Some(self.last_id);
            }
            Frame::Tunnel { id, frame } => self.tunnel_sent(from, id, &frame),
            Frame::Request { id, tunnel, head, end } => {
                assert!(self.tunnels[&tunnel].bound, "a request only for a tunnel that was bound");
                self.targets.insert(head.target.to_text().into_owned());
                assert!(from == Role::Daemon && self.established && id > self.last_id);
                assert!(self.drained[0].is_none(), "nothing new after Drain");
                self.last_id = id;
                let mut exchange = Exchange { credit: self.windows.map(u64::from), ..Exchange::default() };
                exchange.ended[0] = end;
                self.exchanges.insert(id, exchange);
            }
            Frame::Response { id, head, end } => {
                assert_eq!(from, Role::Client);
                let exchange = self.sending(me, id);
                assert!(!exchange.final_head, "nothing but one final head");
                if head.is_interim() {
                    exchange.interim += 1;
                    assert!(!end && exchange.interim <= 16);
                } else {
                    exchange.final_head = true;
                    exchange.ended[1] = end;
                    if head.is_switch() {
                        assert!(exchange.ended[0], "raw bytes follow the request's end");
                        exchange.ended[0] = false;
                    }
                }
            }
            Frame::Data { id, body, end } => {
                let exchange = self.sending(me, id);
                assert!(from == Role::Daemon || exchange.final_head, "a body follows its head");
                assert!(exchange.credit[me] >= body.len() as u64, "within the credit");
                assert!(end || !body.is_empty(), "an empty Data frame without END is not sent");
                exchange.credit[me] -= body.len() as u64;
                exchange.ended[me] = end;
            }
            Frame::Trailers { id, .. } => {
                let exchange = self.sending(me, id);
                assert!(from == Role::Daemon || exchange.final_head);
                exchange.ended[me] = true;
            }
            Frame::Break { id, code } => {
                let exchange = self.sending(me, id);
                assert!(from == Role::Daemon || exchange.final_head, "a break follows its head");
                assert!(code != ResetCode::NoError);
                exchange.ended[me] = true;
            }
            Frame::Reset { id, code } => {
                let exchange = self.exchanges.get_mut(&id).expect("a Reset only for an announced exchange");
                assert!(!exchange.reset[me], "one Reset for each side");
                assert!(code != ResetCode::NoError || exchange.ended[1], "stop-upload comes once the response is out");
                exchange.reset[me] = true;
            }
            Frame::WindowUpdate { id, increment } => {
                let exchange = self.exchanges.get(&id).expect("credit only for an announced exchange");
                assert!(increment > 0 && !exchange.reset[me]);
            }
            Frame::Ping(opaque) => self.pings[me].push(opaque),
            Frame::Pong(opaque) => assert!(self.pings[1 - me].contains(&opaque), "a Pong echoes a Ping"),
            Frame::Error(_) => self.finished[me] = true,
            Frame::Skipped { .. } => panic!("never sent"),
        }
    }

    fn tunnel_sent(&mut self, from: Role, id: u32, frame: &TunnelFrame) {
        assert!(self.established);
        let me = usize::from(from == Role::Client);
        match frame {
            TunnelFrame::Bind(_) => {
                assert!(from == Role::Client && id > self.last_tunnel && self.drained[1].is_none());
                self.last_tunnel = id;
                self.tunnels.insert(id, Tunnel { asked: true, ..Tunnel::default() });
                assert!(self.tunnels.values().filter(|tunnel| tunnel.asked).count() <= MAX_UNANSWERED);
            }
            TunnelFrame::Bound(_) if self.moving > 0 => {
                self.moving -= 1;
                self.last_tunnel = self.last_tunnel.max(id);
                self.tunnels.insert(id, Tunnel { bound: true, ..Tunnel::default() });
            }
            TunnelFrame::Bound(_) | TunnelFrame::Refused(_) => {
                let tunnel = self.tunnels.get_mut(&id).expect("an answer only to a Bind");
                assert!(from == Role::Daemon && tunnel.asked, "one answer to each Bind");
                tunnel.asked = false;
                tunnel.bound = matches!(frame, TunnelFrame::Bound(_));
            }
            TunnelFrame::Unbind(_) => {
                let tunnel = self.tunnels.get_mut(&id).expect("an Unbind only of a known tunnel");
                assert!(!std::mem::replace(&mut tunnel.unbound[me], true), "one Unbind from each side");
            }
        }
    }

    /// The exchange, if `me` may still send something of it.
    fn sending(&mut self, me: usize, id: u32) -> &mut Exchange {
        let exchange = self.exchanges.get_mut(&id).expect("opened");
        assert!(!exchange.ended[me] && !exchange.reset[me], "nothing follows an end");
        assert!(me == 1 || !exchange.stopped, "nothing follows a delivered stop-upload");
        exchange
    }

    /// Notes what a side learns from a message that reaches it.
    pub(crate) fn delivered(&mut self, to: Role, message: &Bytes) {
        let me = usize::from(to == Role::Client);
        for frame in decode_all(message.clone()) {
            match frame {
                Frame::WindowUpdate { id, increment } => {
                    self.exchanges.get_mut(&id).unwrap().credit[me] += u64::from(increment);
                }
                Frame::Reset { id, code } => {
                    let exchange = self.exchanges.get_mut(&id).unwrap();
                    if code == ResetCode::NoError {
                        exchange.stopped = true;
                    } else {
                        exchange.ended[me] = true;
                    }
                }
                _ => {}
            }
        }
    }
}
