//! Absence: what should have happened and did not, and what goes on for too long.
//!
//! | kind | evidence | the case opens | and closes |
//! |---|---|---|---|
//! | `file_missing` | `file_arrives` events of its watch | after the deadline, when a scan that began after it has ended | with the arrival |
//! | `folder_backlog` | what its watch knows | after a whole scan | below the limit |
//! | `job_missing` | `job_succeeds` and `job_fails` events | after the deadline | with the report |
//! | `job_runs_long` | leases of our work, marks of `exec` | when its time is over | when it ended |
//!
//! The decisions are pure ([`deadline`], [`expected`], [`backlog`], [`running`]); the loop here reads, decides
//! and records, all of one look in one transaction: the events with the cases they open and close, how each
//! expectation stands, and up to where the journal was read. Killed before it, the next start decides the
//! same anew; killed after it, nothing is read twice. What a file that came and was taken away again leaves
//! is its event, so it counts as come.
//!
//! "Could not look" is not "absent": while the folder of a watch is away nothing is decided about it, and
//! everything when it is back. The watch tells of its own trouble.

pub mod backlog;
pub mod deadline;
pub mod expected;
mod look;
pub mod running;
mod tell;

use crate::clock::Clock;
use crate::event::Kind;
use crate::pulse::Pulse;
use crate::source::Wanted;
use crate::source::absence::backlog::{Backlog, Standing};
use crate::source::absence::expected::{Expected, Progress};
use crate::source::absence::look::Journal;
use crate::source::absence::running::{Overrunning, RunsLong};
use crate::source::file::Handle as FilesHandle;
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait between two looks.
const LOOK: Duration = Duration::from_secs(30);

/// The same where something must be looked for that nobody tells.
const CLOSE_LOOK: Duration = Duration::from_secs(2);

/// Wait between two looks while a scan is waited for, or cases may close.
const SOON: Duration = Duration::from_millis(250);

/// A deadline that passed this long before we looked was not missed: a restart over it makes it no missed one.
const LATE: Duration = Duration::from_secs(60);

/// The same for `run --once`, which looks only now and then.
const LATE_ONCE: Duration = Duration::from_secs(3600);

/// Something a rule expects, or does not want to go on.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Its name: the same as long as rule and trigger say the same. No id begins with another.
    pub id: String,
    /// What it is.
    pub what: What,
    /// Zone of the times it tells.
    pub zone: TimeZone,
}

/// What is expected, or not wanted.
#[derive(Clone, Debug)]
pub enum What {
    /// Files, by a deadline.
    File(FileExpected),
    /// A job's report, by a deadline.
    Job(JobExpected),
    /// No backlog.
    Backlog(Backlog, String),
    /// No job that runs for too long.
    Running(RunsLong),
}

/// Files, by a deadline.
#[derive(Clone, Debug)]
pub struct FileExpected {
    /// `source::Watch::id`.
    pub watch: String,
    /// Its folder.
    pub root: PathBuf,
    /// Which files.
    pub wanted: Wanted,
    /// The pattern as written, for people.
    pub pattern: String,
    /// By when.
    pub expected: Expected,
}

/// A job's report, by a deadline. Any end of it counts; being left out because it still ran is none.
#[derive(Clone, Debug)]
pub struct JobExpected {
    /// The job's name.
    pub job: String,
    /// By when.
    pub expected: Expected,
}

impl Expectation {
    /// Names it: by its rule, and by all that its trigger says.
    pub fn of(rule: &str, said: &str, what: What, zone: TimeZone) -> Expectation {
        let hash = blake3::hash(said.as_bytes()).to_hex();
        Expectation {
            id: format!("{rule}:{}", &hash.as_str()[..12]),
            what,
            zone,
        }
    }

    /// What kind of event it makes.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::File(_) => Kind::FileMissing,
            What::Job(_) => Kind::JobMissing,
            What::Backlog(..) => Kind::FolderBacklog,
            What::Running(_) => Kind::JobRunsLong,
        }
    }

    /// The watch it needs.
    pub fn watch(&self) -> Option<&str> {
        match &self.what {
            What::File(file) => Some(&file.watch),
            What::Backlog(backlog, _) => Some(&backlog.watch),
            What::Job(_) | What::Running(_) => None,
        }
    }
}

/// How an expectation stands, as its mark keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Expected(Progress),
    Backlog(Standing),
    Running(Overrunning),
}

impl State {
    fn is_open(&self) -> bool {
        match self {
            State::Expected(progress) => !progress.open.is_empty(),
            State::Backlog(standing) => standing.open.is_some(),
            State::Running(open) => !open.is_empty(),
        }
    }
}

/// All expectations of the rules.
type All = Arc<Vec<Expectation>>;

/// Looks after all expectations: what is missing becomes events in the journal.
#[derive(Debug)]
pub struct AbsenceSource {
    all: All,
    changes: watch::Receiver<All>,
    /// How each stands, by its id; `None` before the marks were read.
    states: Option<BTreeMap<String, State>>,
    journal: Journal,
    /// When it next wants to look.
    wake: Option<Timestamp>,
    /// It waits for a scan.
    waits: bool,
    up_since: Timestamp,
    store: Store,
    clock: Clock,
    files: Option<FilesHandle>,
    pulse: Pulse,
}

/// Hands a running [`AbsenceSource`] other expectations.
#[derive(Clone, Debug)]
pub struct Handle(Arc<watch::Sender<All>>);

impl Handle {
    /// From now on these. One that stays goes on where it was; one that is new begins now; the cases of one that
    /// is gone are closed, and no rule is told. Say it after the watches were replaced.
    pub fn replace(&self, all: Vec<Expectation>) {
        self.0.send_replace(Arc::new(all));
    }
}

impl AbsenceSource {
    /// A source that has not begun. `files` is asked for scans when a deadline has passed; without it, the scans
    /// that run anyway are waited for.
    pub fn new(
        all: Vec<Expectation>,
        store: Store,
        clock: Clock,
        files: Option<FilesHandle>,
    ) -> (AbsenceSource, Handle) {
        let all = Arc::new(all);
        let (sender, changes) = watch::channel(Arc::clone(&all));
        let source = AbsenceSource {
            all,
            changes,
            states: None,
            journal: Journal::default(),
            wake: None,
            waits: false,
            up_since: clock.now(),
            store,
            clock,
            files,
            pulse: Pulse::new("absence"),
        };
        (source, Handle(Arc::new(sender)))
    }

    /// Ticks whenever it comes round.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Looks until it is stopped. A store that cannot be written is tried again; nothing is decided meanwhile.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut news = self.store.changes();
        while !stop.is_cancelled() {
            self.pulse.tick();
            news.borrow_and_update();
            if let Err(error) = self.take(LATE).await {
                tracing::error!(%error, "cannot record what is missing; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(5)) => continue,
                }
            }
            let (wake, longest) = (self.wake, self.longest());
            let may_close = self.may_close();
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(&self.clock, wake) => {}
                () = tokio::time::sleep(longest) => {}
                Ok(()) = news.changed(), if may_close => {
                    // What comes in a burst is looked at once.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(SOON) => {}
                    }
                }
                // When the handle is gone the expectations stay as they are.
                Ok(()) = self.changes.changed() => {}
            }
        }
    }

    /// One look: for `run --once`, after the folders were looked at, and for tests. Returns the number of new
    /// events.
    pub async fn look(&mut self) -> Result<usize, StoreError> {
        self.take(LATE_ONCE).await
    }

    /// One look at this instant, as the daemon looks. Returns the number of new events.
    pub async fn tick(&mut self) -> Result<usize, StoreError> {
        self.take(LATE).await
    }

    /// Whether it waits for a look at a folder that begins from now on.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// When it next wants to look: a deadline, the end of a job's time. `None`: nothing is due by itself.
    pub fn next(&self) -> Option<Timestamp> {
        self.wake
    }

    fn may_close(&self) -> bool {
        self.states
            .as_ref()
            .is_some_and(|states| states.values().any(State::is_open))
    }

    fn longest(&self) -> Duration {
        let jobs = self.all.iter().any(|each| matches!(each.what, What::Running(_)));
        if self.waits {
            SOON
        } else if jobs {
            CLOSE_LOOK
        } else {
            LOOK
        }
    }
}

async fn sleep_until(clock: &Clock, time: Option<Timestamp>) {
    match time {
        Some(time) => clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}
