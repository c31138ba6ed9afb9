//! `rules/*.yaml`, as written.

use crate::config::raw::absence::{FileMissing, FolderBacklog, JobMissing, JobRunsLong};
use crate::config::raw::emit::{Emit, Event};
use crate::config::raw::files::{CompleteWhen, FileRemoved, Together};
use crate::config::raw::ladder::{Remind, Rung};
use crate::config::raw::mail::Mail;
use crate::config::raw::telling::{Group, QuietHours, Throttle};
use crate::config::raw::{Glob, Many, Size, Template, Time};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Rules: when this happens, and that holds, do the work, then tell.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "rules/*.yaml")]
pub struct Rules {
    /// The rules, by name. A name is unique in the whole setup.
    pub rules: BTreeMap<String, Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For people.
    pub description: Option<String>,
    /// When: any of these.
    pub when: Many<Trigger>,
    /// If: a condition in CEL over the facts, as `file.size > 0`.
    #[serde(rename = "if")]
    pub condition: Option<String>,
    /// The rule's own facts, `data` in conditions and templates.
    pub data: Option<serde_json::Map<String, serde_json::Value>>,
    /// Work: run a command, before anything else.
    pub run: Option<Run>,
    /// Work: copy the event's file, after `run`. A folder ends in `/`.
    pub copy: Option<Template>,
    /// Work: move the event's file, after `run` and `copy`. A folder ends in `/`.
    #[serde(rename = "move")]
    pub move_to: Option<Template>,
    /// Work: delete the event's file, after `run` and `copy`.
    pub delete: Option<bool>,
    /// Whom to tell. With work: after it ended well.
    pub mail: Option<Many<Mail>>,
    /// Events for other rules. With work: after it ended well.
    pub emit: Option<Many<Emit>>,
    /// What follows when the work ended well.
    pub on_success: Option<Outcome>,
    /// What follows when it ended badly.
    pub on_failure: Option<Outcome>,
    /// What follows when it ended well for the first time since a failure. Without work: when the case is over
    /// that the rule told of.
    pub on_recovery: Option<Outcome>,
    /// The `mail` again, while the case stays open.
    pub remind: Option<Remind>,
    /// Further mails, while the case stays open.
    pub escalate: Option<Many<Rung>>,
    /// Many events, one mail.
    pub group: Option<Group>,
    /// How many mails at most; what is more is counted and told with the next one.
    pub throttle: Option<Throttle>,
    /// When nobody is told; what happens then is told at the end, together.
    pub quiet_hours: Option<QuietHours>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A file has settled in a folder: new, moved in, or a new version.
    FileArrives(Box<FileArrives>),
    /// A known file has settled with another content.
    FileChanges(Box<FileArrives>),
    /// A known file went away, and not by work of ours.
    FileRemoved(FileRemoved),
    /// A calendar time came due.
    Schedule(Schedule),
    /// A job with such a name ended well.
    JobSucceeds(Job),
    /// A job with such a name ended badly.
    JobFails(Job),
    /// A job with such a name ended.
    JobFinishes(Job),
    /// A job with such a name ended well for the first time since a failure.
    JobRecovers(Job),
    /// No such file came by a deadline; over when it comes.
    FileMissing(Box<FileMissing>),
    /// Too many files, or too old ones, lie in a folder; over when they are cleared away.
    FolderBacklog(Box<FolderBacklog>),
    /// A job did not report by a deadline; over when it does.
    JobMissing(Box<JobMissing>),
    /// A job still runs after the time it should need; over when it ends.
    JobRunsLong(JobRunsLong),
    /// Somebody emitted an event of such a type.
    Event(Event),
    /// Something of ours needs a person.
    Trouble(Trouble),
}

/// A file has settled in a folder.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileArrives {
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
    /// Smallest size.
    pub min_size: Option<Size>,
    /// Largest size.
    pub max_size: Option<Size>,
    /// When a writer is done: auto, or how long a file must stand still. Default: auto.
    pub settle: Option<Settle>,
    /// A file is done when another one is there: `marker`.
    pub complete_when: Option<CompleteWhen>,
    /// The same, shorter: a file is done when another one of this name is there, as "{{file.name}}.done".
    pub marker: Option<Template>,
    /// Files that belong together make one event.
    pub together: Option<Together>,
    /// What to do with files found on the very first look. Default: ignore.
    pub existing: Option<Existing>,
    /// What makes two files the same. Default: metadata.
    pub identity: Option<Identity>,
}

/// When a writer is done: `auto` or a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Settle(pub String);

impl JsonSchema for Settle {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Settle".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "auto, or how long a file must stand still: 10s",
            "pattern": "^(auto|([0-9]+(ms|s|m|h|d|w))+)$",
        })
    }
}

/// What to do with files found on the very first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// They are known.
    Ignore,
    /// They have just arrived.
    Process,
}

/// What makes two files the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Path, size and time of change.
    Metadata,
    /// These, and the content.
    Content,
}

/// A calendar time: `cron` or `every`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Minute, hour, day of month, month, day of week: "0 2 * * *".
    pub cron: Option<String>,
    /// Time from one to the next, counted from midnight.
    pub every: Option<Time>,
    /// Zone of `cron`, as Europe/Berlin. Default: that of the settings.
    pub timezone: Option<String>,
    /// What to do about times that passed while tidings was not running. Default: once.
    pub missed: Option<Missed>,
}

/// What to do about times that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Make up for the last of them.
    Once,
    /// Make up for each.
    All,
    /// Leave them out.
    Skip,
}

/// A job, by name.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name, or a pattern for names: "billing-*". A rule's work has the rule's name.
    pub job: Glob,
}

/// Something of ours needs a person.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// Of what. Default: of anything.
    pub of: Option<Many<TroubleOf>>,
}

/// What is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TroubleOf {
    /// An account cannot sign in.
    Account,
    /// A mail cannot be sent.
    Mail,
    /// A folder cannot be watched.
    Watch,
    /// A rule cannot do what it says: its condition or template failed.
    Rule,
    /// Little space is left where events and mails are kept.
    Store,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Program and arguments; never a shell.
    pub command: Many<Template>,
    /// Longest time for one attempt; then everything it started is ended. Default: 1h.
    pub timeout: Option<Time>,
    /// Further attempts after a failure. Default: 0.
    #[schemars(range(max = 100))]
    pub retries: Option<u32>,
    /// Wait before a further attempt, doubled each time. Default: 10s.
    pub retry_wait: Option<Time>,
    /// What happens when the same job still runs. Default: queue.
    pub overlap: Option<Overlap>,
    /// Working folder. Default: the setup folder.
    pub folder: Option<String>,
    /// Environment variables, besides TIDINGS_*.
    pub env: Option<BTreeMap<String, Template>>,
    /// How much of its output is kept as a log. Default: 10MB.
    pub log_limit: Option<Size>,
}

/// What happens when the same job still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Wait for it to end.
    Queue,
    /// Leave this one out, and say so.
    Skip,
    /// Run beside it.
    Parallel,
}

/// What follows when the work ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Copy the event's file. A folder ends in `/`.
    pub copy: Option<Template>,
    /// Move the event's file. A folder ends in `/`.
    #[serde(rename = "move")]
    pub move_to: Option<Template>,
    /// Delete the event's file.
    pub delete: Option<bool>,
    /// Whom to tell.
    pub mail: Option<Many<Mail>>,
    /// Events for other rules.
    pub emit: Option<Many<Emit>>,
}
