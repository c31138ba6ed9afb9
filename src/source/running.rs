//! Jobs that run at this moment: ours, by their leases, and those of `tidings exec`, by a mark each.
//!
//! `tidings exec` leaves a mark when its command starts and takes it away in the transaction that
//! records how it ended. A mark whose process is gone means that `exec` was killed: the job is reported
//! as lost, under the key its own report would have had, so that both together are one happening.

use crate::clock::Clock;
use crate::entry::{EntryId, Kind, State};
use crate::source::job::{self, JobReport};
use crate::store::{Batch, EntryFilter, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use std::path::Path;
use std::time::Duration;

/// Most jobs of ours that are listed.
const MOST: usize = 1_000;

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The job's name.
    pub name: String,
    /// Since when.
    pub started: Timestamp,
    /// What it is to others: the key its end will have. Ours: that of its entry's attempt.
    pub key: String,
    /// The entry, if it is one of ours.
    pub entry: Option<EntryId>,
    /// The process that runs it, if it is not.
    pub process: Option<Process>,
}

/// The mark that `tidings exec` leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The job's name.
    pub name: String,
    /// RFC 3339.
    pub started: String,
    /// The command, for people.
    pub command: String,
    /// Who runs it.
    pub process: Process,
}

/// A process, so that nobody else can be taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its machine's name.
    pub host: String,
    /// Its number.
    pub pid: u32,
    /// The machine's start it belongs to.
    pub boot: String,
    /// The space its number belongs to: that of a container.
    pub space: String,
    /// When it began, in ticks since the machine's start: numbers are used again.
    pub begun: u64,
}

impl Process {
    /// This process.
    pub fn own() -> Process {
        let pid = std::process::id();
        Process {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid,
            boot: boot(),
            space: space(),
            begun: begun(pid).unwrap_or_default(),
        }
    }

    /// Whether it is certain that the process has ended. One of another machine, or of another
    /// container, cannot be asked about.
    pub fn is_gone(&self, own: &Process) -> bool {
        if self.host != own.host {
            return false;
        }
        if self.boot != own.boot {
            return !self.boot.is_empty() && !own.boot.is_empty();
        }
        self.space == own.space && own.begun != 0 && begun(self.pid) != Some(self.begun)
    }
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn space() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map_or(String::new(), |space| space.to_string_lossy().into_owned())
}

/// When a living process began; `None` also for one that has ended and was not waited for.
fn begun(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// All jobs that run, the longest running first. A mark whose process is known to be gone is left out.
pub async fn list(store: &Store) -> Result<Vec<Running>, StoreError> {
    let filter = EntryFilter {
        states: vec![State::Leased],
        kind: Some(Kind::Work),
        limit: MOST,
        ..EntryFilter::default()
    };
    let ours = store.entries(filter).await?.into_iter().filter_map(|entry| {
        // What follows an outcome has a lane of its own, and is no job.
        (entry.lane == entry.rule).then(|| Running {
            key: job::entry_key(entry.id, entry.attempts),
            name: entry.rule,
            started: entry.changed,
            entry: Some(entry.id),
            process: None,
        })
    });
    let mut all: Vec<Running> = ours.collect();
    let own = Process::own();
    for (key, mark) in marks(store).await? {
        let Ok(started) = mark.started.parse() else {
            continue;
        };
        if !mark.process.is_gone(&own) {
            all.push(Running {
                name: mark.name,
                started,
                key: job::outcome_of(&key),
                entry: None,
                process: Some(mark.process),
            });
        }
    }
    all.sort_by(|a, b| (a.started, &a.key).cmp(&(b.started, &b.key)));
    Ok(all)
}

async fn marks(store: &Store) -> Result<Vec<(String, Mark)>, StoreError> {
    let marks = store.marks(job::MARKS).await?.into_iter();
    Ok(marks
        .filter_map(|(key, mark)| Some((key, serde_json::from_value(mark).ok()?)))
        .collect())
}

/// Reports as lost the jobs of `tidings exec` whose process is gone. Returns how many.
pub async fn find_lost(state: &Path, store: &Store) -> Result<usize, StoreError> {
    let own = Process::own();
    let gone = |marks: Vec<(String, Mark)>| -> Vec<(String, Mark)> {
        marks
            .into_iter()
            .filter(|(_, mark)| mark.process.is_gone(&own))
            .collect()
    };
    let before = gone(marks(store).await?);
    if before.is_empty() {
        return Ok(0);
    }
    // Before it ended it may have left its report as a file. It was there when its process was gone.
    job::pick_up(state, store).await?;
    let now = Clock::system().now();
    let mut count = 0;
    for (key, mark) in gone(marks(store).await?) {
        if !before.iter().any(|(known, _)| *known == key) {
            continue;
        }
        let event = job::outcome(&lost(&mark, now), None, &Map::new(), None, job::outcome_of(&key));
        let recorded = store
            .record(Batch {
                events: vec![event],
                unmarked: vec![key],
                ..Batch::default()
            })
            .await?;
        count += recorded.iter().filter(|recorded| recorded.fresh).count();
    }
    Ok(count)
}

fn lost(mark: &Mark, now: Timestamp) -> JobReport {
    let ran = mark
        .started
        .parse::<Timestamp>()
        .ok()
        .and_then(|started| Duration::try_from(now.duration_since(started)).ok());
    JobReport {
        name: mark.name.clone(),
        attempt: 1,
        lost: true,
        duration: ran.unwrap_or_default().as_secs_f64(),
        summary: format!(
            "lost: `tidings exec` (process {}) was ended while it ran; how it ended is not known",
            mark.process.pid
        ),
        started: mark.started.clone(),
        ended: now.to_string(),
        command: mark.command.clone(),
        ..JobReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_certainly_ended_is_gone() {
        let own = Process::own();
        assert!(own.begun > 0 && !own.boot.is_empty());
        assert!(!own.is_gone(&own));
        let other = |change: &dyn Fn(&mut Process)| {
            let mut process = own.clone();
            change(&mut process);
            process.is_gone(&own)
        };
        assert!(other(&|process| process.begun += 1), "its number was used again");
        assert!(other(&|process| process.pid = u32::MAX));
        assert!(
            other(&|process| process.boot = "another".to_owned()),
            "the machine was started anew"
        );
        assert!(!other(&|process| {
            process.host = "elsewhere".to_owned();
            process.pid = u32::MAX;
        }));
        assert!(!other(&|process| {
            process.space = "pid:[1]".to_owned();
            process.pid = u32::MAX;
        }));
    }
}
