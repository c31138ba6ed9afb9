//! What starts a rule, as far as facts go.

use crate::event::Kind;
use crate::rule::Trigger;

/// What kind of thing starts a rule, as far as facts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TriggerWord {
    /// `file_arrives`: brings `file`.
    FileArrives,
    /// `file_changes`: brings `file`.
    FileChanges,
    /// `file_removed`: brings `file` as last known, without what stands in it.
    FileRemoved,
    /// `file_arrives` with `together`: brings `file`, `files` and `set`.
    FilesTogether,
    /// `schedule`: brings `schedule`.
    Schedule,
    /// `job_succeeds`, `job_fails`, `job_finishes`, `job_recovers`: bring `job`.
    Job,
    /// `event`: brings `cloudevent`, and lays its data below the rule's own `data`.
    Event,
    /// `trouble`: brings `trouble`.
    Trouble,
    /// `file_missing`: brings `expected`, and `file` when it came.
    FileMissing,
    /// `folder_backlog`: brings `folder`.
    FolderBacklog,
    /// `job_missing`: brings `expected` and `job`.
    JobMissing,
    /// `job_runs_long`: brings `job`.
    JobRunsLong,
}

impl TriggerWord {
    /// All of them.
    pub const ALL: [TriggerWord; 12] = [
        TriggerWord::FileArrives,
        TriggerWord::FileChanges,
        TriggerWord::FileRemoved,
        TriggerWord::FilesTogether,
        TriggerWord::Schedule,
        TriggerWord::Job,
        TriggerWord::Event,
        TriggerWord::Trouble,
        TriggerWord::FileMissing,
        TriggerWord::FolderBacklog,
        TriggerWord::JobMissing,
        TriggerWord::JobRunsLong,
    ];

    /// The fact that it is for.
    pub fn brings(self) -> &'static str {
        match self {
            TriggerWord::FileArrives | TriggerWord::FileChanges | TriggerWord::FileRemoved => "file",
            TriggerWord::FilesTogether => "files",
            TriggerWord::Schedule => "schedule",
            TriggerWord::Job => "job",
            TriggerWord::Event => "cloudevent",
            TriggerWord::Trouble => "trouble",
            TriggerWord::FileMissing | TriggerWord::JobMissing => "expected",
            TriggerWord::FolderBacklog => "folder",
            TriggerWord::JobRunsLong => "job",
        }
    }

    /// Whether a file is there that can be read, moved and attached.
    pub fn has_file(self) -> bool {
        matches!(
            self,
            TriggerWord::FileArrives | TriggerWord::FileChanges | TriggerWord::FilesTogether
        )
    }

    /// Whether its events open cases, or are taken for such (a failing job).
    pub fn opens_case(self) -> bool {
        match self {
            TriggerWord::FileArrives
            | TriggerWord::FileChanges
            | TriggerWord::FileRemoved
            | TriggerWord::FilesTogether
            | TriggerWord::Schedule
            | TriggerWord::Event => false,
            TriggerWord::Job
            | TriggerWord::Trouble
            | TriggerWord::FileMissing
            | TriggerWord::FolderBacklog
            | TriggerWord::JobMissing
            | TriggerWord::JobRunsLong => true,
        }
    }

    /// What to write under `when:`, for people.
    pub fn written(self) -> &'static str {
        match self {
            TriggerWord::FileArrives => "`file_arrives`",
            TriggerWord::FileChanges => "`file_changes`",
            TriggerWord::FileRemoved => "`file_removed`",
            TriggerWord::FilesTogether => "`file_arrives` with `together`",
            TriggerWord::Schedule => "`schedule`",
            TriggerWord::Job => "`job_fails` (or another job trigger)",
            TriggerWord::Event => "`event`",
            TriggerWord::Trouble => "`trouble`",
            TriggerWord::FileMissing => "`file_missing`",
            TriggerWord::FolderBacklog => "`folder_backlog`",
            TriggerWord::JobMissing => "`job_missing`",
            TriggerWord::JobRunsLong => "`job_runs_long`",
        }
    }
}

impl TriggerWord {
    /// Whether it opens cases, and `on_recovery` follows when they close.
    pub fn is_absence(self) -> bool {
        matches!(
            self,
            TriggerWord::FileMissing
                | TriggerWord::FolderBacklog
                | TriggerWord::JobMissing
                | TriggerWord::JobRunsLong
        )
    }
}

impl From<&Trigger> for TriggerWord {
    fn from(trigger: &Trigger) -> TriggerWord {
        match trigger {
            Trigger::FileArrives { .. } => TriggerWord::FileArrives,
            Trigger::FileChanges { .. } => TriggerWord::FileChanges,
            Trigger::FileRemoved { .. } => TriggerWord::FileRemoved,
            Trigger::FilesTogether { .. } => TriggerWord::FilesTogether,
            Trigger::Schedule(_) => TriggerWord::Schedule,
            Trigger::JobSucceeds(_)
            | Trigger::JobFails(_)
            | Trigger::JobFinishes(_)
            | Trigger::JobRecovers(_) => TriggerWord::Job,
            Trigger::Absence(expectation) => match expectation.kind() {
                Kind::FolderBacklog => TriggerWord::FolderBacklog,
                Kind::JobMissing => TriggerWord::JobMissing,
                Kind::JobRunsLong => TriggerWord::JobRunsLong,
                _ => TriggerWord::FileMissing,
            },
            Trigger::Event { .. } => TriggerWord::Event,
            Trigger::Trouble(_) => TriggerWord::Trouble,
        }
    }
}
