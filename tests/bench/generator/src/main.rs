//! What the benchmark needs and no other program offers: visitors at a fixed rate and over HTTP/3, visitors that stand
//! still, thousands of sessions in one process, and the end of an upload.
//!
//! A mode prints one line of JSON to standard output. Or it prints `ready` once everything stands, and waits until standard
//! input ends. Downloads then print their line of JSON.

mod hold;
mod http3;
mod sessions;
mod sink;
mod tally;
mod tls;
mod visit;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::io::AsyncReadExt as _;

/// Load for the benchmark.
#[derive(Debug, Parser)]
enum Args {
    /// Takes uploads over HTTP/1.1, and prints its address
    Sink,
    /// Sends requests over HTTP/1.1, as many as possible or at a fixed rate
    Visit(visit::Visits),
    /// Sends as many requests as possible over HTTP/3
    Http3(http3::Visits),
    /// Opens connections that stay idle after a request, stand still within a response, or download without end
    Hold(hold::Held),
    /// Opens sessions with tunnels
    Sessions(sessions::Wanted),
}

/// Where the requests go.
#[derive(Clone, Debug, clap::Args)]
struct Aim {
    /// The address of all hosts
    #[arg(long)]
    address: SocketAddr,
    /// The host; `{}` stands for a number below `--hosts`
    #[arg(long)]
    host: String,
    /// The number of hosts; connections use them in turn
    #[arg(long, default_value_t = 1)]
    hosts: usize,
    /// What to ask for
    #[arg(long, default_value = "/")]
    path: String,
}

impl Aim {
    /// Returns the host of a connection.
    fn host(&self, connection: usize) -> String {
        self.host.replace("{}", &(connection % self.hosts.max(1)).to_string())
    }
}

/// Connections that send requests for a time.
#[derive(Clone, Debug, clap::Args)]
struct Span {
    /// Connections that share the requests
    #[arg(long)]
    connections: usize,
    /// How long to send requests
    #[arg(long, value_parser = seconds)]
    seconds: Duration,
}

/// A time in seconds.
fn seconds(text: &str) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(text.parse()?).context("not a time")
}

/// Prints that everything stands, and waits until standard input ends.
async fn stay() {
    println!("ready");
    // An error ends the wait as well.
    let _ended = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The process has one provider of cryptography, so a second call does not happen.
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match args {
        Args::Sink => sink::serve().await,
        Args::Visit(visits) => visit::run(visits).await,
        Args::Http3(visits) => http3::run(visits).await,
        Args::Hold(held) => hold::run(held).await,
        Args::Sessions(wanted) => sessions::run(wanted).await,
    }
}
