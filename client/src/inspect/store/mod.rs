//! The captured exchanges. The recorder fills the store, viewers read copies of its entries.
//!
//! Its lock is held for the change of one entry or the copy of some, never while bytes are decoded or the disk works. No
//! exchange ever takes it.

mod entry;
mod part;
mod spool;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use self::entry::{Answer, Entry, Glance, Passed};
pub(super) use self::part::Cut;
use self::spool::{BLOCK, Block, NoBlock};
pub(super) use self::spool::{ROOM as DISK_ROOM, Spool};
use super::decode::Message;
use super::live::{Live, Side};
use super::messages::Decoding;
use super::queue::What;

/// The most bytes in memory: heads, short bodies, messages and decoders.
pub(super) const MEMORY_ROOM: usize = 64 * 1024 * 1024;
/// The most exchanges. A list of them is searched for each view.
pub(super) const MAX_ENTRIES: usize = 5000;
/// The most entries that make room for one block on disk. More would hold up the recorder.
const MAX_EVICTIONS: usize = 64;

/// The captured exchanges.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// Long bodies.
    pub(super) spool: Spool,
    changed: watch::Sender<Changed>,
}

/// What has changed in the store so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Grows with each change of an entry.
    pub(super) revision: u64,
    /// How often all was cleared.
    pub(super) cleared: u64,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// The number of exchanges.
    pub(super) entries: usize,
    /// The bytes in memory.
    pub(super) memory: usize,
    /// The number of exchanges that made room for later ones.
    pub(super) evicted: u64,
    /// The revision of the latest change.
    pub(super) revision: u64,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<u64, Entry>,
    memory: usize,
    evicted: u64,
    changed: Changed,
}

impl Store {
    /// An empty store.
    pub(super) fn new(spool: Spool) -> Self {
        Self { inner: Mutex::default(), spool, changed: watch::Sender::default() }
    }

    /// Follows its changes.
    pub(super) fn follow(&self) -> watch::Receiver<Changed> {
        self.changed.subscribe()
    }

    /// What it holds.
    pub(super) fn figures(&self) -> Figures {
        let inner = self.inner.lock();
        let revision = inner.changed.revision;
        Figures { entries: inner.entries.len(), memory: inner.memory, evicted: inner.evicted, revision }
    }

    /// How often it has let go of exchanges that may still be under way.
    pub(super) fn departed(&self) -> u64 {
        let inner = self.inner.lock();
        inner.evicted + inner.changed.cleared
    }

    /// A copy of one entry.
    pub(super) fn find(&self, id: u64) -> Option<Entry> {
        self.inner.lock().entries.get(&id).cloned()
    }

    /// Copies of what `choose` makes of entries with a later revision than `since`, newest exchange first. `choose` must be
    /// quick.
    pub(super) fn select<T>(&self, since: u64, choose: impl FnMut(&Entry) -> Option<T>) -> Vec<T> {
        let inner = self.inner.lock();
        inner.entries.values().rev().filter(|entry| entry.revision > since).filter_map(choose).collect()
    }

    /// Lets go of all exchanges. Those under way are not captured any further.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        let entries = std::mem::take(&mut inner.entries);
        inner.memory = 0;
        inner.changed.cleared += 1;
        self.changed.send_replace(inner.changed);
        drop(inner);
        for entry in entries.values() {
            entry.live.is_evicted.store(true, Ordering::Relaxed);
        }
    }

    /// Lets viewers know of the changes so far.
    pub(super) fn publish(&self) {
        let changed = self.inner.lock().changed;
        self.changed.send_if_modified(|before| std::mem::replace(before, changed) != changed);
    }

    /// Notes what happened in an exchange. This may write to the disk, without the lock.
    pub(super) fn record(&self, live: &Arc<Live>, items: impl IntoIterator<Item = What>) {
        let id = live.id;
        let mut items = items.into_iter().peekable();
        let mut inner = self.inner.lock();
        if let Some(What::Began(kind)) = items.next_if(|what| matches!(what, What::Began(_))) {
            inner.entries.insert(id, Entry::new(live.clone(), kind));
        }
        let blocks = inner.change(id, |entry| items.filter_map(|what| entry.take(what)).collect::<Vec<_>>());
        inner.make_room();
        drop(inner);
        for (side, bytes) in blocks.into_iter().flatten() {
            let blocks = self.write(id, &bytes);
            self.change(id, |entry| match blocks {
                Some(blocks) => entry.part_mut(side).moved(&bytes, blocks),
                None => entry.part_mut(side).cut = Some(Cut::Disk),
            });
        }
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.inner.lock();
        inner.change(id, change);
        inner.make_room();
    }

    /// Adds messages to an entry, and notes the state of its decoders.
    pub(super) fn add_messages(&self, id: u64, side: Side, messages: Vec<Message>, decoders: Decoding) {
        self.change(id, |entry| {
            let after = entry.live.began.elapsed();
            for message in messages {
                entry.messages.add(side, after, message);
            }
            entry.decoders = decoders;
        });
    }

    /// Writes bytes to the disk. Older exchanges make room, but not this one.
    fn write(&self, id: u64, bytes: &Bytes) -> Option<Vec<(Arc<Block>, usize)>> {
        let mut blocks = Vec::new();
        for part in bytes.chunks(BLOCK) {
            let mut evictions = 0;
            let block = loop {
                match self.spool.write(part) {
                    Ok(block) => break block,
                    Err(NoBlock::Full) if evictions < MAX_EVICTIONS && self.evict_from_disk(id) => evictions += 1,
                    Err(NoBlock::Full | NoBlock::Failed) => return None,
                }
            };
            blocks.push((block, part.len()));
        }
        Some(blocks)
    }

    /// Lets go of the oldest exchange with a body on disk, except for one.
    fn evict_from_disk(&self, except: u64) -> bool {
        let mut inner = self.inner.lock();
        let is_on_disk = |entry: &Entry| entry.request.is_on_disk() || entry.response.is_on_disk();
        let oldest = inner.entries.values().find(|entry| entry.id() != except && is_on_disk(entry)).map(Entry::id);
        let evicted = oldest.and_then(|id| inner.evict(id));
        drop(inner);
        evicted.is_some()
    }
}

impl Inner {
    fn change<T>(&mut self, id: u64, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.entries.get_mut(&id)?;
        let result = change(entry);
        let memory = entry.memory();
        self.memory = self.memory + memory - std::mem::replace(&mut entry.charged, memory);
        self.changed.revision += 1;
        entry.revision = self.changed.revision;
        Some(result)
    }

    /// Lets go of the oldest exchanges while there are too many: first of those that have ended.
    fn make_room(&mut self) {
        while self.memory > MEMORY_ROOM || self.entries.len() > MAX_ENTRIES {
            let ended = self.entries.values().find(|entry| entry.live.is_over()).map(Entry::id);
            let Some(id) = ended.or_else(|| self.entries.keys().next().copied()) else { return };
            self.evict(id);
        }
    }

    fn evict(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.memory -= entry.charged;
        self.evicted += 1;
        entry.live.is_evicted.store(true, Ordering::Relaxed);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::TunnelHandle;
    use crate::inspect::live::Ended;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Spool::new(Some(folder.path())));
        (folder, store)
    }

    fn begin(store: &Store, id: u64) -> Arc<Live> {
        let live = Arc::new(Live::new(id, TunnelHandle(0), Bytes::new()));
        store.record(&live, [What::Began(None)]);
        live
    }

    fn end(store: &Store, live: &Arc<Live>) {
        live.ended.set(Ended { after: Duration::ZERO, is_complete: true, reset: None }).unwrap();
        live.is_request_over.store(true, Ordering::Relaxed);
        store.record(live, [What::Over(Side::Request), What::Over(Side::Response)]);
    }

    fn ids(store: &Store) -> Vec<u64> {
        store.select(0, |entry| Some(entry.id()))
    }

    #[test]
    fn the_oldest_that_has_ended_makes_room_before_those_under_way() {
        let (_folder, store) = store();
        let open = begin(&store, 1);
        let ended = begin(&store, 2);
        end(&store, &ended);
        for id in 3..=MAX_ENTRIES as u64 + 1 {
            begin(&store, id);
        }
        assert!(store.find(1).is_some() && store.find(2).is_none());
        assert!(ended.is_evicted.load(Ordering::Relaxed) && !open.is_evicted.load(Ordering::Relaxed));
        begin(&store, 1_000_000);
        assert!(store.find(1).is_none() && open.is_evicted.load(Ordering::Relaxed));
        assert_eq!((store.figures().entries, store.figures().evicted), (MAX_ENTRIES, 2));
    }

    #[test]
    fn memory_is_counted_and_bounded() {
        let (_folder, store) = store();
        let short = vec![1; BLOCK - 1];
        for id in 1..=2000 {
            let live = begin(&store, id);
            store.record(&live, [What::Data(Side::Response, Bytes::copy_from_slice(&short))]);
            end(&store, &live);
        }
        let figures = store.figures();
        assert!(figures.memory <= MEMORY_ROOM && figures.memory > MEMORY_ROOM - 2 * BLOCK, "{figures:?}");
        assert_eq!(ids(&store)[0], 2000, "the newest stays");
        store.clear();
        assert_eq!((store.figures().memory, store.figures().entries), (0, 0));
    }

    #[test]
    fn long_bodies_go_to_the_disk_and_come_back() {
        let (_folder, store) = store();
        let live = begin(&store, 1);
        let body: Vec<u8> = (0..1_000_000u32).map(|at| (at % 253) as u8).collect();
        let pieces: Vec<&[u8]> = body.chunks(30_000).collect();
        // One by one, and several at once.
        for pieces in [&pieces[..1], &pieces[1..2], &pieces[2..20], &pieces[20..]] {
            store.record(&live, pieces.iter().map(|piece| What::Data(Side::Request, Bytes::copy_from_slice(piece))));
        }
        end(&store, &live);
        assert!(store.figures().memory < 200_000 && store.spool.used() >= 900_000);
        assert_eq!(store.find(1).unwrap().request.read(&store.spool, usize::MAX).unwrap(), body);
    }

    #[test]
    fn changes_are_published_with_their_revision() {
        let (_folder, store) = store();
        let mut changes = store.follow();
        begin(&store, 1);
        assert!(!changes.has_changed().unwrap());
        store.publish();
        let seen = *changes.borrow_and_update();
        begin(&store, 2);
        store.publish();
        assert!(changes.borrow_and_update().revision > seen.revision);
        assert_eq!(store.select(seen.revision, |entry| Some(entry.id())), [2]);
    }
}
