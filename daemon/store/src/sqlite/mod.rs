//! The store of one machine: a SQLite file.
//!
//! One thread owns the connection, and callers reach it by a channel. Transactions that wait together become durable with
//! one fsync, each with a revision of its own. Another process may use the same file at the same time.
//!
//! The file is opened in the background and as often as it takes. Until then each call gets the reason why it can't be used.
//! A damaged file is never repaired, overwritten or deleted.

mod file;
mod log;
mod space;
mod worker;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use self::file::Identity;
use self::worker::{Job, Next, Reply, Task, Worker, Write, Written};
use crate::{Answer, Batch, LeaseId, Listing, Outcome, Revision, Store, StoreError, Transaction, Watch};

/// The most calls in the channel. Further callers wait.
const MAX_QUEUED: usize = 1024;

/// How a file is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many of the latest changes watches can ask for. The file keeps up to twice as many.
    pub kept_changes: u32,
    /// The most pages of 4 KiB that the file may have. `None` for as many as the disk has room for.
    pub max_pages: Option<u32>,
}

impl Default for Settings {
    /// 10,000 changes: with small values some 2 MiB, and minutes of a busy daemon.
    fn default() -> Self {
        Self { kept_changes: 10_000, max_pages: None }
    }
}

/// A store in a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    thread: Thread,
    trouble: watch::Receiver<Option<StoreError>>,
}

impl Sqlite {
    /// The store in this file, which is created if it does not exist, for its owner alone. Calls wait until the file was
    /// tried once. A file that can't be opened is tried again in the background.
    pub fn open(path: impl Into<PathBuf>) -> Arc<Self> {
        Self::open_with(path, Settings::default())
    }

    /// Likewise, with settings.
    pub fn open_with(path: impl Into<PathBuf>, settings: Settings) -> Arc<Self> {
        let path = path.into();
        let (jobs, queue) = mpsc::channel();
        let (state, trouble) = watch::channel(None);
        let worker = Worker::new(path.clone(), settings, queue, state);
        // Without a thread the channel has no receiver, and every call hears that.
        let _unstarted = std::thread::Builder::new().name("store".to_owned()).spawn(move || worker.run());
        let thread = Thread { jobs, places: Arc::new(Semaphore::new(MAX_QUEUED)) };
        Arc::new(Self { path, thread, trouble })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the store can't be used now, or takes no changes. `None` if it works.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.borrow().clone()
    }

    /// Follows [`Sqlite::trouble`].
    pub fn troubles(&self) -> watch::Receiver<Option<StoreError>> {
        self.trouble.clone()
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.thread.ask(StoreError::Unknown, |reply| Task::Write(write, reply)).await
    }
}

impl Store for Sqlite {
    fn list(&self, prefix: Bytes) -> Answer<'_, Listing> {
        Box::pin(self.thread.ask(StoreError::Unavailable, |reply| Task::List(prefix, reply)))
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Outcome> {
        Box::pin(async move {
            match self.write(Write::Commit(transaction)).await? {
                Written::Outcome(outcome) => Ok(outcome),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn watch(&self, prefix: Bytes, from: Revision) -> Answer<'_, Box<dyn Watch>> {
        Box::pin(async move {
            let space = self.thread.ask(StoreError::Unavailable, |reply| Task::Watch(from, reply)).await?;
            let (thread, position) = (self.thread.clone(), Arc::new(AtomicU64::new(from.0)));
            Ok(Box::new(Follower { thread, prefix, position, space, read: VecDeque::new() }) as Box<dyn Watch>)
        })
    }

    fn grant(&self, time_to_live: Duration) -> Answer<'_, LeaseId> {
        Box::pin(async move {
            match self.write(Write::Grant(time_to_live)).await? {
                Written::Lease(lease) => Ok(lease),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn renew(&self, lease: LeaseId) -> Answer<'_, ()> {
        Box::pin(async move { self.write(Write::Renew(lease)).await.map(|_| ()) })
    }

    fn release(&self, lease: LeaseId) -> Answer<'_, ()> {
        Box::pin(async move { self.write(Write::Release(lease)).await.map(|_| ()) })
    }
}

fn unexpected(answer: &Written) -> StoreError {
    StoreError::Unknown(format!("its thread answered something else: {answer:?}"))
}

/// The way to the thread. The thread ends with the last of these.
#[derive(Clone, Debug)]
struct Thread {
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
}

impl Thread {
    /// Has the thread do something. If its answer is lost, the error is `lost`.
    async fn ask<T>(
        &self,
        lost: fn(String) -> StoreError,
        task: impl FnOnce(Reply<T>) -> Task,
    ) -> Result<T, StoreError> {
        let ended = || "its thread has ended; restart the process".to_owned();
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return Err(StoreError::Unavailable(ended()));
        };
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { task: task(reply), place }).is_err() {
            return Err(StoreError::Unavailable(ended()));
        }
        answer.await.unwrap_or_else(|_| Err(lost(ended())))
    }
}

/// A watch. It asks for the next changes, so a slow reader costs no memory.
#[derive(Debug)]
struct Follower {
    thread: Thread,
    prefix: Bytes,
    /// The first revision that was not read yet. The thread advances it over changes of other keys.
    position: Arc<AtomicU64>,
    space: Identity,
    /// What was read already.
    read: VecDeque<Batch>,
}

impl Watch for Follower {
    fn next(&mut self) -> Answer<'_, Batch> {
        Box::pin(async move {
            loop {
                if let Some(batch) = self.read.pop_front() {
                    return Ok(batch);
                }
                let next =
                    Next { prefix: self.prefix.clone(), position: self.position.clone(), space: self.space.clone() };
                let read = self.thread.ask(StoreError::Unavailable, |reply| Task::Next(next, reply)).await?;
                if let Some(last) = read.last() {
                    self.position.store(last.revision.0 + 1, Ordering::Relaxed);
                }
                self.read.extend(read);
            }
        })
    }
}

#[cfg(test)]
mod tests;
