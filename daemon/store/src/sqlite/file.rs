//! The file: how it comes into being, what makes it ours, and what SQLite's errors mean.

use std::fs::{self, File as OsFile, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::Settings;
use crate::StoreError;

/// Names a random space. Two files with the same one have the same history.
pub(super) type Identity = Arc<str>;

/// How long another process may hold the file: several times what a commit takes on a slow disk.
const BUSY: Duration = Duration::from_secs(5);

/// "cok1", in the header of each of our files.
const APPLICATION: i32 = 0x636f_6b31;
/// The version of the tables.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE space (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        identity TEXT NOT NULL,
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL,
        logged INTEGER NOT NULL,
        leases INTEGER NOT NULL
    );
    INSERT INTO space VALUES (1, lower(hex(randomblob(16))), 0, 0, 0, 0);
    CREATE TABLE entries (
        key BLOB PRIMARY KEY,
        value BLOB NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX entries_of_leases ON entries (lease) WHERE lease IS NOT NULL;
    CREATE TABLE log (
        revision INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB,
        created INTEGER,
        lease INTEGER,
        PRIMARY KEY (revision, key)
    ) WITHOUT ROWID;
    CREATE TABLE leases (id INTEGER PRIMARY KEY, time_to_live INTEGER NOT NULL, ends INTEGER NOT NULL);
    CREATE TABLE room (taken BLOB);
";

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    /// Device and inode.
    place: (u64, u64),
}

/// Why SQLite did not do something.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: StoreError,
    /// The file has to be opened again.
    pub(super) reopen: bool,
}

impl Fault {
    fn unusable(why: String) -> Self {
        Self { error: StoreError::Unavailable(why), reopen: true }
    }

    fn damaged(why: impl Into<String>) -> Self {
        Self { error: StoreError::Damaged(why.into()), reopen: true }
    }

    /// What a failure of COMMIT means. Its frames may be on the disk even if the last sync failed.
    pub(super) fn of_commit(error: rusqlite::Error) -> Self {
        let Self { error: meaning, reopen } = Self::from(error);
        let error = match meaning {
            StoreError::Unavailable(why) if reopen => StoreError::Unknown(why),
            other => other,
        };
        Self { error, reopen }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            // Without a code, a row does not have the form of our tables.
            None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::damaged(why),
            Some(ErrorCode::DiskFull) => Self { error: StoreError::Full(why), reopen: false },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let why = format!("another process holds it: {why}");
                Self { error: StoreError::Unavailable(why), reopen: false }
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::unusable(why),
            Some(_) => Self { error: StoreError::Unavailable(why), reopen: false },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::StorageFull {
            return Self { error: StoreError::Full(error.to_string()), reopen: true };
        }
        Self::unusable(error.to_string())
    }
}

impl File {
    /// Opens a file. Without `create` it must exist.
    pub(super) fn open(path: &Path, create: bool, settings: &Settings) -> Result<Self, Fault> {
        if create {
            make(path)?;
        }
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(Fault::unusable("it is no file".to_owned()));
        }
        if metadata.len() == 0 && fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
            return Err(Fault::damaged("it is empty, but its log is not"));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        let until = Instant::now() + BUSY;
        // SQLite does not wait by itself while another process creates the file.
        let (connection, identity) = loop {
            match connect(path, settings) {
                Err(Fault { reopen: false, error: StoreError::Unavailable(_) }) if Instant::now() < until => {
                    sleep(Duration::from_millis(20));
                }
                result => break result?,
            }
        };
        Ok(Self { connection, identity, place: (metadata.dev(), metadata.ino()) })
    }

    /// Whether the path still leads to this file. Without that, changes would go to a file that is never found again.
    pub(super) fn is_at(&self, path: &Path) -> Result<(), Fault> {
        let moved = match fs::metadata(path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.place,
            Err(_) => true,
        };
        if moved {
            return Err(Fault::unusable("it was removed or replaced while it was in use".to_owned()));
        }
        Ok(())
    }

    /// Closes a file that is no longer at its path. What is at its path, and the log there, stays as it is.
    pub(super) fn abandon(self) {
        let _as_good_as_it_gets = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

/// The path of the write-ahead log.
fn log_of(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Makes an empty file for its owner alone, unless there is one. It belongs to the owner of the folder, so that the
/// daemon can use what root has made.
fn make(path: &Path) -> Result<(), Fault> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file: OsFile = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok())
        && file.metadata()?.uid() != folder.uid()
    {
        chown(path, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

fn connect(path: &Path, settings: &Settings) -> Result<(Connection, Identity), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // A file that is refused stays as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Nothing is written before it is known whose file it is. One transaction reads all three, since another process may create
    // the tables meanwhile.
    let look = connection.transaction()?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i32 = look.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = look.pragma_query_value(None, "user_version", |row| row.get(0))?;
    look.commit()?;
    match (tables, application, version) {
        (0, 0, 0) | (_, APPLICATION, VERSION) => {}
        (_, APPLICATION, newer) => {
            return Err(Fault::unusable(format!("it has version {newer}, of another cokd; this one knows {VERSION}")));
        }
        _ => return Err(Fault::damaged("it is the database of another program")),
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::unusable(format!("its disk does not allow a write-ahead log (got {mode})")));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    if let Some(pages) = settings.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    if tables == 0 {
        create_tables(&mut connection)?;
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Fault::damaged(verdict));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    let identity: String = connection.query_row("SELECT identity FROM space", [], |row| row.get(0))?;
    Ok((connection, identity.into()))
}

fn create_tables(connection: &mut Connection) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have come first.
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(transaction.commit()?)
}
