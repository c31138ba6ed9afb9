//! What did not happen, as written: `file_missing`, `folder_backlog`, `job_missing`, `job_runs_long`, and
//! the calendars of `tidings.yaml`.

use crate::config::raw::{Glob, Many, Size, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// No such file came by a deadline. It is over when the file comes.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMissing {
    /// The folder.
    #[serde(rename = "in")]
    pub folder: String,
    /// Which files, by their path below the folder. Default: all, in sub-folders too.
    #[serde(rename = "match")]
    pub matching: Option<Glob>,
    /// Which files not, by their path below the folder or their name alone.
    pub ignore: Option<Many<Glob>>,
    /// Whether to look into sub-folders. Default: if `match` says so (it has a `/`), or is absent.
    pub recursive: Option<bool>,
    /// Smallest size that counts.
    pub min_size: Option<Size>,
    /// How many files are expected. Default: 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: Option<u32>,
    /// Until when, as "07:00": since the deadline before.
    pub by: Option<String>,
    /// Instead of `by`: no longer than this after the last one.
    pub every: Option<Time>,
    /// Another word for `every`.
    pub within: Option<Time>,
    /// On which days, as mon-fri or [mon, thu]. Default: all.
    pub days: Option<Many<String>>,
    /// But not on the days of these calendars.
    pub except: Option<Many<String>>,
    /// Zone of the deadline, as Europe/Berlin. Default: that of the settings.
    pub timezone: Option<String>,
    /// How long after the deadline it still counts as in time. Default: none.
    pub grace: Option<Time>,
    /// What to do about deadlines that passed while tidings was not running. Default: tell.
    pub missed: Option<MissedDeadline>,
}

/// A job did not report by a deadline. It is over when it does.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobMissing {
    /// Its name. A rule's work has the rule's name.
    pub job: String,
    /// Until when, as "06:00": since the deadline before.
    pub by: Option<String>,
    /// Instead of `by`: no longer than this after the last report.
    pub every: Option<Time>,
    /// Another word for `every`.
    pub within: Option<Time>,
    /// On which days, as mon-fri or [mon, thu]. Default: all.
    pub days: Option<Many<String>>,
    /// But not on the days of these calendars.
    pub except: Option<Many<String>>,
    /// Zone of the deadline, as Europe/Berlin. Default: that of the settings.
    pub timezone: Option<String>,
    /// How long after the deadline it still counts as in time. Default: none.
    pub grace: Option<Time>,
    /// What to do about deadlines that passed while tidings was not running. Default: tell.
    pub missed: Option<MissedDeadline>,
}

/// What to do about deadlines that passed while tidings was not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedDeadline {
    /// Judge them by what is found now.
    Tell,
    /// Leave them out.
    Skip,
}

/// Too many files, or too old ones, lie in a folder. It is over when they are cleared away.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderBacklog {
    /// The folder.
    #[serde(rename = "in")]
    pub folder: String,
    /// Which files, by their path below the folder. Default: all, in sub-folders too.
    #[serde(rename = "match")]
    pub matching: Option<Glob>,
    /// Which files not, by their path below the folder or their name alone.
    pub ignore: Option<Many<Glob>>,
    /// Whether to look into sub-folders. Default: if `match` says so (it has a `/`), or is absent.
    pub recursive: Option<bool>,
    /// More files than this.
    pub count: Option<u64>,
    /// A file that has lain there longer than this.
    pub age: Option<Time>,
}

/// A job still runs after the time it should need. It is over when it ends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRunsLong {
    /// Its name, or a pattern for names: "billing-*".
    pub job: Glob,
    /// How long it may run.
    pub after: Time,
}

/// Days on which deadlines do not count.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// Days (2026-12-25), ranges (2026-12-24..2027-01-02), or month and day for every year (12-25).
    pub dates: Option<Many<String>>,
    /// An iCalendar file: its events that last whole days.
    pub file: Option<String>,
}
