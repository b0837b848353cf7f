//! The log of changes, which watches read. It keeps the latest ones.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::file::Fault;
use super::space::{end_of, number, sql};
use crate::{Batch, Entry, Event, LeaseId, Revision};

/// The most changes that a watch reads at once, plus the rest of the last one's revision.
const MAX_READ: usize = 256;

/// What the log covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The latest revision that is no longer there.
    pub(super) compacted: u64,
    /// The latest revision.
    pub(super) revision: u64,
}

impl Extent {
    /// Whether a watch from this revision would miss something: it is no longer there, or the file has gone back to an
    /// earlier state since.
    pub(super) fn lacks(self, from: u64) -> bool {
        from.max(1) <= self.compacted || from > self.revision + 1
    }
}

pub(super) fn extent(connection: &Connection) -> Result<Extent, Fault> {
    let query = "SELECT compacted, revision FROM space";
    let extent = |row: &rusqlite::Row<'_>| Ok(Extent { compacted: number(row, 0)?, revision: number(row, 1)? });
    Ok(connection.query_row(query, [], extent)?)
}

/// Reads the changes of whole revisions under a prefix, from revision `from` on.
pub(super) fn read(connection: &Connection, prefix: &[u8], from: u64) -> Result<Vec<Batch>, Fault> {
    let mut query = connection.prepare(
        "SELECT revision, key, value, created, lease FROM log
         WHERE revision >= ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY revision, key",
    )?;
    let mut rows = query.query(params![sql(from), prefix, end_of(prefix)])?;
    let (mut batches, mut count) = (Vec::<Batch>::new(), 0);
    while let Some(row) = rows.next()? {
        let revision = Revision(number(row, 0)?);
        let key = Bytes::from(row.get::<_, Vec<u8>>(1)?);
        let event = match row.get::<_, Option<Vec<u8>>>(2)? {
            Some(value) => Event::Put(Entry {
                key,
                value: value.into(),
                created: Revision(number(row, 3)?),
                modified: revision,
                lease: row.get::<_, Option<i64>>(4)?.map(|lease| LeaseId(lease.unsigned_abs())),
            }),
            None => Event::Delete(key),
        };
        match batches.last_mut().filter(|last| last.revision == revision) {
            Some(last) => last.events.push(event),
            None if count >= MAX_READ => break,
            None => batches.push(Batch { revision, events: vec![event] }),
        }
        count += 1;
    }
    Ok(batches)
}

/// Removes the oldest changes if there are more than twice as many as are `kept`. The latest revision stays.
pub(super) fn trim(connection: &Connection, kept: u32) -> Result<(), Fault> {
    let logged = connection.query_row("SELECT logged FROM space", [], |row| number(row, 0))?;
    if logged <= 2 * u64::from(kept) {
        return Ok(());
    }
    let query = "SELECT revision FROM log ORDER BY revision DESC, key DESC LIMIT 1 OFFSET ?1";
    let Some(oldest) = connection.query_row(query, [kept], |row| number(row, 0)).optional()? else { return Ok(()) };
    let latest = extent(connection)?.revision;
    let compacted = oldest.min(latest.saturating_sub(1));
    let removed = connection.execute("DELETE FROM log WHERE revision <= ?1", [sql(compacted)])?;
    let update = "UPDATE space SET compacted = ?1, logged = logged - ?2";
    connection.execute(update, params![sql(compacted), sql(removed as u64)])?;
    Ok(())
}
