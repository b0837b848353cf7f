//! A steady load by visitors over HTTP/1.1, WebSockets and streams of events among them, and the service behind it.
//!
//! The tests of restarts start it; it is not installed. It uses so little processor time that a late response shows
//! a delay of cok and not of the load.

mod connection;
mod exchanges;
mod load;
mod service;
mod visit;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;

/// A body of one second has this many pieces of these bytes, with a pause after each.
const PIECES: usize = 10;
const PIECE: Bytes = Bytes::from_static(&[b'x'; 1000]);
const PAUSE: Duration = Duration::from_millis(100);

/// A steady load, or the service behind it.
#[derive(Debug, Parser)]
enum Args {
    /// Serves, and prints its address to standard output
    Serve,
    /// Visits, and reports each visit on standard output as a line of JSON
    ///
    /// The load and all visits end when standard input ends. A line on standard input asks for a `caught_up` line. It
    /// comes once all visits that have begun are over and all long-lived visits are connected.
    Visit(Visits),
}

/// The visits to make.
#[derive(Debug, clap::Args)]
struct Visits {
    /// The address of all hosts
    #[arg(long)]
    address: SocketAddr,
    /// The certificate authority to trust, in PEM
    #[arg(long)]
    ca: PathBuf,
    /// Visits a second
    #[arg(long)]
    rate: f64,
    /// The number of hosts with WebSockets and streams of events
    #[arg(long)]
    staying: usize,
    /// The hosts; visits go to each in turn
    #[arg(required = true)]
    hosts: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Args::parse() {
        Args::Serve => service::serve().await,
        Args::Visit(visits) => load::run(visits).await,
    }
}
