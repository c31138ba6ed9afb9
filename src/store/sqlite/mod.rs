//! The store in one SQLite file: WAL, `synchronous=FULL`, one writer.
//!
//! ```text
//!   verbs --- write(request) ---> [ writer thread ] --- one transaction for all that wait --> state/tidings.db
//!         \-- read(query) ------> connections of their own, on blocking threads ------------/
//! ```
//!
//! [`writer`] owns the only connection that writes. Readers take a connection from a small pool and see
//! the last commit; they never wait for the writer, nor it for them.
//!
//! Statements are written with `$1 $2 ..` in the order of first use, so that their text runs on
//! PostgreSQL as well; only `schema` is SQLite's alone.

pub(super) mod admission;
pub(super) mod cases;
pub(super) mod files;
pub(super) mod gatherings;
pub(super) mod grants;
pub(super) mod handed;
pub(super) mod journal;
pub(super) mod lists;
pub(super) mod marks;
mod network;
pub(super) mod orphans;
pub(super) mod outbox;
pub(super) mod purge;
pub(super) mod record;
mod rows;
mod schema;
pub(super) mod writer;

use crate::store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, FileControl, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use writer::Writer;

/// How long a connection waits for another process.
const BUSY: Duration = Duration::from_secs(5);
/// How many queries run at once.
const READERS: usize = 4;
/// The first SQLite that does not lose commits when a write meets a checkpoint.
const OLDEST_SQLITE: i32 = 3_051_003;
/// What a connection keeps prepared; above the number of statements we have.
const STATEMENTS: usize = 128;

/// An open database.
pub(super) struct Sqlite {
    path: PathBuf,
    pub(super) writer: Writer,
    readers: Readers,
}

struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

/// Whether what was promised outlasts a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// It does.
    Yes,
    /// Nobody will ask: the store is thrown away after a test of rules.
    No,
}

/// The library and its version.
pub(super) fn engine() -> String {
    format!("SQLite {}", rusqlite::version())
}

impl Sqlite {
    /// Opens the file, makes or migrates it, and starts its writer. Blocks on the disk.
    pub(super) fn open(
        path: &Path,
        durable: Durable,
        changes: watch::Sender<u64>,
    ) -> Result<Sqlite, StoreError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(StoreError::OldSqlite(rusqlite::version()));
        }
        let folder = folder_of(path);
        let failed = |what, path: &Path, source: std::io::Error| StoreError::File {
            what,
            path: path.to_owned(),
            source: Arc::new(source),
        };
        super::spool::private_folder(folder)
            .map_err(|e| failed("cannot create the state folder", folder, e))?;
        let path = folder
            .canonicalize()
            .map_err(|e| failed("cannot open the state folder", folder, e))?
            .join(path.file_name().unwrap_or_default());
        let folder = folder_of(&path);
        if let Some(kind) = network::kind(folder).map_err(|e| failed("cannot look at", folder, e))? {
            return Err(StoreError::Network {
                path: folder.to_owned(),
                kind,
            });
        }
        create_private(&path).map_err(|e| failed("cannot open the store", &path, e))?;
        let mut connection = Connection::open_with_flags(&path, flags())?;
        configure_writer(&connection, durable)
            .and_then(|()| schema::migrate(&mut connection, &path))
            .map_err(|error| match error {
                StoreError::Corrupt(source) => StoreError::Damaged {
                    path: path.clone(),
                    source,
                },
                other => other,
            })?;
        // Files and their names are durable before the first promise is made about them.
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| failed("cannot sync", folder, e))?;
        let writer = Writer::start(connection, &path, changes)?;
        Ok(Sqlite {
            readers: Readers {
                path: path.clone(),
                idle: Arc::default(),
                places: Arc::new(Semaphore::new(READERS)),
            },
            path,
            writer,
        })
    }

    /// The database file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a query on a connection of its own, in one snapshot, on a blocking thread.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let place = Arc::clone(&self.readers.places)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let idle = Arc::clone(&self.readers.idle);
        let path = self.readers.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => open_reader(&path)?,
            };
            let snapshot = connection.transaction()?;
            let answer = query(&snapshot);
            snapshot.finish()?;
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            answer
        });
        done.await.map_err(|_| StoreError::Closed)?
    }
}

/// The folder a database file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE
}

/// SQLite gives `-wal` and `-shm` the mode of the database, so that is set before it opens it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != 0o600 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    super::spool::give_away(folder_of(path), path);
    Ok(())
}

fn configure_writer(connection: &Connection, durable: Durable) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Two processes that turn a new file to WAL at once: one of them is told busy without waiting.
    let mut tries = 0;
    let mode: String = loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if tries < 50 && error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            other => break other?,
        }
    };
    if !mode.eq_ignore_ascii_case("wal") {
        tracing::warn!(mode, "the database would not change to WAL");
    }
    let synchronous = match durable {
        Durable::Yes => "FULL",
        Durable::No => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Savepoints must not need a file of their own: the disk may be full.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The log is kept at the size it grew to, so that outcomes fit in it on a full disk; a burst that
    // made it much larger gives the space back.
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    let mut keep = 1;
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut keep))?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "query_only", true)?;
    let mut keep = 1;
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut keep))?;
    Ok(connection)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::Error as E;
        let unreadable = matches!(
            error,
            E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..)
        );
        let code = error.sqlite_error_code();
        let error = Arc::new(error);
        match code {
            Some(ErrorCode::DiskFull) => StoreError::Full(error),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                StoreError::Io(error)
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(error),
            _ if unreadable => StoreError::Corrupt(error),
            _ => StoreError::Database(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Sqlite, StoreError> {
        Sqlite::open(path, Durable::Yes, watch::channel(0).0)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_state_is_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a").join("state");
        let path = state.join("tidings.db");
        let store = open(&path).unwrap();
        store.writer.reserve(true).blocking_recv().unwrap();
        assert_eq!(mode(&state), 0o700);
        for name in ["tidings.db", "tidings.db-wal", "tidings.db-shm", "ballast"] {
            assert_eq!(mode(&state.join(name)), 0o600, "{name}");
        }
        drop(store);
        // Somebody opened it up: it is closed again.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        drop(open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 7)
            .unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Newer { found: 7, .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        std::fs::write(&path, "accounts:\n".repeat(1000)).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }

    #[test]
    fn commits_are_synced_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("tidings.db")).unwrap();
        let asked = store.writer.ask(writer::Urgency::Ordinary, |tx| {
            let ask = |pragma: &str| -> rusqlite::Result<String> {
                tx.connection.query_row(
                    &format!("SELECT CAST(v AS TEXT) FROM (SELECT {pragma} AS v FROM pragma_{pragma})"),
                    [],
                    |row| row.get(0),
                )
            };
            Ok((ask("synchronous")?, ask("journal_mode")?))
        });
        let (synchronous, journal) = asked.blocking_recv().unwrap().unwrap();
        // 2 is FULL: with NORMAL a power cut takes back what was promised.
        assert_eq!((synchronous.as_str(), journal.as_str()), ("2", "wal"));
    }
}
