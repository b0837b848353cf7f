//! Limits the answers over UDP to each network, so that forged queries cannot flood their victims with our answers.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Answers a second for one network. An ACME server and its resolvers ask a few times for each value. A public resolver
/// asks for each tunnel once in five minutes.
const RATE: u32 = 100;
/// Answers at once for one network.
const BURST: u32 = 200;
/// The number of counters. Networks that share one share its allowance. They take 32 KiB, and limit all answers
/// together to the rate times this number.
const SLOTS: usize = 4096;

/// The addresses that one site usually has and can use in turn: a /24 of IPv4 or a /56 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(u64);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits() >> 8)),
            // The upper half of an internet address is too large to equal an IPv4 network above.
            IpAddr::V6(address) => Self((address.to_bits() >> 72) as u64),
        }
    }
}

/// The counters of answers.
#[derive(Debug)]
pub(super) struct Limiter {
    started: Instant,
    /// For each counter, when its last answer would go out at an even rate, measured from the start.
    slots: Vec<Duration>,
    hasher: RandomState,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, slots: vec![Duration::ZERO; SLOTS], hasher: RandomState::new() }
    }

    /// True if one more answer is within the network's allowance. It is counted then.
    pub(super) fn allows(&mut self, network: Network, now: Instant) -> bool {
        let index = self.hasher.hash_one(network) as usize % SLOTS;
        let interval = Duration::from_secs(1) / RATE;
        let now = now.duration_since(self.started);
        let Some(slot) = self.slots.get_mut(index) else { return false };
        // How far this answer is ahead of the even rate.
        let early = slot.saturating_sub(now);
        if early >= interval * BURST {
            return false;
        }
        *slot = now + early + interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn a_network_is_what_one_site_has() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.7"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2200::1"), network("2001:db8:1:22ff:ffff::"));
        assert_ne!(network("2001:db8:1:2200::1"), network("2001:db8:1:2300::1"));
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut passed =
            |network: Network, at: Duration| (0..10_000).filter(|_| limiter.allows(network, start + at)).count() as u32;
        let one = network("192.0.2.1");
        assert_eq!(passed(one, Duration::ZERO), BURST);
        assert_eq!(passed(one, Duration::from_secs(1)), RATE);
        assert_eq!(passed(one, Duration::from_secs(3600)), BURST);
        // Other networks have their own allowance, except for the few that share a counter.
        let at = Duration::from_secs(3600);
        let others = (0..100).filter(|other| passed(network(&format!("198.51.{other}.1")), at) == BURST).count();
        assert!(others >= 90, "{others}");
    }
}
