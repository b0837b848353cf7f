//! The inspector: it shows the requests of a client's tunnels on a page of this machine, and repeats them.
//!
//! `capture` wraps the halves of each exchange and copies what passes into a `queue`. The `recorder`, a thread, fills the
//! `store` from there. The `server`, another thread, shows copies of its entries. So neither a disk nor a page holds up a
//! byte of traffic: what has no room in the queue, or is beyond its budgets, is not captured, and viewers see that.

mod capture;
mod decode;
mod export;
mod filter;
mod kind;
mod live;
mod messages;
mod queue;
mod recorder;
mod replay;
mod rest;
mod secrets;
mod server;
mod shared;
mod store;
mod token;
mod tunnels;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::capture::{Captured, Tap};
pub(crate) use self::filter::Filter;
use self::queue::{Queue, queue};
use self::recorder::Recorder;
use self::shared::Shared;
use self::store::{Spool, Store};
use self::token::Token;
pub(crate) use self::tunnels::Exchanges;
use self::tunnels::Tunnels;
pub(crate) use self::view::Summary;
use crate::event::TunnelHandle;

/// Whether requests are shown, and at which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// They are not.
    Off,
    /// At this port of the loopback address, or at a free one if it is taken. 0 is any free one.
    Port(u16),
}

impl Inspect {
    /// The port that users look for first.
    pub const USUAL: Self = Self::Port(4040);
}

impl FromStr for Inspect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            port => port.parse().map(Self::Port).map_err(|_| format!("\"{text}\" is not \"off\" or a port")),
        }
    }
}

/// Shows the requests of a client. It ends with the last holder.
#[derive(Debug)]
pub struct Inspector {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    _server: DropGuard,
}

impl Inspector {
    /// Starts it. Long bodies go to a file without a name in `folder`, or where the system keeps temporary files. Must be
    /// called in the runtime of the client.
    pub(crate) fn start(port: u16, folder: Option<&Path>) -> io::Result<Self> {
        let listener = listen(port)?;
        let (queue, receiver) = queue();
        let shared = Arc::new(Shared {
            store: Arc::new(Store::new(Spool::new(folder))),
            load: queue.load().clone(),
            tunnels: Tunnels::default(),
            address: listener.local_addr()?,
            token: Token::new()?,
            runtime: Handle::current(),
        });
        let recorder = Recorder::new(shared.store.clone(), shared.load.clone());
        thread::Builder::new().name("inspector".to_owned()).spawn(move || recorder.run(&receiver))?;
        let stop = CancellationToken::new();
        server::start(listener, shared.clone(), stop.clone())?;
        Ok(Self { queue, shared, _server: stop.drop_guard() })
    }

    /// Where the page is: an address of this machine.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The page's address. It opens the page only with the token of [`Inspector::secret_url`].
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The page's address with the token that opens it. Who knows it sees and repeats all requests.
    pub fn secret_url(&self) -> String {
        format!("{}/#{}", self.url(), self.shared.token.as_str())
    }

    /// The token that scripts send as `Authorization: Bearer`.
    pub fn token(&self) -> &str {
        self.shared.token.as_str()
    }

    /// Captures the exchanges of a tunnel.
    pub(crate) fn tap(&self, tunnel: TunnelHandle) -> Tap {
        Tap { queue: self.queue.clone(), tunnel }
    }

    /// Notes a tunnel. `exchanges` answers the requests that are repeated.
    pub(crate) fn opened(&self, tunnel: TunnelHandle, label: Option<String>, exchanges: Exchanges) {
        self.shared.tunnels.opened(tunnel, label, exchanges);
    }
}

/// Listens on the loopback address alone.
fn listen(port: u16) -> io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(port).or_else(|_taken| bind(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_or_off_is_named() {
        assert_eq!("off".parse(), Ok(Inspect::Off));
        assert_eq!("0".parse(), Ok(Inspect::Port(0)));
        assert_eq!("4040".parse(), Ok(Inspect::USUAL));
        for text in ["", "on", "70000", "127.0.0.1:1"] {
            assert!(text.parse::<Inspect>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let first = listen(0).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = listen(port).unwrap().local_addr().unwrap();
        assert!(second.ip().is_loopback() && second.port() != port);
    }
}
