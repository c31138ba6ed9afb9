//! Jobs that ended: how a report of one becomes an event. Pure, but for the folder of reports that
//! waits for a store that could not be written.
//!
//! A job of ours is reported by delivery in the transaction that settles its entry; a job that runs
//! elsewhere by `tidings exec`. Both say it with a [`JobReport`]. Where the store cannot be written,
//! `exec` leaves its report as a file ([`leave`]) in `state/reports`, and whoever starts or looks next
//! records it ([`pick_up`]): a file is removed after the commit, so a crash between makes the same key
//! twice, which the journal takes once.

use crate::entry::EntryId;
use crate::event::{FileRef, Kind, NewEvent, Origin};
use crate::store::{Batch, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

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

/// How the keys of marks begin: `running:NAME:STARTED:PID`.
pub const MARKS: &str = "running:";

/// How the keys of outcomes begin that `tidings exec` reports.
const OUTCOME: &str = "job:exec:";

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
        file.refresh(&mut facts);
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
        case: None,
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

/// A report that waits in the folder.
#[derive(Debug, Serialize, Deserialize)]
struct Left {
    key: String,
    report: JobReport,
}

/// Folder of reports that wait, below the state folder.
const REPORTS: &str = "reports";

/// Leaves a report as a file, durable when this returns. Blocks.
pub fn leave(state: &Path, report: &JobReport, key: &str) -> io::Result<PathBuf> {
    let folder = state.join(REPORTS);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let left = Left {
        key: key.to_owned(),
        report: report.clone(),
    };
    let name: String = key
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(150)
        .collect();
    let name = format!("{name}-{}", std::process::id());
    // Under a name that nobody picks up until it is whole.
    let temporary = folder.join(format!("{name}.part"));
    let path = folder.join(format!("{name}.json"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(&left)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(&folder)?.sync_all()?;
    Ok(path)
}

/// The key of the mark of the job whose outcome will have this key; none for one of ours.
pub fn mark_of(outcome: &str) -> Option<String> {
    outcome.strip_prefix(OUTCOME).map(|rest| format!("{MARKS}{rest}"))
}

/// The key of the outcome of the job that has this mark.
pub fn outcome_of(mark: &str) -> String {
    format!("{OUTCOME}{}", mark.strip_prefix(MARKS).unwrap_or(mark))
}

/// Records the reports that wait, and removes their files. One that cannot be read is set aside with
/// `.bad` at its end. Returns how many were recorded.
pub async fn pick_up(state: &Path, store: &Store) -> Result<usize, StoreError> {
    let folder = state.join(REPORTS);
    let waiting = tokio::task::spawn_blocking(move || waiting(&folder)).await;
    let mut recorded = 0;
    // One by one: they are few, and none waits for another that fails.
    for (path, left) in waiting.unwrap_or_default() {
        let mark = mark_of(&left.key);
        let event = outcome(&left.report, None, &Map::new(), None, left.key);
        let batch = Batch {
            events: vec![event],
            unmarked: mark.into_iter().collect(),
            ..Batch::default()
        };
        store.record(batch).await?;
        recorded += 1;
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a job report that is recorded");
        }
    }
    Ok(recorded)
}

/// The reports of the folder, the oldest end first: success and failure are told in their order.
fn waiting(folder: &Path) -> Vec<(PathBuf, Left)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all: Vec<(PathBuf, Left)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| {
            let read = std::fs::read(&path).map_err(io::Error::other);
            match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)) {
                Ok(left) => Some((path, left)),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a job report cannot be read; it is set aside as .bad");
                    let _ = std::fs::rename(&path, path.with_extension("json.bad"));
                    None
                }
            }
        })
        .collect();
    let end = |left: &Left| left.report.ended.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    all.sort_by_key(|(_, left)| end(left));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_and_its_outcome_name_each_other() {
        let outcome = "job:exec:billing:2026-03-02T08:30:00Z:17";
        let mark = mark_of(outcome).unwrap();
        assert_eq!(mark, "running:billing:2026-03-02T08:30:00Z:17");
        assert_eq!(outcome_of(&mark), outcome);
        assert_eq!(mark_of("job:entry:7"), None);
    }
}
