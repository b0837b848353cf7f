//! Connections that stay open: idle after one request, stalled in the middle of a response, or with a download that has no
//! end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tally::Tally;
use crate::{Aim, stay, tls, visit};

/// A receive buffer that fills at once.
const SMALL: u32 = 16 << 10;
/// How many bytes each download has before all of them count as under way.
const UNDER_WAY: usize = 64 << 10;

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hold {
    /// Read one whole response, and then wait
    Idle,
    /// Read the first byte of a response and nothing more
    Stalled,
    /// Read a response that has no end
    Download,
}

/// The connections to hold.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Held {
    #[command(flatten)]
    aim: Aim,
    /// How many
    #[arg(long)]
    connections: usize,
    /// What they do
    #[arg(long, value_enum, default_value_t = Hold::Idle)]
    hold: Hold,
}

/// Opens all connections, one after the other, and holds them. At the end, downloads print their bytes as a line of JSON.
pub(crate) async fn run(held: Held) -> anyhow::Result<()> {
    let tls = TlsConnector::from(Arc::new(tls::config(b"http/1.1")));
    let (mut idle, mut stalled, mut downloads) = (Vec::new(), Vec::new(), Vec::new());
    let received = Arc::<AtomicUsize>::default();
    for number in 0..held.connections {
        let host = held.aim.host(number);
        let room = (held.hold == Hold::Stalled).then_some(SMALL);
        let stream =
            tls::connect(&tls, held.aim.address, &host, room).await.with_context(|| format!("connection {number}"))?;
        match held.hold {
            Hold::Idle => {
                let (mut requests, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
                let connection = tokio::spawn(connection);
                visit::ask(&mut requests, &host, &held.aim.path, &Tally::default()).await?;
                idle.push((requests, connection));
            }
            Hold::Stalled => {
                let mut stream = begin(stream, &host, &held.aim.path).await?;
                stream.read_u8().await?;
                stalled.push(stream);
            }
            Hold::Download => {
                let mut stream = begin(stream, &host, &held.aim.path).await?;
                let (under_way, is_under_way) = tokio::sync::oneshot::channel();
                let received = received.clone();
                let download = tokio::spawn(async move {
                    read(&mut stream, UNDER_WAY, &received).await?;
                    let _waits = under_way.send(());
                    read(&mut stream, usize::MAX, &received).await
                });
                downloads.push((is_under_way, download));
            }
        }
    }
    for (is_under_way, _) in &mut downloads {
        is_under_way.await.context("a download has ended")?;
    }
    let (began, before) = (Instant::now(), received.load(Ordering::Relaxed));
    stay().await;
    if held.hold == Hold::Download {
        let bytes = received.load(Ordering::Relaxed) - before;
        println!("{}", serde_json::json!({ "bytes": bytes, "seconds": began.elapsed().as_secs_f64() }));
    }
    let gone = idle.iter().filter(|(_, connection)| connection.is_finished()).count();
    let gone = gone + downloads.iter().filter(|(_, download)| download.is_finished()).count();
    ensure!(gone == 0, "the daemon closed {gone} of {} connections", held.connections);
    Ok(())
}

/// Sends a request.
async fn begin(mut stream: TlsStream<TcpStream>, host: &str, path: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    Ok(stream)
}

/// Reads at least so many bytes, and adds them to what all connections have received.
async fn read(stream: &mut TlsStream<TcpStream>, enough: usize, received: &AtomicUsize) -> anyhow::Result<()> {
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    while total < enough {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the response has an end");
        total += read;
        received.fetch_add(read, Ordering::Relaxed);
    }
    Ok(())
}
