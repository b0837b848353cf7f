//! Places for public connections: so many in all, and so many from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// What one address may have, and who may have any number: proxies speak for many.
    shares: ArcSwap<(usize, Vec<IpNet>)>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _among_all: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

#[derive(Debug)]
struct OfAddress {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All are taken.
    #[error("too many connections")]
    InAll,
    /// This address has as many as one may have.
    #[error("too many connections from one address")]
    OfAddress,
}

impl Places {
    /// `all` places, of which one address may have `each`; those of `exempt` networks any number.
    pub(crate) fn new(all: usize, each: usize, exempt: Vec<IpNet>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            shares: ArcSwap::from_pointee((each, exempt)),
            taken: Arc::default(),
        }
    }

    /// From now on, one address may have `each`, and those of `exempt` networks any number.
    pub(crate) fn set(&self, each: usize, exempt: Vec<IpNet>) {
        self.shares.store(Arc::new((each, exempt)));
    }

    /// A place for a connection from `address`.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let among_all = self.all.clone().try_acquire_owned().map_err(|_| Full::InAll)?;
        let address = address.to_canonical();
        let shares = self.shares.load();
        let (each, exempt) = &**shares;
        if exempt.iter().any(|network| network.contains(&address)) {
            return Ok(Place { _among_all: among_all, _of_address: None });
        }
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= *each {
            return Err(Full::OfAddress);
        }
        *count += 1;
        drop(taken);
        let of_address = OfAddress { taken: self.taken.clone(), address };
        Ok(Place { _among_all: among_all, _of_address: Some(of_address) })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Whoever has one IPv6 address has all of its /64 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
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
    fn an_address_has_its_share_and_gives_it_back() {
        let places = Places::new(4, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (first, second) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert_eq!(take("2001:db8::3").unwrap_err(), Full::OfAddress);
        let _others = (take("::ffff:10.0.0.1").unwrap(), take("10.0.0.1").unwrap());
        assert_eq!(take("10.0.0.1").unwrap_err(), Full::InAll);
        drop((first, second));
        assert!(places.taken.lock().unwrap().is_empty());
        assert!(take("2001:db8::3").is_ok());
    }
}
