//! Follows captured requests: server-sent events for the page and for `cok-client requests --follow`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::query::Query;
use super::reply::{Reply, ReplyBody, reply};
use super::state::State;
use crate::inspect::shared::Shared;
use crate::inspect::view::{Summary, matches};

/// The least time between two batches. A request that changes more often is sent in its latest state.
const PACE: Duration = Duration::from_millis(100);
/// How often a viewer hears something, so that one that has left is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The most parts of a batch that wait for a slow viewer.
const WAITING: usize = 16;

/// The viewer has left, or the client ends.
struct Left;

/// Sends the requests that meet the query's conditions whenever they change: from now on, or behind the revision `after`.
pub(super) fn follow(shared: Arc<Shared>, query: Query) -> Reply {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _left = run(shared, Arc::new(query), &sender).await;
    });
    reply(StatusCode::OK, "text/event-stream", ReplyBody::Stream(receiver))
}

async fn run(shared: Arc<Shared>, query: Arc<Query>, sender: &mpsc::Sender<Bytes>) -> Result<(), Left> {
    let mut changes = shared.store.follow();
    let mut seen = *changes.borrow_and_update();
    seen.revision = query.after.unwrap_or(seen.revision);
    let mut known = State::new(&shared);
    send(sender, "state", &known).await?;
    loop {
        let latest = *changes.borrow_and_update();
        if latest.cleared != seen.cleared {
            send(sender, "cleared", &()).await?;
        }
        if latest.revision != seen.revision {
            let (shared, query, since) = (shared.clone(), query.clone(), seen.revision);
            let batch = spawn_blocking(move || changed(&shared, &query, since)).await.unwrap_or_default();
            // Oldest first, as they began.
            for line in batch.iter().rev() {
                send(sender, "request", line).await?;
            }
        }
        seen = latest;
        let state = State::new(&shared);
        if !state.is_like(&known) {
            send(sender, "state", &state).await?;
            known = state;
        }
        sleep(PACE).await;
        loop {
            match timeout(KEEP_ALIVE, changes.changed()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return Err(Left),
                Err(_) => sender.send(Bytes::from_static(b":\n\n")).await.map_err(|_| Left)?,
            }
        }
    }
}

fn changed(shared: &Shared, query: &Query, since: u64) -> Vec<Summary> {
    let labels = shared.tunnels.labels();
    let glances = shared.store.select(since, |entry| Some(entry.glance()));
    glances.iter().filter_map(|glance| matches(shared, &query.filter, glance, &labels, query.secrets)).collect()
}

async fn send(sender: &mpsc::Sender<Bytes>, event: &str, data: &impl Serialize) -> Result<(), Left> {
    let data = serde_json::to_string(data).map_err(|_| Left)?;
    sender.send(format!("event: {event}\ndata: {data}\n\n").into()).await.map_err(|_| Left)
}
