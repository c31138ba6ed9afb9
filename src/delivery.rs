//! Delivery: claims what is due in the outbox, performs it, settles it.
//!
//! Theory of operation. Entries wait in *lanes*: the mails of one account's mailbox, the runs of one
//! job. A lane is worked on by as many performers as its pace allows, is paused when its server or
//! its credential asks for that, and never holds up another lane. Entries are claimed a handful at a
//! time under a lease, which is renewed while they wait or run here; whoever is killed leaves leases
//! behind that the next start reads (see [`Store::recover`]).
//!
//! ```text
//!   outbox --claim--> waiting here --> performer --gate--> server --> settle
//!                        |                                              |
//!                        +-- stop: given back untouched                 +-- events of its outcome
//! ```
//!
//! When it stops, it begins nothing new, finishes what is on the wire, and gives the rest back.

pub mod perform;
pub mod step;
pub mod verdict;

use crate::action::run::Commands;
use crate::action::{Overlap, Step, Work};
use crate::clock::Clock;
use crate::delivery::perform::{Performed, Performer};
use crate::delivery::verdict::Retry;
use crate::entry::{EntryId, Fence, Kind, Leased, Reason, Settlement};
use crate::event::{FileRef, members};
use crate::ground::Ground;
use crate::pulse::Pulse;
use crate::sender::Senders;
use crate::sender::pace::Pacer;
use crate::store::{Also, Store, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time for which an entry is ours without renewal.
const LEASE: Duration = Duration::from_secs(600);

/// Time between two renewals of all leases.
const RENEW: Duration = Duration::from_secs(120);

/// Entries of one lane claimed ahead of their performers.
const AHEAD: usize = 32;

/// Jobs that may run at once, all together; but one of each lane always may.
const JOBS: usize = 16;

/// The task's name, also for its pulse.
pub const NAME: &str = "delivery";

/// Longest time between two looks at the outbox, should a wake-up be lost.
const LOOK: Duration = Duration::from_secs(5);

/// Time between two looks for what other processes wrote.
const FOREIGN: Duration = Duration::from_millis(250);

/// What delivery works by; replaced whole at a reload.
#[derive(Debug)]
pub struct Plan {
    /// The accounts.
    pub senders: Senders,
    /// What happens when a job still runs, by job.
    pub overlap: BTreeMap<String, Overlap>,
    /// How retries are spaced.
    pub retry: Retry,
    /// The setup folder.
    pub setup: PathBuf,
    /// Where the output of jobs is kept.
    pub logs: PathBuf,
    /// Where files really lie.
    pub ground: Ground,
    /// Who runs commands.
    pub commands: Commands,
}

type LaneKey = (Kind, String);

#[derive(Debug, Default)]
struct Lane {
    /// Claimed, not begun.
    waiting: VecDeque<Leased>,
    /// Begun.
    running: usize,
    /// Nothing before this time.
    paused: Option<Timestamp>,
    /// The case whose end ends the pause as well.
    awaits: Option<String>,
}

/// The task.
pub struct Delivery {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    clock: Clock,
    pulse: Pulse,
    gone: mpsc::UnboundedSender<FileRef>,
    lanes: BTreeMap<LaneKey, Lane>,
    ours: BTreeMap<EntryId, Fence>,
    running: JoinSet<Performed>,
    by_task: BTreeMap<tokio::task::Id, (LaneKey, EntryId)>,
    /// The files that running commands work on.
    on_files: BTreeMap<EntryId, Vec<PathBuf>>,
    jobs_stop: CancellationToken,
}

impl Delivery {
    /// A delivery that has not begun. `gone` hears of every file that work took out of its folder;
    /// `jobs_stop` tells running jobs to end.
    pub fn new(
        store: Store,
        plan: watch::Receiver<Arc<Plan>>,
        clock: Clock,
        pulse: Pulse,
        gone: mpsc::UnboundedSender<FileRef>,
        jobs_stop: CancellationToken,
    ) -> Delivery {
        Delivery {
            store,
            plan,
            clock,
            pulse,
            gone,
            lanes: BTreeMap::new(),
            ours: BTreeMap::new(),
            running: JoinSet::new(),
            by_task: BTreeMap::new(),
            on_files: BTreeMap::new(),
            jobs_stop,
        }
    }

    /// Works until stopped; then finishes what is on the wire, or leaves it when told `now`.
    pub async fn run(mut self, stop: CancellationToken, now: CancellationToken) {
        let mut changes = self.store.changes();
        let mut renew = tokio::time::interval(RENEW);
        let mut foreign = tokio::time::interval(FOREIGN);
        foreign.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = true;
        let mut next = None;
        let mut latest = Instant::now();
        while !stop.is_cancelled() {
            self.pulse.tick();
            if look || Instant::now() >= latest {
                next = match self.begin_due().await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!(%error, "cannot read the outbox; trying again");
                        Some(self.clock.now() + LOOK)
                    }
                };
                latest = Instant::now() + LOOK;
            }
            look = true;
            // What woke us without asking for a look must not put the next one off.
            let rest = latest.saturating_duration_since(Instant::now());
            let sleep = next.map_or(rest, |next| self.clock.until(next).min(rest));
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.ended(ended),
                _ = changes.changed() => {}
                _ = self.plan.changed() => self.resume_all(),
                _ = renew.tick() => { self.renew().await; look = false; }
                _ = foreign.tick() => {
                    look = self.store.foreign_change().await;
                    if look { self.resume_all(); }
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.give_back().await;
        self.finish(&now).await;
        let plan = Arc::clone(&self.plan.borrow());
        plan.senders.close().await;
    }

    /// Performs all that is due now, and what became due meanwhile; begins nothing that waits for a
    /// later time. What was begun is finished, also when the store fails or somebody says stop. For the
    /// scheduled worker.
    pub async fn drain(
        &mut self,
        soon: &CancellationToken,
        now: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut renew = tokio::time::interval(RENEW);
        loop {
            let begun = match soon.is_cancelled() {
                false => self.begin_due().await,
                true => Ok(None),
            };
            // Nothing runs, and what waits here is at its pace: claimed, but not before a later time.
            if begun.is_err() || soon.is_cancelled() || self.running.is_empty() {
                self.give_back().await;
                self.finish(now).await;
                return begun.map(drop);
            }
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                _ = renew.tick() => self.renew().await,
                () = soon.cancelled() => {}
            }
        }
    }

    /// Begins everything that may begin. Tells when to look again, if a time is known.
    async fn begin_due(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let plan = Arc::clone(&self.plan.borrow());
        let now = self.clock.now();
        let mut next: Option<Timestamp> = None;
        let mut sooner = |time: Timestamp| next = Some(next.map_or(time, |next| next.min(time)));
        for lane in self.store.lanes().await? {
            self.lanes.entry((lane.kind, lane.lane)).or_default();
            if lane.due > now {
                sooner(lane.due);
            }
        }
        self.resume_mended().await?;
        let keys: Vec<LaneKey> = self.lanes.keys().cloned().collect();
        for key in keys {
            if let Some(time) = self.begin_lane(&key, &plan, now).await? {
                sooner(time);
            }
        }
        self.lanes
            .retain(|_, lane| lane.running > 0 || !lane.waiting.is_empty() || lane.paused.is_some());
        Ok(next)
    }

    /// Begins what one lane allows. Tells when it allows more, if that is a matter of time.
    async fn begin_lane(
        &mut self,
        key: &LaneKey,
        plan: &Arc<Plan>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let jobs = self
            .lanes
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Work)
            .map(|(_, lane)| lane.running)
            .sum();
        let Some(lane) = self.lanes.get_mut(key) else {
            return Ok(None);
        };
        if let Some(until) = lane.paused {
            if until > now {
                return Ok(Some(until));
            }
            lane.paused = None;
        }
        let running = lane.running;
        let capacity = match key.0 {
            Kind::Mail => mail_capacity(&key.1, plan, &self.store, running, now).await?,
            Kind::Work => Ok(work_capacity(plan.overlap.get(&key.1), running, jobs)),
        };
        let capacity = match capacity {
            Ok(capacity) => capacity,
            Err(until) => return Ok(Some(until)),
        };
        let Some(lane) = self.lanes.get_mut(key) else {
            return Ok(None);
        };
        let skip = key.0 == Kind::Work && plan.overlap.get(&key.1) == Some(&Overlap::Skip);
        let room = capacity.saturating_sub(lane.running);
        // Those that wait for another run on their file are no reason to begin nothing else.
        let idle = lane.waiting.len() < AHEAD && free(&lane.waiting, &self.on_files).is_none();
        if idle && (room > 0 || skip) {
            let ahead = match key.0 {
                Kind::Mail => AHEAD.max(room).min(room.saturating_mul(8)),
                // All that wait beside the run that may begin, or runs, are left out.
                Kind::Work if skip => AHEAD,
                Kind::Work => room,
            };
            let claimed = self.store.claim(key.0, &key.1, ahead, LEASE).await?;
            for leased in &claimed {
                self.ours.insert(leased.entry.id, leased.fence);
            }
            lane.waiting.extend(claimed);
        }
        while lane.running < capacity
            && let Some(at) = free(&lane.waiting, &self.on_files)
            && let Some(leased) = lane.waiting.remove(at)
        {
            let files = run_on(&leased);
            if !files.is_empty() {
                self.on_files.insert(leased.entry.id, files);
            }
            lane.running += 1;
            if key.0 == Kind::Mail {
                note_pace(&key.1, plan, now);
            }
            let performer = Performer {
                store: self.store.clone(),
                plan: Arc::clone(plan),
                clock: self.clock.clone(),
                stop: self.jobs_stop.clone(),
            };
            let id = leased.entry.id;
            let handle = self.running.spawn(performer.perform(leased));
            self.by_task.insert(handle.id(), (key.clone(), id));
        }
        if skip && lane.running >= capacity && !lane.waiting.is_empty() {
            // One that cannot be settled now stays here, and is looked at again.
            while let Some(leased) = lane.waiting.front() {
                let id = leased.entry.id;
                let reason = Reason::new("left out: the same job was still running (overlap: skip)");
                tracing::warn!(entry = %id, job = %key.1, "run left out, the same job is still running");
                self.store
                    .settle(id, leased.fence, Settlement::Accept(reason), Also::default())
                    .await?;
                lane.waiting.pop_front();
                self.ours.remove(&id);
            }
            // There may be more.
            return Ok(Some(now));
        }
        Ok(None)
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Performed), tokio::task::JoinError>) {
        let (id, performed) = match ended {
            Ok((id, performed)) => (id, Some(performed)),
            Err(error) => {
                // Its lease stays behind and is read at the next start, or when it runs out.
                tracing::error!(%error, "a performer ended unexpectedly");
                (error.id(), None)
            }
        };
        let Some((key, entry)) = self.by_task.remove(&id) else {
            return;
        };
        self.ours.remove(&entry);
        self.on_files.remove(&entry);
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.running = lane.running.saturating_sub(1);
            if let Some(until) = performed.as_ref().and_then(|performed| performed.pause) {
                lane.paused = Some(lane.paused.map_or(until, |before| before.max(until)));
                lane.awaits = performed.as_ref().and_then(|performed| performed.awaits.clone());
            }
        }
        for file in performed.map(|performed| performed.gone).unwrap_or_default() {
            // The source may have stopped already; the store remembers it too.
            let _ = self.gone.send(file);
        }
    }

    /// Ends the pauses that waited for a case which is closed.
    async fn resume_mended(&mut self) -> Result<(), StoreError> {
        if self
            .lanes
            .values()
            .all(|lane| lane.paused.is_none() || lane.awaits.is_none())
        {
            return Ok(());
        }
        let open = self.store.open_cases().await?;
        for lane in self.lanes.values_mut() {
            if let Some(awaited) = &lane.awaits
                && open.iter().all(|case| case.key != *awaited)
            {
                (lane.paused, lane.awaits) = (None, None);
            }
        }
        Ok(())
    }

    /// Somebody changed the setup or the store: what a pause waited for may be mended.
    fn resume_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.paused = None;
        }
    }

    /// All at once, so that they share a commit, and a store that is busy is waited for once.
    async fn renew(&self) {
        let mut asked = JoinSet::new();
        for (&id, &fence) in &self.ours {
            let store = self.store.clone();
            asked.spawn(async move { (id, store.renew(id, fence, LEASE).await) });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((id, Err(error))) = answer {
                tracing::warn!(entry = %id, %error, "cannot renew a lease");
            }
        }
    }

    /// Gives back what was claimed and not begun.
    async fn give_back(&mut self) {
        let mut asked = JoinSet::new();
        for leased in self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)) {
            let (id, fence) = (leased.entry.id, leased.fence);
            self.ours.remove(&id);
            let store = self.store.clone();
            asked.spawn(async move {
                let settled = store.settle(id, fence, Settlement::Release, Also::default());
                (id, settled.await)
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((id, Err(error))) = answer {
                tracing::warn!(entry = %id, %error, "cannot give an entry back; the next start does");
            }
        }
    }

    /// Waits for everything that was begun; when told `now`, leaves it where it is.
    async fn finish(&mut self, now: &CancellationToken) {
        let (mut renew, mut look) = (tokio::time::interval(RENEW), tokio::time::interval(LOOK));
        while !self.running.is_empty() {
            self.pulse.tick();
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                _ = renew.tick() => self.renew().await,
                _ = look.tick() => {}
                // Jobs are killed by this.
                () = now.cancelled() => self.running.shutdown().await,
            }
        }
    }
}

/// The first entry that may begin as far as files go: no command runs, or comes before it, on one of its own. Two
/// versions of a file are worked on one after the other, also where a job may run several times at once.
fn free(waiting: &VecDeque<Leased>, busy: &BTreeMap<EntryId, Vec<PathBuf>>) -> Option<usize> {
    let mut taken: BTreeSet<PathBuf> = busy.values().flatten().cloned().collect();
    waiting.iter().position(|leased| {
        let files = run_on(leased);
        let is_free = files.iter().all(|file| !taken.contains(file));
        taken.extend(files);
        is_free
    })
}

/// The files that an entry's command works on; none for everything else.
fn run_on(leased: &Leased) -> Vec<PathBuf> {
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

/// How many mails of a lane may run at once; or when the pace allows the next.
async fn mail_capacity(
    lane: &str,
    plan: &Plan,
    store: &Store,
    running: usize,
    now: Timestamp,
) -> Result<Result<usize, Timestamp>, StoreError> {
    let (account, mailbox) = lane.split_once(' ').unwrap_or((lane, ""));
    // An account the settings no longer have: the performer holds its mails and says so.
    let Some(sender) = plan.senders.get(account) else {
        return Ok(Ok(1));
    };
    let recent = match Pacer::memory(sender.account().pace) {
        Some(memory) if !sender.is_paced(mailbox) => {
            store.attempts_since(Kind::Mail, lane, now - memory).await?
        }
        _ => Vec::new(),
    };
    let free = sender.paced(mailbox, || recent, |pacer| pacer.free(now));
    // Those that run are counted already.
    Ok(free.map(|free| free.saturating_add(running).min(sender.connections())))
}

fn note_pace(lane: &str, plan: &Plan, now: Timestamp) {
    let (account, mailbox) = lane.split_once(' ').unwrap_or((lane, ""));
    if let Some(sender) = plan.senders.get(account) {
        sender.paced(mailbox, Vec::new, |pacer| pacer.note(now));
    }
}

/// How many runs of a lane there may be, when it has `running` of all `jobs` that run.
fn work_capacity(overlap: Option<&Overlap>, running: usize, jobs: usize) -> usize {
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
