//! One captured exchange as the store keeps it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cok_proto::{RequestHead, ResponseHead};
use http::HeaderMap;

use super::part::{Cut, Part};
use crate::inspect::capture::MAX_BODY;
use crate::inspect::decode::Message;
use crate::inspect::kind::Kind;
use crate::inspect::live::{Ended, Live, Side};
use crate::inspect::messages::Decoding;
use crate::inspect::queue::What;

/// What an entry takes besides its bytes: its place in the table, what both halves share, and the decoded heads of a view.
const ENTRY: usize = 1024;
/// The most messages that one exchange keeps. Earlier ones are only counted.
const MAX_MESSAGES: usize = 1000;
/// The most bytes of messages that one exchange keeps, so that 60 of them fit into memory.
const MESSAGE_ROOM: usize = 1024 * 1024;
/// The most interim responses that are kept. A service may send them without end.
const MAX_INTERIM: usize = 32;

/// A message with its direction.
#[derive(Debug)]
pub(in crate::inspect) struct Passed {
    /// Its number within the exchange, over both directions. The first is 1.
    pub(in crate::inspect) number: u64,
    /// Its direction.
    pub(in crate::inspect) side: Side,
    /// The time since the beginning of the exchange.
    pub(in crate::inspect) after: Duration,
    /// The message.
    pub(in crate::inspect) message: Message,
}

/// The messages of an exchange: the latest ones, and counts of all.
#[derive(Clone, Debug, Default)]
pub(in crate::inspect) struct Messages {
    /// The latest, oldest first.
    pub(in crate::inspect) latest: VecDeque<Arc<Passed>>,
    /// What they take in memory.
    memory: usize,
    /// The number of all, from the visitor and from the service.
    pub(in crate::inspect) from_visitor: u64,
    pub(in crate::inspect) from_service: u64,
}

impl Messages {
    /// Adds a message. The oldest make room.
    pub(super) fn add(&mut self, side: Side, after: Duration, message: Message) {
        match side {
            Side::Request => self.from_visitor += 1,
            Side::Response => self.from_service += 1,
        }
        let passed = Passed { number: self.from_visitor + self.from_service, side, after, message };
        self.memory += weight(&passed);
        self.latest.push_back(Arc::new(passed));
        while self.latest.len() > MAX_MESSAGES || (self.memory > MESSAGE_ROOM && self.latest.len() > 1) {
            if let Some(oldest) = self.latest.pop_front() {
                self.memory -= weight(&oldest);
            }
        }
    }
}

fn weight(passed: &Passed) -> usize {
    passed.message.memory() + size_of::<Passed>()
}

/// The final head of a response.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct Answer {
    /// The head in the form of the tunnel.
    pub(in crate::inspect) head: Bytes,
    /// The time since the beginning of the exchange.
    pub(in crate::inspect) after: Duration,
}

/// An exchange. A copy of it is a view: what comes later does not change it.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct Entry {
    /// What both halves write.
    pub(in crate::inspect) live: Arc<Live>,
    /// What it carries besides bodies.
    pub(in crate::inspect) kind: Option<Kind>,
    /// The heads before the final one.
    pub(in crate::inspect) interim: Vec<Answer>,
    /// The final one.
    pub(in crate::inspect) answer: Option<Answer>,
    pub(in crate::inspect) request: Part,
    pub(in crate::inspect) response: Part,
    /// Its messages, if it carries such.
    pub(in crate::inspect) messages: Messages,
    /// The state of its decoders.
    pub(in crate::inspect) decoders: Decoding,
    /// Grows with each change.
    pub(in crate::inspect) revision: u64,
    /// What it counted for in the store's memory.
    pub(super) charged: usize,
}

impl Entry {
    /// An exchange that has begun.
    pub(super) fn new(live: Arc<Live>, kind: Option<Kind>) -> Self {
        let request = Part::new(live.is_bodiless);
        Self {
            live,
            kind,
            interim: Vec::new(),
            answer: None,
            request,
            response: Part::default(),
            messages: Messages::default(),
            decoders: Decoding::default(),
            revision: 0,
            charged: 0,
        }
    }

    /// Notes what happened. Returns bytes that should go to disk.
    pub(super) fn take(&mut self, what: What) -> Option<(Side, Bytes)> {
        match what {
            What::Began(kind) => self.kind = kind,
            What::Interim { head, after } => {
                if self.interim.len() < MAX_INTERIM {
                    self.interim.push(Answer { head, after });
                }
            }
            What::Head { head, kind, after } => {
                self.kind = kind;
                self.answer = Some(Answer { head, after });
            }
            What::Data(side, bytes) => return Some((side, self.add(side, bytes)?)),
            What::Trailers(side, trailers) => self.part_mut(side).trailers = Some(trailers),
            What::Truncated(side) => self.part_mut(side).cut = Some(Cut::Limit),
            What::Over(side) => self.part_mut(side).finish(),
        }
        None
    }

    fn add(&mut self, side: Side, mut bytes: Bytes) -> Option<Bytes> {
        let part = self.part_mut(side);
        if part.cut.is_some() {
            return None;
        }
        // Streams pass on beyond the limit, because their messages are found in all of their bytes.
        let room = usize::try_from(MAX_BODY.saturating_sub(part.captured())).unwrap_or(usize::MAX);
        if bytes.len() > room {
            part.cut = Some(Cut::Limit);
            bytes.truncate(room);
        }
        part.add(bytes)
    }

    /// Its number.
    pub(in crate::inspect) fn id(&self) -> u64 {
        self.live.id
    }

    /// A direction.
    pub(in crate::inspect) fn part(&self, side: Side) -> &Part {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }

    /// A direction, to be changed.
    pub(in crate::inspect) fn part_mut(&mut self, side: Side) -> &mut Part {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// The fields of a direction's head; none before the head.
    pub(in crate::inspect) fn fields(&self, side: Side) -> HeaderMap {
        let fields = match (side, &self.answer) {
            (Side::Request, _) => RequestHead::decode(self.live.head.clone()).ok().map(|head| head.headers),
            (Side::Response, Some(answer)) => ResponseHead::decode(answer.head.clone()).ok().map(|head| head.headers),
            (Side::Response, None) => None,
        };
        fields.unwrap_or_default()
    }

    /// Whether a direction is captured to its end, which has come.
    pub(in crate::inspect) fn is_whole(&self, side: Side) -> bool {
        let has_ended = match side {
            Side::Request => self.live.is_request_complete.load(Ordering::Relaxed),
            Side::Response => self.ended().is_some_and(|ended| ended.is_complete),
        };
        has_ended && self.part(side).captured() == self.live.bytes(side).load(Ordering::Relaxed)
    }

    /// How it ended, once all of it was recorded. Until then it counts as open.
    pub(in crate::inspect) fn ended(&self) -> Option<Ended> {
        self.live.ended.get().copied().filter(|_| self.request.is_over && self.response.is_over)
    }

    /// Why a direction is not captured to its end.
    pub(in crate::inspect) fn cut(&self, side: Side) -> Option<Cut> {
        let part = self.part(side);
        let is_behind = self.live.is_lost.load(Ordering::Relaxed)
            && part.captured() < self.live.bytes(side).load(Ordering::Relaxed);
        part.cut.or(is_behind.then_some(Cut::Behind))
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        ENTRY
            + self.live.head.len()
            + self
                .interim
                .iter()
                .chain(&self.answer)
                .map(|answer| answer.head.len() + size_of::<Answer>())
                .sum::<usize>()
            + self.request.memory()
            + self.response.memory()
            + self.messages.memory
            + self.decoders.memory
    }
}

/// What a list shows of an exchange. It is cheap to copy.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct Glance {
    pub(in crate::inspect) live: Arc<Live>,
    pub(in crate::inspect) kind: Option<Kind>,
    pub(in crate::inspect) answer: Option<Answer>,
    pub(in crate::inspect) messages_from_visitor: u64,
    pub(in crate::inspect) messages_from_service: u64,
    /// Some of it was not captured.
    pub(in crate::inspect) is_cut: bool,
    /// How it ended, once all of it was recorded.
    pub(in crate::inspect) ended: Option<Ended>,
}

impl Entry {
    /// What a list shows of it.
    pub(in crate::inspect) fn glance(&self) -> Glance {
        Glance {
            live: self.live.clone(),
            kind: self.kind,
            answer: self.answer.clone(),
            messages_from_visitor: self.messages.from_visitor,
            messages_from_service: self.messages.from_service,
            is_cut: self.cut(Side::Request).or(self.cut(Side::Response)).is_some(),
            ended: self.ended(),
        }
    }
}
