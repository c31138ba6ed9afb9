//! A lane, and what may begin in it: as far as files, the pace of a mailbox and the places for jobs go.

use crate::action::{Overlap, Step, Work};
use crate::delivery::perform::Stuck;
use crate::entry::{EntryId, Kind, Leased};
use crate::event::{FileRef, members};
use crate::sender::Senders;
use crate::sender::pace::Pacer;
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// Mails begun and not settled, for each connection: one on the wire, one being written down.
const EACH: usize = 2;

/// Mails of one lane claimed ahead of their performers, for each connection.
const AHEAD: usize = 8;

/// Jobs that may run at once, all together; but one of each lane always may.
const JOBS: usize = 16;

/// Entries that go one way, and how it stands.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Claimed, not begun.
    pub(super) waiting: VecDeque<Leased>,
    /// Begun, not settled.
    pub(super) running: usize,
    /// Of these, mails whose outcome is not known yet: each may have a connection.
    pub(super) sending: usize,
    /// Nothing before this time.
    pub(super) paused: Option<Timestamp>,
    /// The case whose end ends the pause as well.
    pub(super) awaits: Option<String>,
    /// Outcomes that could not be written so far.
    pub(super) stuck: Stuck,
    /// A claim is on its way.
    pub(super) claiming: bool,
    /// More may be due than that claim brings.
    pub(super) more: bool,
}

impl Lane {
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && !self.claiming && self.waiting.is_empty() && self.paused.is_none()
    }

    pub(super) fn pause(&mut self, until: Timestamp, awaits: Option<String>) {
        self.paused = Some(self.paused.map_or(until, |before| before.max(until)));
        self.awaits = awaits;
    }
}

/// What may begin in a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// At once.
    pub(super) now: usize,
    /// Beyond that, so that there is always something to begin.
    pub(super) ahead: usize,
}

/// The first entry that may begin as far as files go: no command runs, or comes before it, on one of its own. Two
/// versions of a file are worked on one after the other, also where a job may run several times at once.
pub(super) fn free(waiting: &VecDeque<Leased>, busy: &BTreeMap<EntryId, Vec<PathBuf>>) -> Option<usize> {
    if waiting.front()?.entry.kind != Kind::Work {
        return Some(0);
    }
    let mut taken: BTreeSet<PathBuf> = busy.values().flatten().cloned().collect();
    waiting.iter().position(|leased| {
        let files = run_on(leased);
        let is_free = files.iter().all(|file| !taken.contains(file));
        taken.extend(files);
        is_free
    })
}

/// The files that an entry's command works on; none for everything else.
pub(super) fn run_on(leased: &Leased) -> Vec<PathBuf> {
    if leased.entry.kind != Kind::Work {
        return Vec::new();
    }
    let Ok(work) = serde_json::from_slice::<Work>(&leased.effect) else {
        return Vec::new();
    };
    if !work.steps.iter().any(|step| matches!(step, Step::Run(_))) {
        return Vec::new();
    }
    let files = members(&serde_json::Value::Object(work.facts), work.file.as_ref());
    files.iter().map(FileRef::path).collect()
}

/// How many mails of a lane may begin; or when the pace allows the next.
pub(super) async fn mail_room(
    name: &str,
    lane: &Lane,
    senders: &Senders,
    store: &Store,
    now: Timestamp,
) -> Result<Result<Room, Timestamp>, StoreError> {
    let (account, mailbox) = name.split_once(' ').unwrap_or((name, ""));
    // An account the settings no longer have: the performer holds its mails and says so.
    let Some(sender) = senders.get(account) else {
        return Ok(Ok(Room {
            now: 1_usize.saturating_sub(lane.running),
            ahead: 0,
        }));
    };
    let recent = match Pacer::memory(sender.account().pace) {
        Some(memory) if !sender.is_paced(mailbox) => {
            store.attempts_since(Kind::Mail, name, now - memory).await?
        }
        _ => Vec::new(),
    };
    let connections = sender.connections();
    let free = sender.paced(mailbox, || recent, |pacer| pacer.free(now));
    // Those that run are counted already.
    Ok(free.map(|free| {
        let each = connections.saturating_sub(lane.sending);
        let both = (connections * EACH).saturating_sub(lane.running);
        let room = each.min(both).min(free);
        Room {
            now: room,
            ahead: (connections * AHEAD).min(free - room),
        }
    }))
}

pub(super) fn note_pace(lane: &str, senders: &Senders, now: Timestamp) {
    let (account, mailbox) = lane.split_once(' ').unwrap_or((lane, ""));
    if let Some(sender) = senders.get(account) {
        sender.paced(mailbox, Vec::new, |pacer| pacer.note(now));
    }
}

/// How many runs of a lane there may be, when it has `running` of all `jobs` that run.
pub(super) fn work_capacity(overlap: Option<&Overlap>, running: usize, jobs: usize) -> usize {
    match overlap {
        Some(Overlap::Queue | Overlap::Skip) => 1,
        Some(Overlap::Parallel) | None => (running + JOBS.saturating_sub(jobs)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_runs_fill_all_places_and_every_lane_always_has_one() {
        let parallel = Some(&Overlap::Parallel);
        // Alone, one after the other: sixteen begin.
        let begun = (0..).take_while(|&running| running < work_capacity(parallel, running, running));
        assert_eq!(begun.count(), JOBS);
        assert_eq!(work_capacity(parallel, 3, 13), 6, "three more, thirteen run");
        assert_eq!(
            work_capacity(parallel, 0, JOBS),
            1,
            "no lane is held up by another"
        );
        assert_eq!(work_capacity(None, 1, JOBS + 4), 1);
        for overlap in [Overlap::Queue, Overlap::Skip] {
            assert_eq!(work_capacity(Some(&overlap), 0, 0), 1);
            assert_eq!(work_capacity(Some(&overlap), 1, JOBS), 1);
        }
    }
}
