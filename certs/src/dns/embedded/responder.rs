//! The responder: a zone, its published values, and the state of its addresses. It has no sockets.

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

/// The longest TXT string (RFC 1035, section 3.3). An ACME value has 43 characters.
const LONGEST_VALUE: usize = 255;

/// The responder and solver. It answers with a value from the moment that it is presented.
#[derive(Debug)]
pub struct Embedded {
    zone: Zone,
    pub(super) published: ArcSwap<Published>,
    /// The addresses where it should answer, each with the reason if it does not.
    addresses: Mutex<BTreeMap<SocketAddr, Option<String>>>,
}

impl Embedded {
    /// A responder for a zone, with no values yet.
    pub fn new(zone: Zone) -> Arc<Self> {
        // The time grows across restarts, too, and faster than the changes between them.
        let published = Published { values: Vec::new(), serial: unix_now().unsigned_abs() as u32 };
        Arc::new(Self { zone, published: ArcSwap::from_pointee(published), addresses: Mutex::default() })
    }

    /// Answers a query. `None` if there is nothing to answer.
    pub fn answer(&self, query: &[u8], over: Over) -> Option<Vec<u8>> {
        answer::answer(&self.zone, &self.published.load(), query, over)
    }

    /// Records that an address is served, or why it is not. Returns true if [`Self::refused`] changes.
    pub fn note(&self, address: SocketAddr, refused: Option<&SolverError>) -> bool {
        let refused = refused.map(ToString::to_string);
        let mut addresses = self.addresses.lock();
        let before = addresses.insert(address, refused.clone()).flatten();
        before != refused
    }

    /// Why addresses are not served. `None` if all are.
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
    /// Without a served address the ACME server would ask in vain, and count a failure.
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
                    "the ACME server asks for a TXT record of {} bytes; at most {LONGEST_VALUE} are possible",
                    value.len()
                )));
            }
            self.change(|values| {
                if !values.iter().any(|present| present == value) {
                    // The oldest is most likely a forgotten one.
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
