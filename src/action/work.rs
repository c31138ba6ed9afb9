//! Work as a whole: its steps in order, the first failure decides.

use crate::clock::Clock;
use crate::entry::EntryId;
use crate::event::FileRef;
use crate::source::job::JobReport;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// What performing needs besides the work itself.
#[derive(Clone, Debug)]
pub struct Performing {
    /// The setup folder, absolute: a relative program with a slash starts here.
    pub setup: PathBuf,
    /// Folder of the log files of jobs; made (0700) when missing.
    pub logs: PathBuf,
    /// Folder for temporary files of ours, handed to jobs as `TMPDIR`; `None` leaves it to the system.
    pub temp: Option<PathBuf>,
    /// The entry performed.
    pub entry: Option<EntryId>,
    /// Cancelled when we stop: a running job is ended, with a grace.
    pub stop: CancellationToken,
    /// What time it is.
    pub clock: Clock,
}

/// How some work ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// How it ended; also for work without a command.
    pub report: JobReport,
    /// Where the event's file is now; `None` when it was deleted, or there was none.
    pub file: Option<FileRef>,
    /// Places we took the file away from, by moving or deleting it: an arrival there is new.
    pub gone: Vec<FileRef>,
}
