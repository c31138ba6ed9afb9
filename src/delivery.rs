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
//!                        |                                   |          |
//!                        |                                   |          +-- events of its outcome
//!                        |                                   +-- its connection takes the next mail
//!                        +-- stop: given back untouched
//! ```
//!
//! A mail gives its connection back as soon as the store has been handed its outcome, and the next one
//! begins while that is written. The store works in the order in which it is asked: the next mail's gate
//! is never on disk before this outcome. So no more mails than there are connections are past the gate
//! without a recorded outcome. Should an outcome fail to be written, the lane is stuck: it begins
//! nothing, and its gates stay shut, until it is.
//!
//! One loop owns all of this. It wakes when something it began has news, when the store changed, and
//! when something is due. It looks into the store only in the last two cases, and claims ahead on the
//! side, so that no connection waits for a claim.
//!
//! When it stops, it begins nothing new, finishes what is on the wire, and gives the rest back.

pub mod over;
pub mod perform;
mod room;
pub mod step;
pub mod verdict;

use crate::action::Overlap;
use crate::action::run::Commands;
use crate::clock::Clock;
use crate::delivery::perform::{Freed, Performed, Performer};
use crate::delivery::room::{Lane, Room, free, mail_room, note_pace, run_on, work_capacity};
use crate::delivery::verdict::Retry;
use crate::entry::{EntryId, Fence, Kind, Leased, Reason, Settlement};
use crate::event::FileRef;
use crate::ground::Ground;
use crate::pulse::Pulse;
use crate::sender::Senders;
use crate::store::{Also, Store, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time for which an entry is ours without renewal.
const LEASE: Duration = Duration::from_secs(600);

/// Time between two renewals of all leases.
const RENEW: Duration = Duration::from_secs(120);

/// Runs of one lane left out at once.
const SKIPPED: usize = 32;

/// Most runs of one lane that wait here for other runs on their files.
const BLOCKED: usize = 32;

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
    /// How long an account may be out of reach before its mails go on by another.
    pub fail_over: Duration,
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

/// An entry being performed.
#[derive(Debug)]
struct Begun {
    lane: LaneKey,
    sending: bool,
}

/// Whose, how many were wanted, what came.
type Claimed = (LaneKey, usize, Result<Vec<Leased>, StoreError>);

type Ended = Result<(tokio::task::Id, Performed), JoinError>;

/// What was begun and will have news.
struct Underway {
    performers: JoinSet<Performed>,
    claims: JoinSet<Claimed>,
    tell: mpsc::UnboundedSender<Freed>,
    freed: mpsc::UnboundedReceiver<Freed>,
}

enum News {
    Freed(Freed),
    Claimed(Result<Claimed, JoinError>),
    Ended(Ended),
}

impl Underway {
    fn is_empty(&self) -> bool {
        self.performers.is_empty() && self.claims.is_empty()
    }

    /// Waits for the next news; for ever if nothing is under way. May be dropped and called again.
    async fn next(&mut self) -> News {
        tokio::select! {
            biased;
            Some(freed) = self.freed.recv() => News::Freed(freed),
            Some(claimed) = self.claims.join_next() => News::Claimed(claimed),
            Some(ended) = self.performers.join_next_with_id() => News::Ended(ended),
            else => std::future::pending().await,
        }
    }
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
    begun: HashMap<EntryId, Begun>,
    by_task: HashMap<tokio::task::Id, EntryId>,
    /// The files that running commands work on.
    on_files: BTreeMap<EntryId, Vec<PathBuf>>,
    underway: Underway,
    /// When something is due, if a time is known.
    next: Option<Timestamp>,
    /// A claim brought something since this was last asked.
    came: bool,
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
        let (tell, freed) = mpsc::unbounded_channel();
        Delivery {
            store,
            plan,
            clock,
            pulse,
            gone,
            lanes: BTreeMap::new(),
            ours: BTreeMap::new(),
            begun: HashMap::new(),
            by_task: HashMap::new(),
            on_files: BTreeMap::new(),
            underway: Underway {
                performers: JoinSet::new(),
                claims: JoinSet::new(),
                tell,
                freed,
            },
            next: None,
            came: false,
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
        let mut latest = Instant::now();
        while !stop.is_cancelled() {
            self.pulse.tick();
            if look || Instant::now() >= latest {
                if let Err(error) = self.begin_due().await {
                    tracing::error!(%error, "cannot work on the outbox; trying again");
                }
                latest = Instant::now() + LOOK;
            }
            // What woke us without asking for a look must not put the next one off.
            let rest = latest.saturating_duration_since(Instant::now());
            let sleep = self.next.map_or(rest, |next| self.clock.until(next).min(rest));
            look = tokio::select! {
                () = stop.cancelled() => false,
                news = self.underway.next() => self.heard(news).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "cannot claim from the outbox; trying again");
                    false
                }),
                _ = changes.changed() => true,
                _ = self.plan.changed() => { self.resume_all(); true }
                _ = renew.tick() => { self.renew().await; false }
                _ = foreign.tick() => {
                    let changed = self.store.foreign_change().await;
                    if changed { self.resume_all(); }
                    changed
                }
                () = tokio::time::sleep(sleep) => true,
            };
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
        let mut look = true;
        let mut begun = Ok(());
        loop {
            if look && begun.is_ok() && !soon.is_cancelled() {
                begun = self.begin_due().await;
            }
            // Nothing runs, and what waits here is at its pace: claimed, but not before a later time.
            if begun.is_err() || soon.is_cancelled() || self.underway.is_empty() {
                self.give_back().await;
                self.finish(now).await;
                return begun;
            }
            look = tokio::select! {
                news = self.underway.next() => match self.heard(news).await {
                    // All is done: more may have become due meanwhile, if there was anything.
                    Ok(look) => look || (self.underway.is_empty() && std::mem::take(&mut self.came)),
                    Err(error) => { begun = Err(error); false }
                },
                _ = renew.tick() => { self.renew().await; false }
                () = soon.cancelled() => false,
            };
        }
    }

    /// Takes in what the outbox has, and begins everything that may begin.
    async fn begin_due(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        // Should this fail, the next look is no later than always.
        self.next = None;
        self.lanes.retain(|_, lane| !lane.is_idle());
        for lane in self.store.lanes().await? {
            let here = self.lanes.entry((lane.kind, lane.lane)).or_default();
            if lane.due <= now {
                here.more = true;
            } else {
                self.next = Some(self.next.map_or(lane.due, |next| next.min(lane.due)));
            }
        }
        self.resume_mended().await?;
        self.begin_all().await
    }

    async fn begin_all(&mut self) -> Result<(), StoreError> {
        let keys: Vec<LaneKey> = self.lanes.keys().cloned().collect();
        for key in keys {
            self.begin(&key).await?;
        }
        Ok(())
    }

    /// Begins what one lane allows, and notes when it allows more, if that is a matter of time.
    async fn begin(&mut self, key: &LaneKey) -> Result<(), StoreError> {
        if let Some(time) = self.begin_lane(key).await? {
            self.next = Some(self.next.map_or(time, |next| next.min(time)));
        }
        Ok(())
    }

    async fn begin_lane(&mut self, key: &LaneKey) -> Result<Option<Timestamp>, StoreError> {
        let plan = Arc::clone(&self.plan.borrow());
        let now = self.clock.now();
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
        if lane.stuck.is_stuck() {
            // Whose outcome it is goes on trying, and ends: that is the news we wait for.
            return Ok(None);
        }
        let overlap = plan.overlap.get(&key.1);
        let skip = key.0 == Kind::Work && overlap == Some(&Overlap::Skip);
        let room = match key.0 {
            Kind::Mail => match mail_room(&key.1, lane, &plan.senders, &self.store, now).await? {
                Ok(room) => room,
                Err(until) => return Ok(Some(until)),
            },
            Kind::Work => Room {
                now: work_capacity(overlap, lane.running, jobs).saturating_sub(lane.running),
                // All that wait beside the run that may begin, or runs, are left out.
                ahead: if skip { SKIPPED } else { 0 },
            },
        };
        let mut left = room.now;
        while left > 0
            && let Some(at) = free(&lane.waiting, &self.on_files)
            && let Some(leased) = lane.waiting.remove(at)
        {
            let files = run_on(&leased);
            if !files.is_empty() {
                self.on_files.insert(leased.entry.id, files);
            }
            left -= 1;
            lane.running += 1;
            let sending = key.0 == Kind::Mail;
            if sending {
                lane.sending += 1;
                note_pace(&key.1, &plan.senders, now);
            }
            let performer = Performer {
                store: self.store.clone(),
                plan: Arc::clone(&plan),
                clock: self.clock.clone(),
                stop: self.jobs_stop.clone(),
                stuck: lane.stuck.clone(),
                freed: self.underway.tell.clone(),
            };
            let id = leased.entry.id;
            let lane = key.clone();
            self.begun.insert(id, Begun { lane, sending });
            let handle = self.underway.performers.spawn(performer.perform(leased));
            self.by_task.insert(handle.id(), id);
        }
        // One that cannot be settled now stays here, and is looked at again.
        while skip
            && left == 0
            && let Some(leased) = lane.waiting.front()
        {
            let id = leased.entry.id;
            let reason = Reason::new("left out: the same job was still running (overlap: skip)");
            tracing::warn!(entry = %id, job = %key.1, "run left out, the same job is still running");
            self.store
                .settle(id, leased.fence, Settlement::Accept(reason), Also::default())
                .await?;
            lane.waiting.pop_front();
            self.ours.remove(&id);
        }
        let wanted = match key.0 {
            Kind::Mail => (left + room.ahead).saturating_sub(lane.waiting.len()),
            // Those that wait for another run on their file are no reason to begin nothing else.
            Kind::Work if lane.waiting.len() < BLOCKED => left + room.ahead,
            Kind::Work => 0,
        };
        // Mails are claimed when half of what was claimed ahead is begun.
        if lane.more && !lane.claiming && wanted > room.ahead / 2 {
            (lane.more, lane.claiming) = (false, true);
            let (store, key) = (self.store.clone(), key.clone());
            self.underway.claims.spawn(async move {
                let claimed = store.claim(key.0, &key.1, wanted, LEASE).await;
                (key, wanted, claimed)
            });
        }
        Ok(None)
    }

    /// Takes note of news, and begins what they make room for. Tells whether to look at the outbox: only that
    /// tells when the next entry is due.
    async fn heard(&mut self, news: News) -> Result<bool, StoreError> {
        match news {
            News::Freed(freed) => {
                if let Some(key) = self.freed(freed) {
                    self.begin(&key).await?;
                }
                Ok(false)
            }
            News::Claimed(Ok((key, wanted, claimed))) => {
                let lane = self.lanes.entry(key.clone()).or_default();
                lane.claiming = false;
                let claimed = claimed?;
                let came = claimed.len();
                for leased in &claimed {
                    self.ours.insert(leased.entry.id, leased.fence);
                }
                self.came |= came > 0;
                lane.more |= came >= wanted;
                lane.waiting.extend(claimed);
                self.begin(&key).await?;
                Ok(came > 0 && came < wanted)
            }
            News::Claimed(Err(error)) => {
                // Leases that nobody bears now run out.
                tracing::error!(%error, "a claim ended unexpectedly");
                self.lanes.values_mut().for_each(|lane| lane.claiming = false);
                Ok(false)
            }
            News::Ended(ended) => {
                let Some((key, again)) = self.ended(ended) else {
                    return Ok(false);
                };
                match key.0 {
                    // One job less: others may have waited for that.
                    Kind::Work => self.begin_all().await?,
                    Kind::Mail => self.begin(&key).await?,
                }
                Ok(again)
            }
        }
    }

    /// The outcome of a mail is on its way to the store: its lane may begin another.
    fn freed(&mut self, freed: Freed) -> Option<LaneKey> {
        let begun = self.begun.get_mut(&freed.id)?;
        let lane = self.lanes.get_mut(&begun.lane)?;
        if std::mem::take(&mut begun.sending) {
            lane.sending = lane.sending.saturating_sub(1);
        }
        if let Some(until) = freed.pause {
            // For which case, is told when that case is open.
            lane.pause(until, None);
        }
        Some(begun.lane.clone())
    }

    /// The lane of what has ended, and whether its entry may be due again.
    fn ended(&mut self, ended: Ended) -> Option<(LaneKey, bool)> {
        let (task, performed) = match ended {
            Ok((task, performed)) => (task, performed),
            Err(error) => {
                // Its lease stays behind and is read at the next start, or when it runs out.
                if !error.is_cancelled() {
                    tracing::error!(%error, "a performer ended unexpectedly");
                }
                (error.id(), Performed::default())
            }
        };
        let id = self.by_task.remove(&task)?;
        self.ours.remove(&id);
        self.on_files.remove(&id);
        for file in performed.gone {
            // The source may have stopped already; the store remembers it too.
            let _ = self.gone.send(file);
        }
        let begun = self.begun.remove(&id)?;
        if let Some(lane) = self.lanes.get_mut(&begun.lane) {
            lane.running = lane.running.saturating_sub(1);
            lane.sending = lane.sending.saturating_sub(usize::from(begun.sending));
            if let Some(until) = performed.pause {
                lane.pause(until, performed.awaits);
            }
        }
        Some((begun.lane, performed.again))
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
        while let Some(claimed) = self.underway.claims.join_next().await {
            if let Ok((key, _, claimed)) = claimed {
                let lane = self.lanes.entry(key).or_default();
                lane.claiming = false;
                lane.waiting.extend(claimed.unwrap_or_default());
            }
        }
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
        while !self.underway.performers.is_empty() {
            self.pulse.tick();
            tokio::select! {
                Some(ended) = self.underway.performers.join_next_with_id() => drop(self.ended(ended)),
                _ = renew.tick() => self.renew().await,
                _ = look.tick() => {}
                // Jobs are killed by this.
                () = now.cancelled() => self.underway.performers.shutdown().await,
            }
        }
    }
}
