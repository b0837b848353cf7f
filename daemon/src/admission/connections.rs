//! The connection limit, in all and for each address.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out permits for public connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    all: Arc<Semaphore>,
    share: ArcSwap<Share>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A permit for one connection. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _among_all: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

/// The limit for each address.
#[derive(Debug)]
struct Share {
    per_address: usize,
    /// Networks without this limit: a proxy carries many visitors.
    exempt: Vec<IpNet>,
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
    /// Makes `all` permits, of which one address may hold `per_address`. Addresses of `exempt` networks may hold any
    /// number.
    pub(crate) fn new(all: usize, per_address: usize, exempt: Vec<IpNet>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            share: ArcSwap::from_pointee(Share { per_address, exempt }),
            taken: Arc::default(),
        }
    }

    /// Sets the limit for each address, and the exempt networks.
    pub(crate) fn set_share(&self, per_address: usize, exempt: Vec<IpNet>) {
        self.share.store(Arc::new(Share { per_address, exempt }));
    }

    /// Takes a permit for a connection from `address`.
    pub(crate) fn acquire(&self, address: IpAddr) -> Result<ConnectionPermit, Full> {
        let among_all = self.all.clone().try_acquire_owned().map_err(|_| Full::InAll)?;
        let address = address.to_canonical();
        let share = self.share.load();
        if share.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(ConnectionPermit { _among_all: among_all, _of_address: None });
        }
        let address = network(address);
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        if *count >= share.per_address {
            return Err(Full::OfAddress);
        }
        *count += 1;
        drop(taken);
        let of_address = OfAddress { taken: self.taken.clone(), address };
        Ok(ConnectionPermit { _among_all: among_all, _of_address: Some(of_address) })
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

/// The network that counts as one address. For IPv6 this is a /64, the smallest that a site gets (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_returns_it() {
        let limiter = ConnectionLimiter::new(4, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let acquire = |address: &str| limiter.acquire(address.parse().unwrap());
        let (first, second) = (acquire("2001:db8::1").unwrap(), acquire("2001:db8::2").unwrap());
        assert_eq!(acquire("2001:db8::3").unwrap_err(), Full::OfAddress);
        let _others = (acquire("::ffff:10.0.0.1").unwrap(), acquire("10.0.0.1").unwrap());
        assert_eq!(acquire("10.0.0.1").unwrap_err(), Full::InAll);
        drop((first, second));
        assert!(limiter.taken.lock().is_empty());
        assert!(acquire("2001:db8::3").is_ok());
    }
}
