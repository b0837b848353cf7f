//! The connection limit, in all and for each address.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cok_http::visitor::network;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Fill;
use super::crowd::{Crowd, Member, Place};

/// The most connections that make room at once, so that the crowd is not looked through for each fresh one. Of few
/// connections it is this part of all.
const SHED_AT_ONCE: usize = 16;
const SHED_PART: usize = 16;
/// The most fresh connections that wait for room. Each holds a descriptor above the limit.
pub(crate) const MOST_WAITING: usize = 64;
/// How long a fresh connection waits for room, and how often it asks for it.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Hands out permits for public connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    all: Arc<Semaphore>,
    /// How many permits there are.
    most: usize,
    share: ArcSwap<Share>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    crowd: Arc<Crowd>,
    /// How many make room at once.
    at_once: usize,
    waiting: Arc<Semaphore>,
}

/// A permit for one connection. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    place: Place,
    _among_all: OwnedSemaphorePermit,
    of_address: Option<OfAddress>,
}

/// A fresh connection that waits for room.
#[derive(Debug)]
pub(crate) struct Waiting {
    limiter: Arc<ConnectionLimiter>,
    has_descriptor: bool,
    _place: OwnedSemaphorePermit,
}

/// The limit for each address.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) per_address: usize,
    /// Networks without this limit: a proxy carries many visitors.
    pub(super) exempt: Vec<IpNet>,
    /// Networks whose connections begin with the PROXY protocol.
    pub(super) proxy_protocol: Vec<IpNet>,
}

#[derive(Debug)]
struct OfAddress {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

/// Why a connection gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All permits are taken.
    #[error("too many connections")]
    InAll,
    /// This address has reached its limit.
    #[error("too many connections from one address")]
    OfAddress,
}

impl ConnectionLimiter {
    /// Makes `all` permits, of which one address may hold its share.
    pub(super) fn new(all: usize, share: Share) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            most: all,
            share: ArcSwap::from_pointee(share),
            taken: Arc::default(),
            crowd: Crowd::new(),
            at_once: (all / SHED_PART).clamp(1, SHED_AT_ONCE),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
        })
    }

    /// How many permits are taken, and how many there are.
    pub(crate) fn fill(&self) -> Fill {
        Fill { used: self.most.saturating_sub(self.all.available_permits()), most: self.most }
    }

    /// Sets the limit for each address, and the networks without it.
    pub(super) fn set_share(&self, share: Share) {
        self.share.store(Arc::new(share));
    }

    /// Whether connections from `address` have to begin with the PROXY protocol.
    pub(crate) fn speaks_proxy_protocol(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.share.load().proxy_protocol.iter().any(|network| network.contains(&address))
    }

    /// Takes a permit for a connection from `address` that holds no descriptor.
    pub(crate) fn acquire(&self, address: IpAddr) -> Result<ConnectionPermit, Full> {
        let mut permit = self.among_all(false)?;
        permit.count(self, address)?;
        Ok(permit)
    }

    /// Takes a permit for a connection over TCP whose address is not counted yet. If there is none, asks idle connections
    /// to make room.
    pub(crate) fn acquire_among_all(&self) -> Result<ConnectionPermit, Full> {
        self.among_all(true)
    }

    fn among_all(&self, has_descriptor: bool) -> Result<ConnectionPermit, Full> {
        let permit = self.all.clone().try_acquire_owned().map_err(|_| {
            self.crowd.shed(self.at_once, false);
            Full::InAll
        })?;
        Ok(self.permit(permit, has_descriptor))
    }

    /// Has some connections with descriptors closed that have been idle longest.
    pub(crate) fn free_descriptors(&self) {
        self.crowd.shed(SHED_AT_ONCE, true);
    }

    /// A place among those who wait for room. `None` if too many wait.
    pub(crate) fn wait(self: &Arc<Self>, has_descriptor: bool) -> Option<Waiting> {
        let waiting = self.waiting.clone().try_acquire_owned().ok()?;
        Some(Waiting { limiter: self.clone(), has_descriptor, _place: waiting })
    }

    fn permit(&self, among_all: OwnedSemaphorePermit, has_descriptor: bool) -> ConnectionPermit {
        ConnectionPermit { place: self.crowd.join(has_descriptor), _among_all: among_all, of_address: None }
    }
}

impl Waiting {
    /// Waits until idle connections have made room.
    pub(crate) async fn room(self) -> Result<ConnectionPermit, Full> {
        let limiter = &self.limiter;
        let room = async {
            let mut acquire = std::pin::pin!(limiter.all.clone().acquire_owned());
            loop {
                match timeout(ASK_EVERY, acquire.as_mut()).await {
                    Ok(permit) => return permit.map_err(|_| Full::InAll),
                    Err(_) => _ = limiter.crowd.shed(limiter.at_once, false),
                }
            }
        };
        let among_all = timeout(ROOM_WITHIN, room).await.map_err(|_| Full::InAll)??;
        Ok(limiter.permit(among_all, self.has_descriptor))
    }
}

impl ConnectionPermit {
    /// Counts the connection for its address.
    pub(crate) fn count(&mut self, limiter: &ConnectionLimiter, address: IpAddr) -> Result<(), Full> {
        let address = address.to_canonical();
        let share = limiter.share.load();
        if share.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let address = network(address);
        let mut taken = limiter.taken.lock();
        let count = taken.entry(address).or_default();
        if *count >= share.per_address {
            return Err(Full::OfAddress);
        }
        *count += 1;
        drop(taken);
        self.of_address = Some(OfAddress { taken: limiter.taken.clone(), address });
        Ok(())
    }

    /// The connection in the crowd.
    pub(crate) fn member(&self) -> &Arc<Member> {
        &self.place.member
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(per_address: usize) -> Share {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Share { per_address, exempt: proxies.clone(), proxy_protocol: proxies }
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_returns_it() {
        let limiter = ConnectionLimiter::new(4, share(2));
        let acquire = |address: &str| limiter.acquire(address.parse().unwrap());
        let (first, second) = (acquire("2001:db8::1").unwrap(), acquire("2001:db8::2").unwrap());
        assert_eq!(acquire("2001:db8::3").unwrap_err(), Full::OfAddress);
        let _others = (acquire("::ffff:10.0.0.1").unwrap(), acquire("10.0.0.1").unwrap());
        assert_eq!(acquire("10.0.0.1").unwrap_err(), Full::InAll);
        drop((first, second));
        assert!(limiter.taken.lock().is_empty());
        assert!(acquire("2001:db8::3").is_ok());
        assert!(limiter.speaks_proxy_protocol("::ffff:10.0.0.1".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_makes_room() {
        let limiter = ConnectionLimiter::new(2, share(9));
        let address = "192.0.2.1".parse().unwrap();
        let (busy, idle) = (limiter.acquire(address).unwrap(), limiter.acquire(address).unwrap());
        let _asks = busy.member().keep();
        assert_eq!(limiter.acquire_among_all().unwrap_err(), Full::InAll);
        let closes = async {
            idle.member().is_shed().await;
            drop(idle);
        };
        let (permit, ()) = tokio::join!(limiter.wait(true).unwrap().room(), closes);
        assert!(permit.is_ok());
        // A fresh connection is not idle for long enough, but is after a while.
        let closes = async {
            let permit = permit.unwrap();
            permit.member().is_shed().await;
        };
        let (permit, ()) = tokio::join!(limiter.wait(true).unwrap().room(), closes);
        let _asks = permit.as_ref().unwrap().member().keep();
        assert_eq!(limiter.wait(true).unwrap().room().await.unwrap_err(), Full::InAll);
    }
}
