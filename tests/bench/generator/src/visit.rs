//! Visitors over HTTP/1.1: each connection sends one request after another, at once or when it is due.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

use crate::tally::Tally;
use crate::{Aim, Span, tls};

/// How late a timer of Tokio may be. Such a delay is not the server's.
const TIMER: Duration = Duration::from_millis(2);
/// The longest wait for a response after the end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The visits to make.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Visits {
    #[command(flatten)]
    aim: Aim,
    #[command(flatten)]
    span: Span,
    /// Requests a second of all connections; as many as possible without
    #[arg(long)]
    rate: Option<f64>,
}

/// Makes all visits and prints their tally.
pub(crate) async fn run(visits: Visits) -> anyhow::Result<()> {
    let tls = TlsConnector::from(Arc::new(tls::config(b"http/1.1")));
    let (visits, tally) = (Rc::new(visits), Rc::new(Tally::default()));
    let tasks = LocalSet::new();
    // The connections stand before the time begins.
    let mut open = Vec::new();
    for number in 0..visits.span.connections {
        let host = visits.aim.host(number);
        open.push((host.clone(), connect(&tls, &visits, &host).await?));
    }
    let began = Instant::now();
    for (number, (host, requests)) in open.into_iter().enumerate() {
        let (visits, tally) = (visits.clone(), tally.clone());
        tasks.spawn_local(async move {
            if let Err(why) = keep_asking(&visits, number, &host, requests, began, &tally).await {
                tally.failed(&why);
            }
        });
    }
    tasks.await;
    Rc::into_inner(tally).unwrap_or_default().print(visits.span.seconds)
}

async fn connect(tls: &TlsConnector, visits: &Visits, host: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = tls::connect(tls, visits.aim.address, host, None).await?;
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A request reports a failed connection.
    tokio::spawn(connection);
    Ok(requests)
}

/// Sends the requests of one connection until the end. A request that is under way at the end does not count.
async fn keep_asking(
    visits: &Visits,
    number: usize,
    host: &str,
    mut requests: SendRequest<Empty<Bytes>>,
    began: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    let end = began + visits.span.seconds;
    let step = visits.rate.map(|rate| Duration::from_secs_f64(visits.span.connections as f64 / rate));
    let mut due = began + step.unwrap_or_default() * number as u32 / visits.span.connections as u32;
    while due < end {
        let mut from = Instant::now();
        if step.is_some() {
            sleep_until(due).await;
            // The time counts from when a request is due, so that a stall shows in all requests that it delays.
            let now = Instant::now();
            from = if now - due < TIMER { now } else { due };
        }
        let limit = if step.is_some() { end + PATIENCE } else { end };
        match timeout_at(limit, ask(&mut requests, host, &visits.aim.path, tally)).await {
            Ok(Ok(())) => tally.answered(from.elapsed()),
            Ok(Err(why)) => return Err(why),
            Err(_) if step.is_none() => break,
            Err(late) => return Err(late.into()),
        }
        due = step.map_or_else(Instant::now, |step| due + step);
    }
    Ok(())
}

/// Sends a request and receives the whole response.
pub(crate) async fn ask(
    requests: &mut SendRequest<Empty<Bytes>>,
    host: &str,
    path: &str,
    tally: &Tally,
) -> anyhow::Result<()> {
    requests.ready().await?;
    let request = Request::get(path).header("host", host).body(Empty::new())?;
    let response = requests.send_request(request).await?;
    ensure!(response.status().is_success(), "answered with {}", response.status());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        tally.received(frame?.data_ref().map_or(0, Bytes::len));
    }
    Ok(())
}
