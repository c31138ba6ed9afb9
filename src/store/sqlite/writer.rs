//! The writer: one thread, one connection, one transaction for all requests that wait.
//!
//! It sleeps until a request comes, takes with it whatever else has come, runs each in a savepoint of
//! one `BEGIN IMMEDIATE`, commits, and only then answers. While the disk works the next group gathers:
//! the busier the store, the more share one sync. It ends when the last handle is dropped, after the
//! last request.
//!
//! A request is a function that can be run again. Should a whole transaction be lost (a full disk makes
//! SQLite give it up), each request of it is run alone, so that one cannot fail the others.

use crate::store::StoreError;
use rusqlite::Connection;
use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Most requests in one transaction: keeps the wait of the first one short.
const GROUP: usize = 1024;
/// The log is grown to this at the owner's start and kept, so that outcomes fit on a full disk.
const LOG: u64 = 8 * 1024 * 1024;
/// A log longer than this is begun anew even if readers must be waited for.
const LONGEST_LOG: u64 = 64 * 1024 * 1024;
/// How long they are waited for.
const READERS: Duration = Duration::from_secs(1);
/// Size of the file that is given up to write outcomes on a full disk.
const BALLAST: u64 = 16 * 1024 * 1024;
/// The ballast is only laid down where this much more is free.
const ROOM: u64 = 64 * 1024 * 1024;

/// A request's view of its transaction.
pub(in crate::store) struct Tx<'c> {
    /// The connection, inside a transaction.
    pub(super) connection: &'c Connection,
    ticks: Cell<bool>,
    unlinks: RefCell<Vec<String>>,
}

impl Tx<'_> {
    /// After the commit, everybody who waits for news is woken: an event was added, an entry made due.
    pub(super) fn tick(&self) {
        self.ticks.set(true);
    }

    /// After the commit, this spool file is removed.
    pub(super) fn unlink(&self, name: String) {
        self.unlinks.borrow_mut().push(name);
    }
}

/// Whether a request may use the space that is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Urgency {
    /// Takes something in; may be told that the disk is full.
    Ordinary,
    /// Records what has already happened.
    Outcome,
    /// Takes a lease. Its commit is seen at once, and is on disk no later than the next one that is:
    /// whatever is done under the lease and matters afterwards is said by such a commit.
    Lease,
}

/// The way to the writer thread. It ends when this is dropped.
pub(in crate::store) struct Writer {
    inbox: Sender<Message>,
}

enum Message {
    Write(Box<dyn Request>),
    Probe(oneshot::Sender<bool>),
    Reserve {
        always: bool,
        answer: oneshot::Sender<()>,
    },
}

trait Request: Send {
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), StoreError>;
    fn urgency(&self) -> Urgency;
    fn answer(self: Box<Self>, verdict: Result<(), StoreError>);
}

struct Asked<T, F> {
    work: F,
    urgency: Urgency,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Request for Asked<T, F>
where
    T: Send,
    F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), StoreError> {
        self.done = None;
        self.done = Some((self.work)(tx)?);
        Ok(())
    }

    fn urgency(&self) -> Urgency {
        self.urgency
    }

    fn answer(self: Box<Self>, verdict: Result<(), StoreError>) {
        let Asked { done, answer, .. } = *self;
        // Nobody may wait any more; what was done stays done.
        let _ = answer.send(verdict.and_then(|()| done.ok_or(StoreError::Closed)));
    }
}

impl Writer {
    /// Starts the thread on a configured connection. `changes` is ticked after commits.
    pub(super) fn start(
        connection: Connection,
        path: &Path,
        changes: watch::Sender<u64>,
    ) -> Result<Writer, StoreError> {
        let (inbox, requests) = mpsc::channel();
        let folder = super::folder_of(path).to_owned();
        let seen = data_version(&connection)?;
        let mut task = Task {
            connection,
            file: identity(path),
            path: path.to_owned(),
            ballast: folder.join("ballast"),
            spool: folder.join("spool"),
            changes,
            seen,
            spent: false,
            longest_log: LONGEST_LOG,
            synced: Cell::new(true),
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || task.run(&requests))
            .map_err(|source| StoreError::File {
                what: "cannot start the writer of",
                path: path.to_owned(),
                source: Arc::new(source),
            })?;
        Ok(Writer { inbox })
    }

    /// Hands a request over. The answer comes after its commit; the request is carried out even if
    /// nobody waits for that.
    pub(in crate::store) fn ask<T, F>(
        &self,
        urgency: Urgency,
        work: F,
    ) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let request = Asked {
            work,
            urgency,
            done: None,
            answer,
        };
        // If the thread is gone the request is dropped, and the receiver says so.
        let _ = self.inbox.send(Message::Write(Box::new(request)));
        answered
    }

    /// Whether another process committed since the last probe; if so, everybody who waits is woken.
    pub(in crate::store) fn probe(&self) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let _ = self.inbox.send(Message::Probe(answer));
        answered
    }

    /// Lays down log and ballast against a full disk, as far as there is room; with `always` false
    /// only if they were used up.
    pub(in crate::store) fn reserve(&self, always: bool) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        let _ = self.inbox.send(Message::Reserve { always, answer });
        answered
    }
}

struct Task {
    connection: Connection,
    path: PathBuf,
    /// The file that was opened. What is written to another one, or to one without a name, is lost.
    file: Option<(u64, u64)>,
    ballast: PathBuf,
    spool: PathBuf,
    changes: watch::Sender<u64>,
    /// SQLite's count of other connections' commits, as last probed.
    seen: i64,
    /// The ballast was given up.
    spent: bool,
    /// Beyond this length of the log its readers are waited for.
    longest_log: u64,
    /// `synchronous` is FULL.
    synced: Cell<bool>,
}

/// What a committed group left to do, and how each request fared.
struct Committed {
    verdicts: Vec<Result<(), StoreError>>,
    ticks: bool,
    unlinks: Vec<String>,
}

/// Why a group was not committed.
enum Failed {
    /// It could not begin: the same for all.
    All(StoreError),
    /// The transaction was lost on the way: somebody in it, or all of them together, were too much.
    Together(StoreError),
}

impl Task {
    fn run(&mut self, requests: &Receiver<Message>) {
        while let Ok(first) = requests.recv() {
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Write(request) => group.push(request),
                    Message::Probe(answer) => {
                        let _ = answer.send(self.probe());
                    }
                    Message::Reserve { always, answer } => {
                        if always || self.spent {
                            self.reserve();
                        }
                        let _ = answer.send(());
                    }
                }
                next = if group.len() < GROUP {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
            if !group.is_empty() {
                self.carry_out(group);
                self.bound_log();
            }
        }
    }

    /// SQLite begins the log anew only at a moment in which nobody reads from it. Readers that overlap
    /// leave none, and it would grow for as long as they do.
    fn bound_log(&mut self) {
        let length = self.log_len();
        if length <= LONGEST_LOG {
            // Begun anew, the file is cut back to this very length (`journal_size_limit`).
            self.longest_log = LONGEST_LOG;
        }
        if length <= self.longest_log {
            return;
        }
        let begun_anew = self
            .connection
            .busy_timeout(READERS)
            .and_then(|()| {
                let busy = |row: &rusqlite::Row<'_>| row.get::<_, bool>(0);
                self.connection
                    .query_row("PRAGMA wal_checkpoint(RESTART)", [], busy)
            })
            .and_then(|busy| self.connection.busy_timeout(super::BUSY).map(|()| !busy));
        // The wait was in vain: the next is worth it when as much again was written.
        self.longest_log = length + LONGEST_LOG;
        match begun_anew {
            Ok(true) => self.longest_log = LONGEST_LOG,
            Ok(false) => tracing::warn!("somebody reads the store for long; its log cannot be begun anew"),
            Err(error) => tracing::warn!(%error, "the log of the store cannot be begun anew"),
        }
    }

    fn log_len(&self) -> u64 {
        std::fs::metadata(format!("{}-wal", self.path.display())).map_or(0, |data| data.len())
    }

    fn carry_out(&mut self, mut group: Vec<Box<dyn Request>>) {
        if identity(&self.path) != self.file {
            // Nothing new is taken in. Outcomes are let through: who has them could do nothing else with them.
            let error = StoreError::Replaced {
                path: self.path.clone(),
            };
            let (outcomes, ordinary): (Vec<_>, Vec<_>) = group
                .into_iter()
                .partition(|request| request.urgency() == Urgency::Outcome);
            for request in ordinary {
                request.answer(Err(error.clone()));
            }
            if outcomes.is_empty() {
                return;
            }
            group = outcomes;
        }
        let mut outcome = self.commit(&mut group);
        if let ([only], Err(Failed::All(error) | Failed::Together(error))) = (group.as_slice(), &outcome)
            && error.is_full()
            && only.urgency() == Urgency::Outcome
            && self.give_up_ballast()
        {
            outcome = self.commit(&mut group);
        }
        match outcome {
            Ok(committed) => {
                if committed.ticks {
                    self.changes.send_modify(|count| *count = count.wrapping_add(1));
                }
                for (request, verdict) in group.into_iter().zip(committed.verdicts) {
                    request.answer(verdict);
                }
                for name in committed.unlinks {
                    // Left behind, it is an orphan that the next recover removes.
                    let _ = std::fs::remove_file(self.spool.join(name));
                }
            }
            Err(Failed::Together(_)) if group.len() > 1 => {
                for request in group {
                    self.carry_out(vec![request]);
                }
            }
            Err(Failed::All(error) | Failed::Together(error)) => {
                tracing::warn!(%error, requests = group.len(), "the store could not write");
                for request in group {
                    request.answer(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction for the whole group. Each refused request is rolled back alone.
    fn commit(&self, group: &mut [Box<dyn Request>]) -> Result<Committed, Failed> {
        let connection = &self.connection;
        let alone = group.len() == 1;
        // The log is one file, written in order: a later sync of it is one of all that came before.
        let leases = group.iter().all(|request| request.urgency() == Urgency::Lease);
        self.sync(!leases).map_err(Failed::All)?;
        execute(connection, "BEGIN IMMEDIATE").map_err(Failed::All)?;
        let mut committed = Committed {
            verdicts: Vec::with_capacity(group.len()),
            ticks: false,
            unlinks: Vec::new(),
        };
        for request in group {
            match one(connection, request.as_mut(), alone) {
                Ok(Ok(tx)) => {
                    committed.ticks |= tx.ticks.get();
                    committed.unlinks.extend(tx.unlinks.into_inner());
                    committed.verdicts.push(Ok(()));
                }
                // A refusal is about this request; with nothing else in it the transaction is empty.
                Ok(Err(refused)) => committed.verdicts.push(Err(refused)),
                Err(lost) => {
                    self.abandon();
                    return Err(Failed::Together(lost));
                }
            }
        }
        if let Err(error) = execute(connection, "COMMIT") {
            self.abandon();
            return Err(Failed::Together(error));
        }
        Ok(committed)
    }

    /// Whether the next commit waits for the disk.
    fn sync(&self, full: bool) -> Result<(), StoreError> {
        if self.synced.replace(full) != full {
            let pragma = if full { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", pragma)?;
        }
        Ok(())
    }

    /// Ends a transaction that cannot be committed; SQLite may have ended it already.
    fn abandon(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn probe(&mut self) -> bool {
        match data_version(&self.connection) {
            Ok(now) if now != self.seen => {
                self.seen = now;
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
                true
            }
            Ok(_) => false,
            Err(error) => {
                // To look in vain costs little, to miss news costs time.
                tracing::debug!(%error, "cannot tell whether others wrote");
                true
            }
        }
    }

    fn reserve(&mut self) {
        let grown = self.log_len();
        let free = rustix::fs::statvfs(super::folder_of(&self.path))
            .map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if free < ROOM {
            return;
        }
        if grown < LOG {
            // Committed and dropped again: the log has the size, and the database as many free pages.
            let grow = format!(
                "BEGIN IMMEDIATE; CREATE TABLE reserve (bytes BLOB); \
                 INSERT INTO reserve VALUES (zeroblob({LOG})); COMMIT; DROP TABLE reserve;"
            );
            if let Err(error) = self.connection.execute_batch(&grow) {
                self.abandon();
                tracing::warn!(%error, "cannot keep space for outcomes back");
            }
        }
        if !self.ballast.exists()
            && let Err(error) = lay_ballast(&self.ballast)
        {
            let _ = std::fs::remove_file(&self.ballast);
            tracing::warn!(%error, "cannot keep space for outcomes back");
        }
        self.spent = !self.ballast.exists();
    }

    fn give_up_ballast(&mut self) -> bool {
        let freed = std::fs::remove_file(&self.ballast).is_ok();
        if freed {
            self.spent = true;
            tracing::warn!("the disk is full; the space kept back for outcomes is used now");
        }
        freed
    }
}

/// Runs one request. The outer error means that the transaction is lost, the inner one that the
/// request was refused and left no trace.
fn one<'c>(
    connection: &'c Connection,
    request: &mut dyn Request,
    alone: bool,
) -> Result<Result<Tx<'c>, StoreError>, StoreError> {
    execute(connection, "SAVEPOINT one")?;
    let tx = Tx {
        connection,
        ticks: Cell::new(false),
        unlinks: RefCell::default(),
    };
    match request.run(&tx) {
        Ok(()) => {
            execute(connection, "RELEASE one")?;
            Ok(Ok(tx))
        }
        // The disk, not the request: run alone it may fit, or be worth the ballast.
        Err(error) if connection.is_autocommit() || error.is_full() => Err(error),
        Err(error) => {
            if !alone {
                tracing::debug!(%error, "a request was refused; its neighbours stay");
            }
            execute(connection, "ROLLBACK TO one")?;
            execute(connection, "RELEASE one")?;
            Ok(Err(error))
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Which file a name leads to, device and inode; `None` where there is none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

fn data_version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?)
}

fn lay_ballast(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{configure_writer, create_private, flags, marks, schema};
    use super::*;
    use serde_json::{Value, json};

    struct Bench {
        folder: tempfile::TempDir,
        writer: Writer,
    }

    impl Bench {
        /// A writer whose database may not grow by more than 20 pages of 4 kB.
        fn small() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tidings.db");
            create_private(&path).unwrap();
            let mut connection = Connection::open_with_flags(&path, flags()).unwrap();
            configure_writer(&connection, super::super::Durable::Yes).unwrap();
            schema::migrate(&mut connection, &path).unwrap();
            let pages: i64 = connection
                .query_row("PRAGMA page_count", [], |row| row.get(0))
                .unwrap();
            limit(&connection, pages + 20).unwrap();
            let (changes, _) = watch::channel(0);
            let writer = Writer::start(connection, &path, changes).unwrap();
            Bench { folder, writer }
        }

        fn set(&self, urgency: Urgency, key: &str, len: usize) -> oneshot::Receiver<Result<(), StoreError>> {
            let mark = [(key.to_owned(), json!("x".repeat(len)))];
            self.writer.ask(urgency, move |tx| marks::set(tx, &mark))
        }

        fn kept(&self) -> Vec<String> {
            let read = |tx: &Tx<'_>| marks::get(tx.connection, "");
            let marks: Vec<(String, Value)> = self
                .writer
                .ask(Urgency::Ordinary, read)
                .blocking_recv()
                .unwrap()
                .unwrap();
            marks.into_iter().map(|(key, _)| key).collect()
        }

        /// Keeps the writer in a request until the sender is dropped: what is asked meanwhile is one group.
        fn hold(&self) -> mpsc::Sender<()> {
            let (release, held) = mpsc::channel();
            let held = std::sync::Mutex::new(held);
            let (entered, inside) = mpsc::channel();
            drop(self.writer.ask(Urgency::Ordinary, move |_| {
                let _ = entered.send(());
                let _ = held.lock().map(|held| held.recv());
                Ok(())
            }));
            inside.recv().unwrap();
            release
        }
    }

    fn limit(connection: &Connection, pages: i64) -> rusqlite::Result<()> {
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }

    #[test]
    fn on_a_full_disk_what_does_not_fit_is_refused_and_its_neighbours_stay() {
        let bench = Bench::small();
        let release = bench.hold();
        let answers = [("a", 10), ("much", 1 << 20), ("b", 10)]
            .map(|(key, len)| bench.set(Urgency::Ordinary, key, len));
        drop(release);
        let [a, much, b] = answers.map(|answer| answer.blocking_recv().unwrap());
        assert!(much.unwrap_err().is_full());
        a.unwrap();
        b.unwrap();
        assert_eq!(bench.kept(), ["a", "b"]);
        // Space came back: the same request goes through, the writer is none the worse.
        let wider = bench
            .writer
            .ask(Urgency::Ordinary, |tx| Ok(limit(tx.connection, 10_000)?));
        wider.blocking_recv().unwrap().unwrap();
        bench
            .set(Urgency::Ordinary, "much", 1 << 20)
            .blocking_recv()
            .unwrap()
            .unwrap();
        assert_eq!(bench.kept(), ["a", "b", "much"]);
    }

    #[test]
    fn only_outcomes_use_the_space_that_is_kept_back() {
        let bench = Bench::small();
        bench.writer.reserve(true).blocking_recv().unwrap();
        let ballast = bench.folder.path().join("ballast");
        std::fs::write(&ballast, b"").unwrap();
        let full = |urgency| {
            bench
                .set(urgency, "much", 1 << 20)
                .blocking_recv()
                .unwrap()
                .unwrap_err()
        };
        assert!(full(Urgency::Ordinary).is_full());
        assert!(ballast.exists());
        assert!(full(Urgency::Outcome).is_full());
        assert!(!ballast.exists());
    }

    #[test]
    fn the_log_is_grown_and_stays_when_the_last_handle_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        let (changes, _) = watch::channel(0);
        let sqlite = super::super::Sqlite::open(&path, super::super::Durable::Yes, changes).unwrap();
        sqlite.writer.reserve(true).blocking_recv().unwrap();
        let log = folder.path().join("tidings.db-wal");
        assert!(std::fs::metadata(&log).unwrap().len() >= LOG);
        assert_eq!(
            std::fs::metadata(folder.path().join("ballast")).unwrap().len(),
            BALLAST
        );
        drop(sqlite);
        assert!(std::fs::metadata(&log).unwrap().len() >= LOG);
    }

    #[test]
    fn only_a_group_of_nothing_but_leases_is_committed_without_waiting_for_the_disk() {
        let bench = Bench::small();
        let synchronous = |urgency| {
            bench.writer.ask(urgency, |tx| {
                let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                Ok(tx.connection.query_row("PRAGMA synchronous", [], read)?)
            })
        };
        let alone = |urgency| synchronous(urgency).blocking_recv().unwrap().unwrap();
        const NORMAL: i64 = 1;
        const FULL: i64 = 2;
        assert_eq!(alone(Urgency::Lease), NORMAL);
        assert_eq!(alone(Urgency::Ordinary), FULL);
        assert_eq!(alone(Urgency::Lease), NORMAL);
        assert_eq!(alone(Urgency::Outcome), FULL);
        let release = bench.hold();
        let group = [Urgency::Lease, Urgency::Outcome, Urgency::Lease].map(synchronous);
        drop(release);
        for answer in group {
            assert_eq!(answer.blocking_recv().unwrap().unwrap(), FULL);
        }
    }

    #[test]
    fn a_refused_request_leaves_no_trace_of_what_it_did_before() {
        let bench = Bench::small();
        let release = bench.hold();
        let refused = bench.writer.ask::<(), _>(Urgency::Ordinary, |tx| {
            marks::set(tx, &[("half".to_owned(), json!(1))])?;
            Err(StoreError::NotComposed(crate::entry::EntryId(1)))
        });
        let kept = bench.set(Urgency::Ordinary, "whole", 1);
        drop(release);
        assert!(refused.blocking_recv().unwrap().is_err());
        kept.blocking_recv().unwrap().unwrap();
        assert_eq!(bench.kept(), ["whole"]);
    }
}
