//! Connections that stay open: idle after one request, or stalled in the middle of a response.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::tally::Tally;
use crate::{Aim, stay, tls, visit};

/// A receive buffer that fills at once.
const SMALL: u32 = 16 << 10;

/// The connections to hold.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Held {
    #[command(flatten)]
    aim: Aim,
    /// How many
    #[arg(long)]
    connections: usize,
    /// Reads a response's first bytes and then nothing more, instead of the whole response
    #[arg(long)]
    stalled: bool,
}

/// Opens all connections, one after the other, and holds them.
pub(crate) async fn run(held: Held) -> anyhow::Result<()> {
    let tls = TlsConnector::from(Arc::new(tls::config(b"http/1.1")));
    let (mut idle, mut stalled) = (Vec::new(), Vec::new());
    for number in 0..held.connections {
        let host = held.aim.host(number);
        let mut stream = tls::connect(&tls, held.aim.address, &host, held.stalled.then_some(SMALL))
            .await
            .with_context(|| format!("connection {number}"))?;
        if held.stalled {
            let request = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n\r\n", held.aim.path);
            stream.write_all(request.as_bytes()).await?;
            stream.read_u8().await?;
            stalled.push(stream);
        } else {
            let (mut requests, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            visit::ask(&mut requests, &host, &held.aim.path, &Tally::default()).await?;
            idle.push((requests, connection));
        }
    }
    stay().await;
    let gone = idle.iter().filter(|(_, connection)| connection.is_finished()).count();
    anyhow::ensure!(gone == 0, "the daemon closed {gone} of {} connections", idle.len());
    Ok(())
}
