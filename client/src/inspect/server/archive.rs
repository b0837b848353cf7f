//! Sends HTTP archives, entry by entry: all bodies at once would not fit into memory.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::query::Query;
use super::reply::{Reply, ReplyBody, reply};
use crate::inspect::export::{begin, end};
use crate::inspect::shared::Shared;
use crate::inspect::view::{har_entry, matches};

/// The parts of an archive that wait for a slow reader. One may have two bodies of 16 MiB.
const WAITING: usize = 1;

/// An archive of the requests that meet the query's conditions, oldest first, or of the one with this number.
pub(super) fn archive(shared: Arc<Shared>, query: Query, only: Option<u64>) -> Reply {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        // It ends with the reader.
        let _left = send(shared, Arc::new(query), only, &sender).await;
    });
    reply(StatusCode::OK, "application/json", ReplyBody::Stream(receiver))
}

/// The reader has left.
struct Left;

async fn send(
    shared: Arc<Shared>,
    query: Arc<Query>,
    only: Option<u64>,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), Left> {
    let pass_on = async |text: String| sender.send(text.into()).await.map_err(|_| Left);
    let (viewed, wanted) = (shared.clone(), query.clone());
    let ids = match only {
        Some(id) => vec![id],
        None => spawn_blocking(move || chosen(&viewed, &wanted)).await.map_err(|_| Left)?,
    };
    pass_on(begin()).await?;
    let mut comma = "";
    for id in ids {
        let (shared, secrets) = (shared.clone(), query.secrets);
        let entry = spawn_blocking(move || har_entry(&shared, &shared.store.find(id)?, secrets).ok()).await;
        // One that has made room meanwhile is left out.
        if let Ok(Some(entry)) = entry {
            pass_on(format!("{comma}{entry}")).await?;
            comma = ",";
        }
    }
    pass_on(end().to_owned()).await
}

/// The numbers of the requests, oldest first.
fn chosen(shared: &Shared, query: &Query) -> Vec<u64> {
    let labels = shared.tunnels.labels();
    let glances = shared.store.select(0, |entry| Some(entry.glance()));
    let meant =
        glances.iter().filter(|glance| matches(shared, &query.filter, glance, &labels, query.secrets).is_some());
    let mut ids: Vec<_> = meant.map(|glance| glance.live.id).take(query.limit).collect();
    ids.reverse();
    ids
}
