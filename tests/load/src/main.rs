//! A steady load by visitors over HTTP/1.1, WebSockets and streams of events among them, and the service behind it.
//!
//! Not installed anywhere: the tests of restarts start it. It takes so little of a processor that how late an answer is
//! tells of what is tested and not of the load itself.

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

/// What takes a second does so by its pauses: that many pieces, each of these bytes, and after each of them a pause.
const PIECES: usize = 10;
const PIECE: Bytes = Bytes::from_static(&[b'x'; 1000]);
const PAUSE: Duration = Duration::from_millis(100);

/// A steady load, or the service behind it.
#[derive(Debug, Parser)]
enum Args {
    /// Answers, and says on standard output where
    Serve,
    /// Visits, and writes what became of each visit to standard output, in a line of JSON
    ///
    /// Ends when standard input does, and each visit with it. A line on standard input asks for a line on standard output,
    /// for when all that has begun is over and those who stay are here.
    Visit(Visits),
}

/// Who visits what.
#[derive(Debug, clap::Args)]
struct Visits {
    /// Where all hosts are
    #[arg(long)]
    address: SocketAddr,
    /// The certificate authority to trust, in PEM
    #[arg(long)]
    ca: PathBuf,
    /// How many visits a second
    #[arg(long)]
    rate: f64,
    /// How many of the hosts have visitors with a WebSocket and visitors with a stream of events
    #[arg(long)]
    staying: usize,
    /// The hosts, which are visited in turn
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
