//! `cok-client requests`: lists the latest requests, or prints each one as it ends.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use cok_host::say;
use http_body_util::BodyExt as _;
use serde::Deserialize;

use super::ask::{OfClient, Running, block_on, query};
use super::lines::{line, table};
use crate::inspect::Summary;

/// The numbers of requests that were printed. Only of the latest may further changes come.
const REMEMBERED: usize = 20_000;
/// The longest event of the inspector: the state of one request.
const LONGEST_EVENT: usize = 1024 * 1024;

/// Which requests to list.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RequestsArgs {
    /// Only requests that meet all conditions: path=/hooks, method=POST, status=404,5xx,open,failed, tunnel=web,
    /// min-ms=100, max-ms=500; any other word is a text that stands somewhere in them
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Print each request once, when it ends; WebSockets and event streams when they begin. It ends with the client
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON array; with --follow one object a line
    #[arg(long)]
    json: bool,
    /// The most requests of the list
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print everything about the request with this ID as JSON
    #[arg(long, value_name = "ID", conflicts_with_all = ["filters", "follow", "limit"])]
    show: Option<u64>,
    /// Show passwords, tokens and cookies as they are
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    client: OfClient,
}

#[derive(Deserialize)]
struct List {
    requests: Vec<Summary>,
}

/// Lists requests.
pub(in crate::cli) fn requests(args: &RequestsArgs) -> anyhow::Result<ExitCode> {
    let more = [("limit", args.limit.to_string()), ("reveal", args.reveal.to_string())];
    let query = query(&args.filters, &more)?;
    block_on(async {
        let running = args.client.find().await?;
        if let Some(id) = args.show {
            let text = running.read(&format!("requests/{id}?reveal={}", args.reveal)).await?;
            say!("{}", String::from_utf8_lossy(&text));
            return Ok(());
        }
        if args.follow {
            return follow(&running, &query, args.json).await;
        }
        let List { mut requests } = serde_json::from_slice(&running.read(&format!("requests?{query}")).await?)?;
        // The newest last, as in a log.
        requests.reverse();
        if args.json {
            say!("{}", serde_json::to_string(&requests)?);
        } else if requests.is_empty() {
            say!("no requests");
        } else {
            for line in table(&requests) {
                say!("{line}");
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the requests so far, and then each one once it has ended, or has become a stream.
async fn follow(running: &Running, query: &str, json: bool) -> anyhow::Result<()> {
    let mut body = running.get(&format!("events?after=0&{query}")).await?.into_body();
    let (mut buffer, mut printed) = (Vec::new(), BTreeSet::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let Some(data) = event.strip_prefix(b"event: request\ndata: ") else { continue };
            let request: Summary = serde_json::from_slice(data).context("the inspector is of another version")?;
            let is_due = request.state != "open" || request.kind != "request";
            if is_due && printed.insert(request.id) {
                if json {
                    say!("{}", serde_json::to_string(&request)?);
                } else {
                    say!("{}", line(&request));
                }
            }
            if printed.len() > REMEMBERED {
                printed.pop_first();
            }
        }
        if buffer.len() > LONGEST_EVENT {
            return Err(anyhow!("the inspector is of another version"));
        }
    }
    Ok(())
}
