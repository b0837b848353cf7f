//! Connects to one of several addresses: the first that answers, with a head start for the earlier ones (RFC 8305).
//!
//! [`first_of`] resolves no names and opens no sockets: the caller brings the addresses and the function that dials one.
//! [`by_name`] does both over TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;

/// How long one address may stay silent before the next is tried as well (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// The most addresses that are tried. A name with more of them has some among these that answer.
const MAX_ADDRESSES: usize = 8;

/// Dials the addresses in turn and returns the first answer. The next address is tried once one has failed or stays
/// silent for a moment. If none answers, the error is all failures in their order; it is empty if there is no address.
pub async fn first_of<T, E, F>(addresses: &[SocketAddr], dial: impl Fn(SocketAddr) -> F) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = alternated(addresses).into_iter().take(MAX_ADDRESSES);
    let mut dials = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        dials.extend(waiting.next().map(&dial));
        tokio::select! {
            biased;
            answer = dials.next() => match answer {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => failures.push(error),
                None => return Err(failures),
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// Connects over TCP to the first address of a host that answers. `limit` is the longest that one address may take. If none
/// answers, the error is the last failure.
pub async fn by_name(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let connected =
        first_of(&addresses, async |address| match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))),
        });
    let no_address = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    connected.await.map_err(|mut failures| failures.pop().unwrap_or_else(no_address))
}

/// Alternates between the address families, in the resolver's order otherwise (RFC 8305, section 4). The family of the
/// first address leads.
fn alternated(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let leads = |address: &&SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (mut first, mut second) = (addresses.iter().filter(leads), addresses.iter().filter(|address| !leads(address)));
    let mut alternated = Vec::with_capacity(addresses.len());
    while alternated.len() < addresses.len() {
        alternated.extend(first.next());
        alternated.extend(second.next());
    }
    alternated
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"]);
        assert_eq!(alternated(&mixed), addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]));
        assert!(alternated(&[]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_a_moment_and_a_refused_one_nothing() {
        let three = addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"]);
        let began = Instant::now();
        let found: Result<_, Vec<io::Error>> = first_of(&three, async |address| match address {
            _ if address == three[0] => pending().await,
            _ if address == three[1] => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(address),
        })
        .await;
        assert_eq!((found.unwrap(), began.elapsed()), (three[2], STAGGER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_win() {
        let two = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
        let found: Result<_, Vec<io::Error>> = first_of(&two, async |address| {
            sleep(if address == two[0] { STAGGER * 2 } else { STAGGER * 3 }).await;
            Ok(address)
        })
        .await;
        assert_eq!(found.unwrap(), two[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn none_answers() {
        let two = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
        let failed: Result<(), Vec<SocketAddr>> = first_of(&two, async |address| Err(address)).await;
        assert_eq!(failed.unwrap_err(), two);
        let nowhere: Result<(), Vec<SocketAddr>> = first_of(&[], async |_| Ok(())).await;
        assert!(nowhere.unwrap_err().is_empty());
    }
}
