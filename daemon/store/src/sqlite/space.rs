//! The space in its tables: listing, transactions and leases.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::file::Fault;
use super::log;
use crate::{Change, Condition, Entry, LeaseId, Listing, Outcome, Revision, StoreError, Transaction};

/// The longest key and value. Larger values belong into another kind of store.
const MAX_KEY: usize = 1024;
const MAX_VALUE: usize = 256 * 1024;
/// The most changes and conditions of a transaction. Others wait for it.
const MAX_CHANGES: usize = 10_000;

/// Something that a caller may have got wrong, besides what the file may do.
pub(super) type Answered<T> = Result<Result<T, StoreError>, Fault>;

/// A number as SQLite has it.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from SQLite.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default())
}

/// The time on the wall in milliseconds: leases outlive processes.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The end of the keys that begin with `prefix`: the first key after all of them. `None` if none comes after.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// The revision of the space.
pub(super) fn revision(connection: &Connection) -> Result<u64, Fault> {
    Ok(connection.query_row("SELECT revision FROM space", [], |row| number(row, 0))?)
}

/// Lists the entries under a prefix, all of one revision.
pub(super) fn list(connection: &mut Connection, prefix: &[u8]) -> Result<Listing, Fault> {
    let transaction = connection.transaction()?;
    let revision = Revision(revision(&transaction)?);
    let mut entries = Vec::new();
    {
        let mut query = transaction.prepare(
            "SELECT key, value, created, modified, lease FROM entries
             WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key",
        )?;
        let mut rows = query.query(params![prefix, end_of(prefix)])?;
        while let Some(row) = rows.next()? {
            entries.push(entry(row)?);
        }
    }
    transaction.finish()?;
    Ok(Listing { revision, entries })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: Bytes::from(row.get::<_, Vec<u8>>(0)?),
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        created: Revision(number(row, 2)?),
        modified: Revision(number(row, 3)?),
        lease: row.get::<_, Option<i64>>(4)?.map(|lease| LeaseId(lease.unsigned_abs())),
    })
}

/// When the next lease ends.
pub(super) fn next_end(connection: &Connection) -> Result<Option<u64>, Fault> {
    let next: Option<i64> = connection.query_row("SELECT min(ends) FROM leases", [], |row| row.get(0))?;
    Ok(next.map(|at| u64::try_from(at).unwrap_or_default()))
}

/// One commit of SQLite, which carries any number of transactions. Dropped before [`Writer::commit`], it changes nothing.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    transaction: rusqlite::Transaction<'a>,
    revision: u64,
    /// Changes that this commit adds to the log.
    logged: u64,
    now: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(connection: &'a mut Connection) -> Result<Self, Fault> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let revision = revision(&transaction)?;
        Ok(Self { transaction, revision, logged: 0, now: now() })
    }

    /// Makes everything durable, and keeps about this many changes in the log.
    pub(super) fn commit(self, kept: u32) -> Result<(), Fault> {
        if self.logged > 0 {
            let update = "UPDATE space SET revision = ?1, logged = logged + ?2";
            self.transaction.execute(update, params![sql(self.revision), sql(self.logged)])?;
            log::trim(&self.transaction, kept)?;
        }
        self.transaction.commit().map_err(Fault::of_commit)
    }

    /// Carries out a transaction.
    pub(super) fn apply(&mut self, wanted: &Transaction) -> Answered<Outcome> {
        if let Err(why) = check(wanted) {
            return Ok(Err(StoreError::Invalid(why)));
        }
        for condition in &wanted.conditions {
            if !self.holds(condition)? {
                return Ok(Ok(Outcome::Conflict));
            }
        }
        for change in &wanted.changes {
            if let Change::Put(_, _, Some(lease)) = change
                && self.time_to_live(*lease)?.is_none()
            {
                return Ok(Err(StoreError::NoLease));
            }
        }
        let before = self.logged;
        for change in &wanted.changes {
            match change {
                Change::Put(key, value, lease) => self.put(key, value, *lease)?,
                Change::Delete(key) => self.delete(key)?,
            }
        }
        if self.logged > before {
            self.revision += 1;
        }
        Ok(Ok(Outcome::Committed(Revision(self.revision))))
    }

    fn holds(&self, condition: &Condition) -> Result<bool, Fault> {
        let (Condition::Exists(key) | Condition::Absent(key) | Condition::Unchanged(key, _)) = condition;
        let query = "SELECT modified FROM entries WHERE key = ?1";
        let modified = self.transaction.query_row(query, [&key[..]], |row| number(row, 0)).optional()?;
        Ok(match condition {
            Condition::Exists(_) => modified.is_some(),
            Condition::Absent(_) => modified.is_none(),
            Condition::Unchanged(_, revision) => modified == Some(revision.0),
        })
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: Option<LeaseId>) -> Result<(), Fault> {
        let lease = lease.map(|lease| sql(lease.0));
        let next = self.revision + 1;
        let created: i64 = self.transaction.query_row(
            "INSERT INTO entries VALUES (?1, ?2, ?3, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, lease = ?4 RETURNING created",
            params![key, value, sql(next), lease],
            |row| row.get(0),
        )?;
        let log = "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)";
        self.transaction.execute(log, params![sql(next), key, value, created, lease])?;
        self.logged += 1;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Fault> {
        if self.transaction.execute("DELETE FROM entries WHERE key = ?1", [key])? > 0 {
            let log = "INSERT INTO log (revision, key) VALUES (?1, ?2)";
            self.transaction.execute(log, params![sql(self.revision + 1), key])?;
            self.logged += 1;
        }
        Ok(())
    }

    // ---- leases ----

    pub(super) fn grant(&mut self, time_to_live: Duration) -> Result<LeaseId, Fault> {
        let update = "UPDATE space SET leases = leases + 1 RETURNING leases";
        let id = self.transaction.query_row(update, [], |row| number(row, 0))?;
        let time_to_live = millis(time_to_live);
        let ends = self.now.saturating_add(time_to_live);
        let insert = "INSERT INTO leases VALUES (?1, ?2, ?3)";
        self.transaction.execute(insert, params![sql(id), sql(time_to_live), sql(ends)])?;
        Ok(LeaseId(id))
    }

    pub(super) fn renew(&mut self, lease: LeaseId) -> Answered<()> {
        let Some(time_to_live) = self.time_to_live(lease)? else { return Ok(Err(StoreError::NoLease)) };
        let ends = self.now.saturating_add(time_to_live);
        self.transaction.execute("UPDATE leases SET ends = ?2 WHERE id = ?1", params![sql(lease.0), sql(ends)])?;
        Ok(Ok(()))
    }

    pub(super) fn release(&mut self, lease: LeaseId) -> Answered<()> {
        if self.time_to_live(lease)?.is_none() {
            return Ok(Err(StoreError::NoLease));
        }
        self.end(lease)?;
        Ok(Ok(()))
    }

    /// Ends the leases whose time is over, each with a revision of its own.
    pub(super) fn expire(&mut self) -> Result<(), Fault> {
        let over = {
            let mut query = self.transaction.prepare("SELECT id FROM leases WHERE ends <= ?1 ORDER BY ends, id")?;
            let over = query.query_map([sql(self.now)], |row| number(row, 0))?;
            over.collect::<rusqlite::Result<Vec<_>>>()?
        };
        over.into_iter().try_for_each(|lease| self.end(LeaseId(lease)))
    }

    fn end(&mut self, lease: LeaseId) -> Result<(), Fault> {
        let keys = {
            let mut query = self.transaction.prepare("SELECT key FROM entries WHERE lease = ?1")?;
            let keys = query.query_map([sql(lease.0)], |row| row.get::<_, Vec<u8>>(0))?;
            keys.collect::<rusqlite::Result<Vec<_>>>()?
        };
        for key in &keys {
            self.delete(key)?;
        }
        if !keys.is_empty() {
            self.revision += 1;
        }
        self.transaction.execute("DELETE FROM leases WHERE id = ?1", [sql(lease.0)])?;
        Ok(())
    }

    /// How long a lease lives after a renewal. `None` if there is no such lease, or it has ended.
    fn time_to_live(&self, lease: LeaseId) -> Result<Option<u64>, Fault> {
        let query = "SELECT time_to_live FROM leases WHERE id = ?1 AND ends > ?2";
        let found = self.transaction.query_row(query, [sql(lease.0), sql(self.now)], |row| number(row, 0));
        Ok(found.optional()?)
    }
}

/// Whether a store takes such a transaction at all.
fn check(transaction: &Transaction) -> Result<(), String> {
    if transaction.changes.len() + transaction.conditions.len() > MAX_CHANGES {
        return Err(format!("it has more than {MAX_CHANGES} conditions and changes"));
    }
    let mut keys = HashSet::new();
    for change in &transaction.changes {
        let (key, value) = match change {
            Change::Put(key, value, _) => (key, value.len()),
            Change::Delete(key) => (key, 0),
        };
        if key.len() > MAX_KEY || value > MAX_VALUE {
            return Err(format!("a key has at most {MAX_KEY} bytes, and a value {MAX_VALUE}"));
        }
        if !keys.insert(key) {
            return Err(format!("it changes a key twice: {}", key.escape_ascii()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_first_key_without_it() {
        for (prefix, end) in
            [(&b""[..], None), (b"a", Some(&b"b"[..])), (b"a/", Some(b"a0")), (b"a\xff", Some(b"b")), (b"\xff", None)]
        {
            assert_eq!(end_of(prefix).as_deref(), end, "{}", prefix.escape_ascii());
        }
    }
}
