//! The local services: whether they take a connection.

use std::io;
use std::time::{Duration, Instant};

use cok_host::dial::first_of;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use crate::server::resolve;
use crate::target::{Address, Target};
use crate::text::io_reason;
use crate::unix_socket;

/// Timeout of a connection, as a client has it by default.
const LIMIT: Duration = Duration::from_secs(5);

/// Checks each target.
pub(super) async fn check(targets: &[(Option<String>, Target)], report: &mut impl FnMut(Check)) {
    if targets.is_empty() {
        report(Check::skipped("target", "no TARGET is named, and none is in the configuration file"));
    }
    for (tunnel, target) in targets {
        let began = Instant::now();
        let connected = timeout(LIMIT, connect(target)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let check = match connected {
            Ok(()) => Check::ok("target", format!("{target} takes connections")).took(began.elapsed()),
            Err(error) => Check::failed(
                "target",
                format!("cannot connect to {target}: {}", io_reason(&error)),
                "start the service, or correct the target",
            ),
        };
        report(Check { tunnel: tunnel.clone(), ..check });
    }
}

async fn connect(target: &Target) -> io::Result<()> {
    match target {
        Target::Http(address) | Target::Https(address) | Target::H2c(address) => tcp(address).await,
        Target::Unix(path) => unix_socket::connect(path).await.map(drop),
        Target::Service(_) => Ok(()),
    }
}

async fn tcp(address: &Address) -> io::Result<()> {
    let addresses = resolve(&address.host, address.port).await?;
    let connected = first_of(&addresses, TcpStream::connect).await;
    connected.map(drop).map_err(|failures| failures.into_iter().next().unwrap_or(io::ErrorKind::NotFound.into()))
}
