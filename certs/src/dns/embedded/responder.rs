//! The responder: a zone, the values that are published in it, and the addresses where it answers. It has no socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::answer::{self, Over};
use super::published::{MOST_VALUES, Published};
use super::zone::Zone;
use crate::clock::unix_now;
use crate::dns::{BoxFuture, Solver, SolverError};

/// A TXT string holds no more (RFC 1035, section 3.3). An ACME value has 43 characters.
const LONGEST_VALUE: usize = 255;

/// The responder, which is a solver as well: what it presents it answers from that moment on.
#[derive(Debug)]
pub struct Embedded {
    zone: Zone,
    pub(super) published: ArcSwap<Published>,
    /// The addresses where it is to answer, each with the reason why it does not.
    addresses: Mutex<BTreeMap<SocketAddr, Option<String>>>,
}

impl Embedded {
    /// A responder for a zone, with no values yet.
    pub fn new(zone: Zone) -> Arc<Self> {
        // Seconds since 1970 grow over restarts too, and by more than the changes between them.
        let published = Published { values: Vec::new(), serial: unix_now().unsigned_abs() as u32 };
        Arc::new(Self { zone, published: ArcSwap::from_pointee(published), addresses: Mutex::default() })
    }

    /// The answer to a query; nothing if none is due.
    pub fn answer(&self, query: &[u8], over: Over) -> Option<Vec<u8>> {
        answer::answer(&self.zone, &self.published.load(), query, over)
    }

    /// Takes note that an address is served, or why it is not. Says whether [`Self::refused`] has changed.
    pub fn note(&self, address: SocketAddr, refused: Option<&SolverError>) -> bool {
        let refused = refused.map(ToString::to_string);
        let mut addresses = self.addresses.lock();
        let before = addresses.insert(address, refused.clone()).flatten();
        before != refused
    }

    /// Why addresses are not served; nothing if all are.
    pub fn refused(&self) -> Option<String> {
        let addresses = self.addresses.lock();
        let reasons: Vec<&str> = addresses.values().flatten().map(String::as_str).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    pub(super) fn change(&self, change: impl Fn(&mut Vec<String>)) {
        self.published.rcu(|now| {
            let mut next = Published::clone(now);
            change(&mut next.values);
            next.serial = now.serial.wrapping_add(1);
            next
        });
    }
}

impl Solver for Embedded {
    /// Without a single address the ACME server would ask in vain, and count that as a failure.
    fn ready(&self) -> Result<(), SolverError> {
        let silent = {
            let addresses = self.addresses.lock();
            addresses.values().all(Option::is_some)
        };
        self.refused().filter(|_| silent).map_or(Ok(()), |why| Err(SolverError::Setup(why)))
    }

    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            if value.len() > LONGEST_VALUE {
                return Err(SolverError::Unavailable(format!(
                    "the ACME server asks for a TXT record of {} bytes; {LONGEST_VALUE} are possible",
                    value.len()
                )));
            }
            self.change(|values| {
                if !values.iter().any(|present| present == value) {
                    // The oldest is the one that was most likely forgotten.
                    values.drain(..(values.len() + 1).saturating_sub(MOST_VALUES));
                    values.push(value.to_owned());
                }
            });
            Ok(())
        })
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            self.change(|values| values.retain(|present| present != value));
            Ok(())
        })
    }
}
