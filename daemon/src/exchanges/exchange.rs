//! One exchange: whose turn it is to move, since when nothing moves, and how it is ended.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cok_proto::ResetCode;
use cok_transport::{ExchangeHalves, Holding, RecvHalf, SendHalf};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::KeyUse;
use super::halves::{Receiving, Sending};
use super::leash::Leash;
use super::places::Places;
use super::traffic::Traffic;

/// Why the daemon ends an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// Its visitor stands still.
    Stalled = 1,
    /// Others need its place or its memory.
    Evicted = 2,
}

/// One request and its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    places: Arc<Places>,
    /// The visitor's network. Not as a number: its alignment would cost the allocator a search.
    network: Ipv6Addr,
    share: usize,
    place: OnceLock<usize>,
    key: OnceLock<Arc<KeyUse>>,
    leash: Leash,
    pub(super) holding: Arc<Holding>,
    pub(super) recv: Mutex<Option<Box<dyn RecvHalf>>>,
    pub(super) send: Mutex<Option<Box<dyn SendHalf>>>,
    /// What its visitor's version of HTTP takes of an upload while the tunnel takes none, in bytes.
    upload_room: usize,
    /// `upload_room` is charged.
    upload_blocked: AtomicBool,
    pub(super) turn: Turn,
    /// Bytes of bodies that went into the tunnel and came out of it, as its halves count them.
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// The response has begun.
    answered: AtomicBool,
    /// It may stand still for as long as it likes.
    long_lived: AtomicBool,
    ended: AtomicU8,
    still: Mutex<Still>,
}

/// Says which side has to move next.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Grows with each step.
    moves: AtomicU32,
    /// Bytes of the response that wait in the edge's library.
    waiting: AtomicUsize,
    /// The visitor's side has taken a part of the response, and has not come for the next one.
    has_part: AtomicBool,
    /// The visitor's side waits for more of the upload.
    owes: AtomicBool,
}

impl Turn {
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// The visitor's side came for a part of the response, and got one or not.
    pub(super) fn asked(&self, got: bool) {
        if self.has_part.swap(got, Ordering::Relaxed) || got {
            self.moved();
        }
    }

    /// The upload waits for its visitor, or does not.
    pub(super) fn set_owes(&self, owes: bool) {
        if self.owes.load(Ordering::Relaxed) != owes {
            self.owes.store(owes, Ordering::Relaxed);
        }
    }
}

/// Since when it stands still, as far as was looked.
#[derive(Clone, Copy, Debug)]
struct Still {
    moves: u32,
    /// When it was first seen with `moves`.
    since: Instant,
    /// When it was last seen to move, or to wait for the service.
    visitor_since: Instant,
}

impl Exchange {
    pub(super) fn new(
        places: Arc<Places>,
        network: u128,
        share: usize,
        holding: Arc<Holding>,
        leash: Leash,
        upload_room: usize,
    ) -> Arc<Self> {
        let now = Instant::now();
        places.traffic.all.open.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            places,
            network: Ipv6Addr::from_bits(network),
            share,
            place: OnceLock::new(),
            key: OnceLock::new(),
            leash,
            holding,
            recv: Mutex::new(None),
            send: Mutex::new(None),
            upload_room,
            upload_blocked: AtomicBool::new(false),
            turn: Turn::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            long_lived: AtomicBool::new(false),
            ended: AtomicU8::new(0),
            still: Mutex::new(Still { moves: 0, since: now, visitor_since: now }),
        })
    }

    /// What passes through its tunnel.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.places.traffic
    }

    pub(super) fn set_place(&self, place: usize) {
        let _set_once = self.place.set(place);
    }

    /// Counts it for the key of its tunnel. `false` if the key has `most` already. The first key counts.
    pub(crate) fn count_for(&self, key: &Arc<KeyUse>, most: Option<u32>) -> bool {
        if self.key.get().is_some() {
            return true;
        }
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        if key.account.is_full() || !key.take(most) {
            return false;
        }
        if self.key.set(key.clone()).is_ok() {
            self.holding.join(&key.account);
        }
        true
    }

    /// Has the tunnel give up an exchange for this one. `false` if it has none to give up.
    pub(crate) fn make_room(&self) -> bool {
        self.places.make_room(self.share)
    }

    /// Watches the halves of what was opened for it.
    pub(crate) fn attach(self: &Arc<Self>, halves: ExchangeHalves) -> ExchangeHalves {
        let ExchangeHalves { send, mut recv } = halves;
        recv.charge_to(self.holding.clone());
        *self.recv.lock() = Some(recv);
        *self.send.lock() = Some(send);
        ExchangeHalves { send: Box::new(Sending(self.clone())), recv: Box::new(Receiving(self.clone())) }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.recv.lock().is_some() || self.send.lock().is_some()
    }

    /// Its response begins.
    pub(crate) fn set_answered(&self) {
        self.turn.moved();
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Its pauses are no stalls, on either side.
    pub(crate) fn set_long_lived(&self) {
        self.long_lived.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_long_lived(&self) -> bool {
        self.long_lived.load(Ordering::Relaxed)
    }

    /// What ends the visitor's side.
    pub(crate) fn leash(&self) -> &Leash {
        &self.leash
    }

    /// Notes bytes of the response that wait in the edge's library until the guard is dropped.
    pub(crate) fn wait(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.turn.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.holding.add(bytes);
        Waiting { exchange: self.clone(), bytes }
    }

    /// The tunnel takes no more of the upload, or takes it again.
    pub(crate) fn set_upload_blocked(&self, blocked: bool) {
        if self.upload_blocked.load(Ordering::Relaxed) == blocked {
            return;
        }
        if self.upload_blocked.swap(blocked, Ordering::Relaxed) != blocked {
            if blocked { self.holding.add(self.upload_room) } else { self.holding.sub(self.upload_room) }
        }
    }

    /// Whether its visitor has to move next.
    fn is_visitors_turn(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        let takes = self.turn.waiting.load(Ordering::Relaxed) > 0 || self.turn.has_part.load(Ordering::Relaxed);
        let owes = self.turn.owes.load(Ordering::Relaxed) && !self.is_long_lived();
        (answered && takes) || owes
    }

    /// Since when nothing moves.
    pub(super) fn still_since(&self) -> Instant {
        self.look(Instant::now()).since
    }

    /// Since when its visitor could move and does not.
    pub(super) fn visitor_still_since(&self, now: Instant) -> Instant {
        self.look(now).visitor_since
    }

    fn look(&self, now: Instant) -> Still {
        let (moves, visitors_turn) = (self.turn.moves.load(Ordering::Relaxed), self.is_visitors_turn());
        let mut still = self.still.lock();
        if still.moves != moves {
            *still = Still { moves, since: now, visitor_since: now };
        } else if !visitors_turn {
            still.visitor_since = now;
        }
        *still
    }

    /// The bytes of its body that went into the tunnel so far, or of its upgraded connection.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The bytes that came out of the tunnel so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the tunnel's account is more than half full.
    pub(super) fn is_pressed(&self) -> bool {
        self.places.account.is_pressed()
    }

    /// Why the daemon has ended it.
    pub(crate) fn ended(&self) -> Option<End> {
        match self.ended.load(Ordering::Relaxed) {
            1 => Some(End::Stalled),
            2 => Some(End::Evicted),
            _ => None,
        }
    }

    /// Its visitor's network as a number.
    pub(super) fn network(&self) -> u128 {
        self.network.to_bits()
    }

    /// The first address of its visitor's network, for the log.
    pub(super) fn address(&self) -> IpAddr {
        IpAddr::from(self.network).to_canonical()
    }

    /// Ends it in the tunnel, and at its visitor. One that has not begun its response is answered with a page.
    pub(super) fn end(&self, why: End) {
        if self.ended.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let counts = &self.places.traffic.all;
        if why == End::Stalled { &counts.stalled } else { &counts.evicted }.fetch_add(1, Ordering::Relaxed);
        self.places.uncount(self.network());
        self.set_upload_blocked(false);
        let recv = self.recv.lock().take();
        let send = self.send.lock().take();
        if let Some(mut recv) = recv {
            recv.reset(ResetCode::Cancelled);
        }
        if let Some(mut send) = send {
            send.reset(ResetCode::Cancelled);
        }
        if self.answered.load(Ordering::Relaxed) {
            self.leash.cut();
        }
    }

    /// Ends the connection of a visitor that does not let go of what was ended before.
    pub(super) fn end_connection(&self) {
        self.leash.cut_connection();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.places.traffic.all.open.fetch_sub(1, Ordering::Relaxed);
        self.set_upload_blocked(false);
        if let Some(place) = self.place.get() {
            let counted = self.ended().is_none().then(|| self.network());
            self.places.leave(*place, counted);
        }
        if let Some(key) = self.key.get() {
            key.release();
        }
    }
}

/// Bytes of a response that wait in the edge's library for their visitor.
#[derive(Debug)]
pub(crate) struct Waiting {
    exchange: Arc<Exchange>,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.exchange.turn.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
        self.exchange.turn.moved();
        self.exchange.holding.sub(self.bytes);
    }
}
