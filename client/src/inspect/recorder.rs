//! The inspector's thread: it takes what exchanges have put into the queue, and fills the store. It alone decodes streams and
//! writes to the disk, so exchanges wait for neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cok_proto::{RequestHead, ResponseHead};

use super::decode::Progress;
use super::kind::Kind;
use super::live::{Live, Side};
use super::messages::Decoders;
use super::queue::{Load, What};
use super::store::{Entry, Store};

/// The least time between two rounds. It makes the waking of this thread rare, and is hardly seen on a page.
const PACE: Duration = Duration::from_millis(50);
/// The longest round. After it, viewers hear of the changes so far.
const ROUND: Duration = Duration::from_millis(50);
/// A queue that holds more is not left to fill while the recorder rests.
const BUSY: usize = 2 * 1024 * 1024;

/// Fills the store.
#[derive(Debug)]
pub(super) struct Recorder {
    store: Arc<Store>,
    load: Arc<Load>,
    /// The exchanges whose messages are decoded, by their numbers.
    open: HashMap<u64, (Arc<Live>, Decoders)>,
    /// The ends that the queue had missed when they were looked for.
    missed_ends: u64,
    /// What the store had let go of when decoders were looked for.
    departed: u64,
}

impl Recorder {
    pub(super) fn new(store: Arc<Store>, load: Arc<Load>) -> Self {
        Self { store, load, open: HashMap::new(), missed_ends: 0, departed: 0 }
    }

    /// Takes what happens until no exchange can bring more.
    pub(super) fn run(mut self, receiver: &Receiver<Arc<Live>>) {
        while let Ok(first) = receiver.recv() {
            let began = Instant::now();
            let mut next = Some(first);
            while let Some(live) = next {
                self.take(&live);
                next = if began.elapsed() < ROUND { receiver.try_recv().ok() } else { None };
            }
            self.find_ends();
            self.forget_evicted();
            self.store.publish();
            if self.load.weight() < BUSY {
                thread::sleep(PACE);
            }
        }
    }

    fn take(&mut self, live: &Arc<Live>) {
        let items = self.load.take(live);
        let names_kind = |what: &What| matches!(what, What::Began(Some(_)) | What::Head { kind: Some(_), .. });
        if !self.open.contains_key(&live.id) && !items.iter().any(names_kind) {
            return self.store.record(live, items);
        }
        for what in items {
            self.decode(live, what);
        }
    }

    /// Records what happened in an exchange that carries messages, and the messages that it brings.
    fn decode(&mut self, live: &Arc<Live>, what: What) {
        match &what {
            What::Began(Some(kind)) => {
                if let Ok(head) = RequestHead::decode(live.head.clone()) {
                    self.decoders(live, *kind).request(&head.headers);
                }
            }
            What::Head { head, kind: Some(kind), .. } => {
                if let Ok(head) = ResponseHead::decode(head.clone()) {
                    self.decoders(live, *kind).response(&head.headers);
                }
            }
            What::Data(side, data) => return self.data(live, *side, data),
            What::Over(side) => self.end_messages(live, *side),
            _ => {}
        }
        self.store.record(live, [what]);
    }

    fn decoders(&mut self, live: &Arc<Live>, kind: Kind) -> &mut Decoders {
        let (_, decoders) = self.open.entry(live.id).or_insert_with(|| (live.clone(), Decoders::new(kind)));
        decoders
    }

    fn data(&mut self, live: &Arc<Live>, side: Side, data: &Bytes) {
        let decoders = self.open.get_mut(&live.id).map(|(_, decoders)| decoders);
        // The bytes behind an upgrade are no body.
        if decoders.as_ref().is_none_or(|decoders| !decoders.is_upgraded()) {
            self.store.record(live, [What::Data(side, data.clone())]);
        }
        if live.is_evicted.load(Ordering::Relaxed) {
            self.open.remove(&live.id);
        } else if let Some(decoders) = decoders {
            let mut input = &data[..];
            // Decoders may hold more than the input has.
            loop {
                let mut messages = Vec::new();
                let progress = decoders.push(side, &mut input, &mut messages);
                self.store.add_messages(live.id, side, messages, decoders.state());
                if progress == Progress::Done {
                    break;
                }
            }
        }
    }

    fn end_messages(&mut self, live: &Arc<Live>, side: Side) {
        let Some((_, decoders)) = self.open.get_mut(&live.id) else { return };
        let (messages, mut state) = (decoders.end(side), decoders.state());
        if live.is_over() {
            self.open.remove(&live.id);
            state.memory = 0;
        }
        self.store.add_messages(live.id, side, messages, state);
    }

    /// Ends exchanges whose last item had no room in the queue.
    fn find_ends(&mut self) {
        let missed_ends = self.load.missed_ends();
        if std::mem::replace(&mut self.missed_ends, missed_ends) == missed_ends {
            return;
        }
        let is_missed = |entry: &Entry| entry.live.is_over() && !(entry.request.is_over && entry.response.is_over);
        for live in self.store.select(0, |entry| is_missed(entry).then(|| entry.live.clone())) {
            self.store.record(&live, [What::Over(Side::Request), What::Over(Side::Response)]);
        }
        self.open.retain(|_, (live, _)| !live.is_over());
    }

    /// Drops the decoders of exchanges that the store has let go of. Such an exchange may stay silent for hours.
    fn forget_evicted(&mut self) {
        let departed = self.store.departed();
        if std::mem::replace(&mut self.departed, departed) != departed {
            self.open.retain(|_, (live, _)| !live.is_evicted.load(Ordering::Relaxed));
        }
    }
}
