//! The thread that owns the connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::Settings;
use super::file::{Fault, File, Identity};
use super::log;
use super::space::{self, Answered, Writer};
use crate::{Batch, LeaseId, Listing, Outcome, Revision, StoreError, Transaction};

/// How often another process's changes are looked for while somebody watches. It costs a look at shared memory.
const POLL: Duration = Duration::from_millis(100);
/// The pause before a file is tried again. It doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// The room that there must be then.
const PROBED_ROOM: i32 = 256 * 1024;
/// The most transactions that one fsync makes durable.
const MAX_GROUP: usize = 256;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Task,
    /// Its place in the channel.
    pub(super) place: OwnedSemaphorePermit,
}

/// What a call wants.
#[derive(Debug)]
pub(super) enum Task {
    List(Bytes, Reply<Listing>),
    Write(Write, Reply<Written>),
    /// Begins a watch, and names the space that it watches.
    Watch(Revision, Reply<Identity>),
    /// The next changes of a watch.
    Next(Next, Reply<Vec<Batch>>),
}

/// A call that changes something.
#[derive(Debug)]
pub(super) enum Write {
    Commit(Transaction),
    Grant(Duration),
    Renew(LeaseId),
    Release(LeaseId),
}

/// Its answer.
#[derive(Debug)]
pub(super) enum Written {
    Outcome(Outcome),
    Lease(LeaseId),
    Done,
}

/// What a watch waits for.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) prefix: Bytes,
    /// The first revision that it has not seen.
    pub(super) position: Arc<AtomicU64>,
    pub(super) space: Identity,
}

#[derive(Debug)]
pub(super) struct Worker {
    path: PathBuf,
    settings: Settings,
    jobs: Receiver<Job>,
    trouble: watch::Sender<Option<StoreError>>,
    file: Option<File>,
    /// True once the file was open. From then on it must exist, since a new one in its place would lack what it had.
    existed: bool,
    /// When the file is tried again, or a full disk, and the pause after that.
    retry: Instant,
    pause: Duration,
    /// The watches that wait.
    waiting: Vec<(Next, Reply<Vec<Batch>>)>,
    /// True if there may be changes that the watches have not seen.
    changed: bool,
    /// Changes whenever another process changes the file.
    data_version: i64,
    /// When the next lease ends, on the wall's clock.
    next_end: Option<u64>,
}

impl Worker {
    pub(super) fn new(
        path: PathBuf,
        settings: Settings,
        jobs: Receiver<Job>,
        trouble: watch::Sender<Option<StoreError>>,
    ) -> Self {
        Self {
            path,
            settings,
            jobs,
            trouble,
            file: None,
            existed: false,
            retry: Instant::now(),
            pause: FIRST_RETRY,
            waiting: Vec::new(),
            changed: false,
            data_version: 0,
            next_end: None,
        }
    }

    /// Serves until the last handle is gone.
    pub(super) fn run(mut self) {
        loop {
            self.look_after();
            let first = match self.idle() {
                Some(idle) => match self.jobs.recv_timeout(idle) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                None => match self.jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            self.serve(first);
        }
    }

    /// How long there is nothing to do without a call. `None` for as long as none comes.
    fn idle(&self) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(Instant::now());
        let retry = (self.file.is_none() || self.trouble.borrow().is_some()).then(|| until(self.retry));
        let poll = (!self.waiting.is_empty() && self.file.is_some()).then_some(POLL);
        let lease = self.next_end.filter(|_| self.file.is_some());
        let lease = lease.map(|at| Duration::from_millis(at.saturating_sub(space::now())).max(POLL / 10));
        [retry, poll, lease].into_iter().flatten().min()
    }

    // ---- the file ----

    /// What is due without a call: another try, leases, changes of other processes, watches.
    fn look_after(&mut self) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        if self.file.is_none() {
            if Instant::now() < self.retry {
                return;
            }
            self.open();
        } else if self.trouble.borrow().is_some() && Instant::now() >= self.retry {
            // The disk was full.
            match self.with(|file| probe(file)) {
                Ok(()) => self.set_trouble(None),
                Err(_) => self.retry = Instant::now() + FULL_RETRY,
            }
        }
        self.refresh();
        if self.next_end.is_some_and(|at| at <= space::now()) {
            self.expire();
        }
        if self.changed && !self.waiting.is_empty() {
            self.feed();
        }
    }

    fn open(&mut self) {
        let opened = File::open(&self.path, !self.existed, &self.settings).and_then(|file| {
            // A disk that took no changes may still be read.
            if self.trouble.borrow().is_some() {
                probe(&file)?;
            }
            Ok(file)
        });
        match opened {
            Ok(file) => {
                self.file = Some(file);
                (self.existed, self.pause) = (true, FIRST_RETRY);
                // Any version is news.
                self.data_version = -1;
                self.set_trouble(None);
            }
            Err(Fault { error, .. }) => {
                self.retry = Instant::now() + self.pause;
                self.pause = (2 * self.pause).min(LAST_RETRY);
                self.set_trouble(Some(error));
            }
        }
    }

    fn set_trouble(&self, now: Option<StoreError>) {
        self.trouble.send_if_modified(|trouble| {
            let news = *trouble != now;
            *trouble = now;
            news
        });
    }

    /// Does something with the file. What that says about the file's state is noted.
    fn with<T>(&mut self, act: impl FnOnce(&mut File) -> Result<T, Fault>) -> Result<T, StoreError> {
        let Some(file) = &mut self.file else {
            let trouble = self.trouble.borrow().clone();
            return Err(trouble.unwrap_or_else(|| StoreError::Unavailable("it is not open yet".to_owned())));
        };
        let result = file.is_at(&self.path).and_then(|()| act(file));
        result.map_err(|Fault { error, reopen }| {
            if reopen {
                let moved = self.file.take().filter(|file| file.is_at(&self.path).is_err());
                if let Some(file) = moved {
                    file.abandon();
                }
            }
            let lasts = match &error {
                StoreError::Unknown(why) if reopen => Some(StoreError::Unavailable(why.clone())),
                StoreError::Full(_) => Some(error.clone()),
                _ => reopen.then(|| error.clone()),
            };
            if lasts.is_some() {
                self.retry = Instant::now() + self.pause;
                self.set_trouble(lasts);
            }
            error
        })
    }

    /// Looks for changes of other processes.
    fn refresh(&mut self) {
        if self.file.is_none() {
            return;
        }
        let seen = self.data_version;
        let refreshed = self.with(|file| {
            let version: i64 = file.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
            let next_end = if version == seen { None } else { Some(space::next_end(&file.connection)?) };
            Ok((version, next_end))
        });
        if let Ok((version, Some(next_end))) = refreshed {
            (self.data_version, self.next_end, self.changed) = (version, next_end, true);
        }
    }

    fn expire(&mut self) {
        let kept = self.settings.kept_changes;
        let expired = self.with(|file| {
            let mut writer = Writer::begin(&mut file.connection)?;
            writer.expire()?;
            writer.commit(kept)?;
            space::next_end(&file.connection)
        });
        self.changed = true;
        // After a failure it is tried again in a while.
        self.next_end = expired.unwrap_or(Some(space::now() + 1000));
    }

    // ---- calls ----

    fn serve(&mut self, first: Job) {
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        let mut next = Some(first);
        while let Some(Job { task, place }) = next {
            drop(place);
            match task {
                Task::Write(write, reply) => writes.push((write, reply)),
                Task::Next(next, reply) => {
                    self.waiting.push((next, reply));
                    self.changed = true;
                }
                read => reads.push(read),
            }
            next = if writes.len() + reads.len() < MAX_GROUP { self.jobs.try_recv().ok() } else { None };
        }
        if !writes.is_empty() {
            self.write(writes);
        }
        if reads.is_empty() {
            return;
        }
        // A lease that has ended must not show.
        self.refresh();
        if self.next_end.is_some_and(|at| at <= space::now()) {
            self.expire();
        }
        for read in reads {
            self.read(read);
        }
    }

    fn read(&mut self, task: Task) {
        match task {
            Task::List(prefix, reply) => {
                let _gone = reply.send(self.with(|file| space::list(&mut file.connection, &prefix)));
            }
            Task::Watch(from, reply) => {
                let extent = self.with(|file| Ok((log::extent(&file.connection)?, file.identity.clone())));
                let _gone = reply.send(extent.and_then(|(extent, identity)| {
                    if extent.lacks(from.0) { Err(StoreError::Compacted) } else { Ok(identity) }
                }));
            }
            Task::Write(..) | Task::Next(..) => {}
        }
    }

    /// Carries out all writes in one commit. If there is no room for all, each gets one of its own.
    fn write(&mut self, writes: Vec<(Write, Reply<Written>)>) {
        let wanted: Vec<_> = writes.iter().map(|(write, _)| write).collect();
        match self.together(&wanted) {
            Ok(results) => answer(writes, results),
            Err(StoreError::Full(_)) if writes.len() > 1 => {
                for write in writes {
                    self.write(vec![write]);
                }
            }
            Err(error) => answer(writes, std::iter::repeat_with(|| Err(error.clone()))),
        }
    }

    fn together(&mut self, writes: &[&Write]) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let kept = self.settings.kept_changes;
        let (results, next_end) = self.with(|file| {
            let mut writer = Writer::begin(&mut file.connection)?;
            writer.expire()?;
            let results = writes.iter().map(|write| perform(&mut writer, write)).collect::<Result<Vec<_>, _>>()?;
            writer.commit(kept)?;
            // The commit stands, whatever this says.
            Ok((results, space::next_end(&file.connection).ok()))
        })?;
        self.changed = true;
        if let Some(next_end) = next_end {
            self.next_end = next_end;
        }
        Ok(results)
    }

    // ---- watches ----

    /// Answers the watches that have something to read.
    fn feed(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.changed = false;
        for (next, reply) in waiting {
            match self.with(|file| read_next(file, &next)) {
                Ok(None) => self.waiting.push((next, reply)),
                Ok(Some(result)) => {
                    let _gone = reply.send(result);
                }
                // It waits until the store works again.
                Err(_) => {
                    self.changed = true;
                    self.waiting.push((next, reply));
                }
            }
        }
    }
}

/// What a watch gets now, if there is something.
fn read_next(file: &mut File, next: &Next) -> Result<Option<Result<Vec<Batch>, StoreError>>, Fault> {
    let from = next.position.load(Ordering::Relaxed);
    // One transaction, so that the log does not lose its beginning meanwhile.
    let transaction = file.connection.transaction()?;
    let extent = log::extent(&transaction)?;
    if next.space != file.identity || extent.lacks(from) {
        return Ok(Some(Err(StoreError::Compacted)));
    }
    if from > extent.revision {
        return Ok(None);
    }
    let batches = log::read(&transaction, &next.prefix, from)?;
    transaction.finish()?;
    if batches.is_empty() {
        next.position.store(extent.revision + 1, Ordering::Relaxed);
        return Ok(None);
    }
    Ok(Some(Ok(batches)))
}

fn perform(writer: &mut Writer<'_>, write: &Write) -> Answered<Written> {
    Ok(match write {
        Write::Commit(transaction) => writer.apply(transaction)?.map(Written::Outcome),
        Write::Grant(time_to_live) => Ok(Written::Lease(writer.grant(*time_to_live)?)),
        Write::Renew(lease) => writer.renew(*lease)?.map(|()| Written::Done),
        Write::Release(lease) => writer.release(*lease)?.map(|()| Written::Done),
    })
}

/// Sees whether there is room again, and takes it back.
fn probe(file: &File) -> Result<(), Fault> {
    file.connection.execute("INSERT INTO room VALUES (zeroblob(?1))", [PROBED_ROOM])?;
    file.connection.execute("DELETE FROM room", [])?;
    Ok(())
}

fn answer(writes: Vec<(Write, Reply<Written>)>, results: impl IntoIterator<Item = Result<Written, StoreError>>) {
    for ((_, reply), result) in writes.into_iter().zip(results) {
        let _gone = reply.send(result);
    }
}
