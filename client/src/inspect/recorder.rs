//! The inspector's thread: it takes what exchanges have put into the queue, and fills the store. It alone decodes streams and
//! writes to the disk, so exchanges wait for neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use cok_proto::{RequestHead, ResponseHead};

use super::decode::Progress;
use super::kind::Kind;
use super::live::{Live, Side};
use super::messages::Decoders;
use super::queue::{Item, Load, What};
use super::store::{Answer, Cut, Entry, Store};

/// The least time between two rounds. It makes the waking of this thread rare, and is hardly seen on a page.
const PACE: Duration = Duration::from_millis(20);
/// The longest round. After it, viewers hear of the changes so far.
const ROUND: Duration = Duration::from_millis(50);
/// A queue that holds more is not left to fill while the recorder rests.
const BUSY: usize = 2 * 1024 * 1024;
/// The most interim responses that are kept. A service may send them without end.
const MAX_INTERIM: usize = 32;

/// Fills the store.
#[derive(Debug)]
pub(super) struct Recorder {
    store: Arc<Store>,
    load: Arc<Load>,
    /// The exchanges whose messages are decoded, by their numbers.
    open: HashMap<u64, (Arc<Live>, Decoders)>,
    /// What the queue had lost when ends were looked for.
    lost: u64,
    /// What the store had let go of when decoders were looked for.
    departed: u64,
}

impl Recorder {
    pub(super) fn new(store: Arc<Store>, load: Arc<Load>) -> Self {
        Self { store, load, open: HashMap::new(), lost: 0, departed: 0 }
    }

    /// Takes items until no exchange can bring more.
    pub(super) fn run(mut self, receiver: &Receiver<Item>) {
        while let Ok(first) = receiver.recv() {
            let began = Instant::now();
            let mut next = Some(first);
            while let Some(item) = next {
                self.load.taken(&item);
                self.take(item);
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

    fn take(&mut self, Item { live, what }: Item) {
        let id = live.id;
        match what {
            What::Began(kind) => self.begin(live, kind),
            What::Interim { head, after } => {
                self.store.change(id, |entry| {
                    if entry.interim.len() < MAX_INTERIM {
                        entry.interim.push(Answer { head, after });
                    }
                });
            }
            What::Head { head, kind, after } => self.head(&live, Answer { head, after }, kind),
            What::Data(side, data) => self.data(&live, side, &data),
            What::Trailers(side, trailers) => {
                self.store.change(id, |entry| entry.part_mut(side).trailers = Some(trailers));
            }
            What::Truncated(side) => {
                self.store.change(id, |entry| entry.part_mut(side).cut = Some(Cut::Limit));
            }
            What::Over(side) => {
                self.end_messages(&live, side);
                self.store.finish(id, side);
            }
        }
    }

    fn begin(&mut self, live: Arc<Live>, kind: Option<Kind>) {
        let id = live.id;
        if let Some(kind) = kind
            && let Ok(head) = RequestHead::decode(live.head.clone())
        {
            let mut decoders = Decoders::new(kind);
            decoders.request(&head.headers);
            self.open.insert(id, (live.clone(), decoders));
        }
        self.store.begin(live);
        if kind.is_some() {
            self.store.change(id, |entry| entry.kind = kind);
        }
    }

    fn head(&mut self, live: &Arc<Live>, answer: Answer, kind: Option<Kind>) {
        if let Some(kind) = kind
            && let Ok(head) = ResponseHead::decode(answer.head.clone())
        {
            let (_, decoders) = self.open.entry(live.id).or_insert_with(|| (live.clone(), Decoders::new(kind)));
            decoders.response(&head.headers);
        }
        self.store.change(live.id, |entry| {
            entry.kind = kind;
            entry.answer = Some(answer);
        });
    }

    fn data(&mut self, live: &Arc<Live>, side: Side, data: &[u8]) {
        let decoders = self.open.get_mut(&live.id).map(|(_, decoders)| decoders);
        if decoders.as_ref().is_none_or(|decoders| !decoders.is_upgraded()) {
            self.store.add(live.id, side, data);
        }
        if live.is_evicted.load(Ordering::Relaxed) {
            self.open.remove(&live.id);
        } else if let Some(decoders) = decoders {
            let mut input = data;
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
        let lost = self.load.lost();
        if std::mem::replace(&mut self.lost, lost) == lost {
            return;
        }
        let is_missed = |entry: &Entry| entry.live.is_over() && !(entry.request.is_over && entry.response.is_over);
        for id in self.store.select(0, |entry| is_missed(entry).then(|| entry.id())) {
            self.store.finish(id, Side::Request);
            self.store.finish(id, Side::Response);
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
