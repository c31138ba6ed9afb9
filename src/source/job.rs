//! Jobs that ended: how a report of one becomes an event. Pure, but for the folder of reports that
//! waits for a store that could not be written.
//!
//! A job of ours is reported by delivery in the transaction that settles its entry; a job that runs
//! elsewhere by `tidings exec`. Both say it with a [`JobReport`].

use crate::entry::EntryId;
use crate::event::{FileRef, Kind, NewEvent, Origin};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a job ended: the `job` facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// The job's name.
    pub name: String,
    /// Ended well.
    pub ok: bool,
    /// Exit code, where it ended by itself.
    pub exit_code: Option<i32>,
    /// Name of the signal that ended it (`SIGKILL`).
    pub signal: Option<String>,
    /// Seconds from start to end of the last attempt.
    pub duration: f64,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// The time limit ended it.
    pub timed_out: bool,
    /// We were killed while it ran; how it ended is not known.
    pub lost: bool,
    /// It was left out, because the same job still ran.
    pub skipped: bool,
    /// One sentence: `ended with exit code 3`, `could not be started: No such file or directory`.
    pub summary: String,
    /// The last lines of its output, control characters made visible.
    pub output_tail: String,
    /// Output is missing: it was more than the caps, or a grandchild kept it open.
    pub output_incomplete: bool,
    /// The log file with the whole output (up to its cap), absolute; `attach: job.log`.
    pub log: Option<String>,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// The command, for people.
    pub command: String,
    /// Which entry it was, if one of ours.
    pub entry: Option<EntryId>,
}

/// Facts that every event gets anew; an outcome does not inherit them from the event before it.
const ALWAYS: [&str; 6] = ["event", "rule", "host", "now", "data", "group"];

/// Makes the event of a job that ended.
///
/// `facts` are those of the event that asked for the work; the outcome keeps what they say of the
/// world (`file`, `schedule`) and adds `job`. `file` is where the event's file is now. The time is
/// the report's end, or 1970 where the report names none.
pub fn outcome(
    report: &JobReport,
    origin: Option<Origin>,
    facts: &Map<String, Value>,
    file: Option<FileRef>,
    key: String,
) -> NewEvent {
    let mut facts: Map<String, Value> = facts
        .iter()
        .filter(|(name, _)| !ALWAYS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(file) = &file {
        facts.insert("file".to_owned(), file.facts());
    }
    facts.insert("job".to_owned(), serde_json::to_value(report).unwrap_or_default());
    NewEvent {
        key,
        kind: if report.ok {
            Kind::JobSucceeds
        } else {
            Kind::JobFails
        },
        source: String::new(),
        subject: report.name.clone(),
        time: report.ended.parse().unwrap_or(Timestamp::UNIX_EPOCH),
        facts,
        file,
        origin,
    }
}

/// Key of the outcome of an entry's attempt. A person may have a failed entry done again: that is
/// another happening, and `attempt` (the entry's count of attempts begun) tells them apart.
pub fn entry_key(entry: EntryId, attempt: u32) -> String {
    match attempt {
        0 | 1 => format!("job:entry:{entry}"),
        more => format!("job:entry:{entry}:{more}"),
    }
}
