//! Visitors over HTTP/3: each of some connections has streams that send one request after another.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::ensure;
use bytes::{Buf as _, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout_at};

use crate::tally::Tally;
use crate::{Aim, Span, tls};

/// The visits to make.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Visits {
    #[command(flatten)]
    aim: Aim,
    #[command(flatten)]
    span: Span,
    /// Requests at once on each connection
    #[arg(long)]
    streams: usize,
}

/// Makes all visits and prints their tally.
pub(crate) async fn run(visits: Visits) -> anyhow::Result<()> {
    let (visits, tally) = (Rc::new(visits), Rc::new(Tally::default()));
    let tls = QuicClientConfig::try_from(tls::config(b"h3"))?;
    let mut endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::UNSPECIFIED, 0).into())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let (tasks, mut open, mut drivers) = (LocalSet::new(), Vec::new(), Vec::new());
    for number in 0..visits.span.connections {
        let host = visits.aim.host(number);
        let connection = endpoint.connect(visits.aim.address, &host)?.await?;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        // A request reports a failed connection.
        drivers.push(tokio::spawn(async move { driver.wait_idle().await }));
        open.push((format!("https://{host}{}", visits.aim.path), requests));
    }
    let end = Instant::now() + visits.span.seconds;
    for (uri, requests) in &open {
        for _ in 0..visits.streams {
            let (uri, requests, tally) = (uri.clone(), requests.clone(), tally.clone());
            tasks.spawn_local(async move {
                if let Err(why) = keep_asking(requests, &uri, end, &tally).await {
                    tally.failed(&why);
                }
            });
        }
    }
    tasks.await;
    for driver in drivers {
        driver.abort();
    }
    Rc::into_inner(tally).unwrap_or_default().print(visits.span.seconds)
}

/// Sends one request after another until the end. A request that is under way at the end does not count.
async fn keep_asking(
    mut requests: SendRequest<OpenStreams, Bytes>,
    uri: &str,
    end: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    loop {
        let began = Instant::now();
        match timeout_at(end, ask(&mut requests, uri, tally)).await {
            Ok(ended) => ended?,
            Err(_) => return Ok(()),
        }
        tally.answered(began.elapsed());
    }
}

async fn ask(requests: &mut SendRequest<OpenStreams, Bytes>, uri: &str, tally: &Tally) -> anyhow::Result<()> {
    let mut stream = requests.send_request(Request::get(uri).body(())?).await?;
    stream.finish().await?;
    let response = stream.recv_response().await?;
    ensure!(response.status().is_success(), "answered with {}", response.status());
    while let Some(data) = stream.recv_data().await? {
        tally.received(data.remaining());
    }
    Ok(())
}
