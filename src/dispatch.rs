//! Dispatch: from a recorded event to entries in the outbox.
//!
//! Theory of operation. The dispatcher asks the journal for events nobody dispatched yet, finds the
//! rules each concerns, lets their actions prepare effects, and admits these together with what each
//! rule decided, in the transaction that marks the event as dispatched. What a rule gathers before it
//! tells lies in the store and falls due; before new events are asked about, what is due is told. Killed
//! anywhere, it begins again with the same events, and the outbox takes each key once. All it has in memory
//! is how many mails of each rule went in the last hour, and that is counted anew at the start.
//! It is woken by the store's commits, by what falls due, and looks by itself now and then.
//!
//! ```text
//!   journal --pending--> [ find rules > condition > prepare ] --admit--> outbox
//!                                     |
//!                                     +--> what each rule decided, and why (`explain`)
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `ask` | one event put to one rule |
//! | `compose` | entries |
//! | `emit` | the events a rule has for others |
//! | `gathering` | throttle, group, quiet hours and fuse, before an event is told |
//! | `due` | what was gathered, when its time has come |
//! | `desk` | how things stand while that is decided |
//! | `ladder` | cases a rule told of: reminders, rungs, and that they are over |
//! | `pause`, `go_on` | rules that are paused, and what they kept when they go on |

mod ask;
mod asked;
mod compose;
mod desk;
mod due;
mod emit;
mod gathering;
mod go_on;
mod known;
mod ladder;
pub mod pause;

use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::dispatch::asked::{Made, Unready};
use crate::dispatch::desk::Desk;
use crate::dispatch::due::Fallen;
use crate::dispatch::known::Known;
use crate::dispatch::pause::Board;
use crate::event::{self, Event, EventId};
use crate::mail::header::one_line;
use crate::pulse::Pulse;
use crate::rule::facts::Surroundings;
use crate::rule::fuse::Fuse;
use crate::rule::index::{Match, Rules};
use crate::store::{Admission, GatherStep, Gathering, Store, StoreError};
use crate::template::Templates;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// Events taken in one go.
const BATCH: usize = 256;

/// How long events may be prepared before those that are done are admitted.
const LONG: Duration = Duration::from_secs(1);

/// Longest time between two looks at the journal, should a wake-up be lost.
const LOOK: Duration = Duration::from_millis(500);

/// Shortest wait between two rounds that nobody woke.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long what is due next is believed: another process may have made something due.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// When a digest is tried again whose composing failed as only a mistake of ours can.
const AFTER_A_PANIC: SignedDuration = SignedDuration::from_mins(5);

/// What the dispatcher works by; replaced whole at a reload.
#[derive(Debug)]
pub struct Plan {
    /// The rules, indexed.
    pub rules: Rules,
    /// The settings they were checked with.
    pub settings: Settings,
    /// The templates they name.
    pub templates: Templates,
    /// This machine's name, for facts.
    pub host: String,
    /// Ids and roots of the watches the rules know.
    pub watches: Vec<(String, PathBuf)>,
}

impl Plan {
    /// What facts say beside an event.
    fn surroundings(&self, now: Timestamp) -> Surroundings {
        Surroundings {
            host: self.host.clone(),
            now: now.to_zoned(self.settings.defaults.timezone.clone()),
        }
    }

    /// The rules an event concerns. A file that was recorded under a watch which the setup no longer has, since
    /// it was changed meanwhile, is asked about under the watches of the same folder there are now: what was
    /// recorded is not lost by a reload or a restart.
    fn find(&self, event: &Event) -> Vec<Match> {
        let source = &event.happening.source;
        let Some(file) = &event.happening.file else {
            return self.rules.find(event);
        };
        let of_watch = matches!(
            event.happening.kind,
            event::Kind::FileArrives | event::Kind::FileRemoved
        );
        if !of_watch || self.watches.iter().any(|(id, _)| id == source) {
            return self.rules.find(event);
        }
        let mut found: Vec<Match> = Vec::new();
        for (id, _) in self.watches.iter().filter(|(_, root)| *root == file.root) {
            let mut moved = event.clone();
            moved.happening.source.clone_from(id);
            for each in self.rules.find(&moved) {
                if found.iter().all(|known| known.rule.name != each.rule.name) {
                    found.push(each);
                }
            }
        }
        found
    }
}

/// The task.
#[derive(Debug)]
pub struct Dispatcher {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    clock: Clock,
    pulse: Pulse,
    memory: Mutex<Memory>,
}

/// What is kept between two rounds; all of it can be had from the store again.
#[derive(Debug, Default)]
struct Memory {
    /// Mails of the last hour, by rule; `None`: not counted yet.
    fuses: Option<HashMap<String, Fuse>>,
    /// The plan under which what is gathered was last looked through.
    plan: Option<Arc<Plan>>,
    /// When something gathered is due next.
    next: Option<Timestamp>,
    /// When that was last asked; `None`: it may have changed.
    asked: Option<Timestamp>,
}

impl Dispatcher {
    /// A dispatcher that has not begun.
    pub fn new(store: Store, plan: watch::Receiver<Arc<Plan>>, clock: Clock, pulse: Pulse) -> Dispatcher {
        Dispatcher {
            store,
            plan,
            clock,
            pulse,
            memory: Mutex::default(),
        }
    }

    /// Works until stopped. A store that cannot write is waited for; nothing is skipped.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.store.changes();
        loop {
            self.pulse.tick();
            let pause = match self.drain().await {
                Ok(_) => match self.memory.lock().await.next {
                    Some(next) => LOOK.min(self.clock.until(next)).max(SHORTEST),
                    None => LOOK,
                },
                Err(error) => {
                    tracing::error!(%error, "cannot dispatch; trying again");
                    Duration::from_secs(5)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dispatches until the journal has nothing pending and nothing that was gathered is due. Tells how many
    /// events and gatherings that were.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        let mut memory = self.memory.lock().await;
        let mut count = 0;
        loop {
            let plan = Arc::clone(&self.plan.borrow());
            let mut board = Board::read(&self.store, self.clock.now()).await?;
            self.go_on(&mut memory, &plan, &board).await?;
            self.look_through(&mut memory, &plan, &board).await?;
            count += self.tell_due(&mut memory, &plan, &mut board).await?;
            let mut events = self.store.pending_events(BATCH).await?;
            if events.is_empty() {
                return Ok(count);
            }
            // What depends on how a case stands is asked alone, after all that came before it.
            if let Some(first) = events.iter().position(|event| known::concerns(&plan, event)) {
                events.truncate(first.max(1));
            }
            let mut desk = self.desk(&mut memory, &plan).await?;
            if let [event] = events.as_slice() {
                for found in plan.find(event) {
                    if let Some(known) = Known::read(&self.store, &found.rule, event, desk.now).await? {
                        desk.known.insert(found.rule.name.clone(), known);
                    }
                }
            }
            // Read after the events: what was recorded after a rule was paused finds it paused.
            desk.board = Board::read(&self.store, desk.now).await?;
            let pulse = self.pulse.clone();
            let prepared = tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                let mut prepared = Vec::new();
                for event in &events {
                    // Large attachments take their time; each one done is progress.
                    pulse.tick();
                    let made = ask::admission(event, &mut desk);
                    let stop = matches!(made, Err(Unready::Store(_)));
                    prepared.push(made.map_err(|error| (event.id, error)));
                    // What is full is told before anything more joins it, and those that are done need not wait
                    // for large files among the rest.
                    if stop || desk.full || begun.elapsed() > LONG {
                        break;
                    }
                }
                (prepared, desk)
            });
            // A panic in a template engine must not lose the batch: it stays pending, and is told.
            let (prepared, mut desk) = match prepared.await {
                Ok(prepared) => prepared,
                Err(error) => {
                    tracing::error!(%error, "preparing effects failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            // What the spool could not take stays pending, and everything else goes its way.
            let (made, failed): (Vec<_>, Vec<_>) = prepared.into_iter().partition(Result::is_ok);
            count += made.len();
            let admissions: Vec<Admission> = made
                .into_iter()
                .flatten()
                .flat_map(Made::into_admissions)
                .collect();
            self.admit(&mut memory, &mut desk, admissions).await?;
            memory.fuses = Some(desk.fuses);
            if let Some((event, error)) = failed.into_iter().find_map(Result::err) {
                tracing::error!(%event, "an event waits");
                return Err(self.unready(error));
            }
        }
    }

    /// Admits a round's work, and tells the log what is held.
    async fn admit(
        &self,
        memory: &mut Memory,
        desk: &mut Desk,
        admissions: Vec<Admission>,
    ) -> Result<(), StoreError> {
        for admission in &admissions {
            tracing::debug!(
                event = admission.event.map(|event| event.0),
                entries = admission.entries.len(),
                gathered = admission.gathers.len(),
                "dispatched"
            );
        }
        if admissions.iter().any(|admission| !admission.gathers.is_empty()) {
            memory.asked = None;
        }
        let held: Vec<_> = admissions.iter().flat_map(held).collect();
        let admitted = match self.store.admit(admissions).await {
            Ok(admitted) => admitted,
            Err(error) => {
                desk.undo_all();
                memory.fuses = Some(std::mem::take(&mut desk.fuses));
                return Err(error);
            }
        };
        for (entry, held) in admitted.iter().flatten().zip(held) {
            if let Some((event, rule, reason)) = held
                && entry.fresh
            {
                tracing::warn!(entry = %entry.id, %event, rule, reason, "held, a person must mend something");
            }
        }
        self.pulse.tick();
        Ok(())
    }

    /// A desk with the fuses, which are counted first where they are not known.
    async fn desk(&self, memory: &mut Memory, plan: &Arc<Plan>) -> Result<Desk, StoreError> {
        let now = self.clock.now();
        let fuses = match memory.fuses.take() {
            Some(fuses) => fuses,
            None => self.count_mails(now).await?,
        };
        Ok(Desk::new(self.store.clone(), Arc::clone(plan), now, fuses))
    }

    /// Mails of the last hour, from the store.
    async fn count_mails(&self, now: Timestamp) -> Result<HashMap<String, Fuse>, StoreError> {
        let mut fuses: HashMap<String, Fuse> = HashMap::new();
        let since = now.saturating_sub(gathering::HOUR).unwrap_or(Timestamp::MIN);
        for (rule, admitted, summary) in self.store.mails_since(since).await? {
            if summary.get("held_by").is_none() {
                fuses.entry(rule).or_default().add(admitted, 1);
            }
        }
        for gathering in self.store.gatherings(None).await? {
            if gathering.key.starts_with("fuse:") {
                fuses.entry(gathering.rule).or_default().sum_until(gathering.due);
            }
        }
        Ok(fuses)
    }

    /// At the start and after a reload: what was gathered by a rule that is gone, or for what it no longer says,
    /// is due at once.
    async fn look_through(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        board: &Board,
    ) -> Result<(), StoreError> {
        if memory.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            return Ok(());
        }
        let now = self.clock.now();
        let mut admission = Admission::default();
        for gathering in self.store.gatherings(None).await? {
            if let Some(step) = ladder::retimed(plan, &gathering, board, now) {
                admission.gathers.push(step);
            }
            if due::is_orphan(plan, &gathering.key, &gathering.rule)
                && gathering.due.is_none_or(|due| due > now)
            {
                tracing::info!(
                    rule = gathering.rule,
                    key = gathering.key,
                    "the setup no longer gathers this; it is told now"
                );
                let gathering = Gathering {
                    due: Some(now),
                    ..gathering
                };
                admission.gathers.push(GatherStep::Put(gathering, Vec::new()));
            }
        }
        if !admission.gathers.is_empty() {
            self.store.admit(vec![admission]).await?;
        }
        memory.asked = None;
        memory.plan = Some(Arc::clone(plan));
        Ok(())
    }

    /// Tells what was gathered and is due. How many there were.
    async fn tell_due(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        board: &mut Board,
    ) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let fresh = memory.asked.is_some_and(|asked| {
            let since = now.duration_since(asked);
            !since.is_negative() && since < LOOK_AGAIN
        });
        if !fresh {
            memory.next = self.store.next_gathering().await?;
            memory.asked = Some(now);
        }
        if memory.next.is_none_or(|next| next > now) {
            return Ok(0);
        }
        let mut count = 0;
        loop {
            let mut due = self.store.due_gatherings(now, BATCH).await?;
            due.retain(|gathering| due::is_ours(&gathering.key) || ladder::is_ours(gathering));
            let Some(gathering) = due.into_iter().next() else {
                break;
            };
            if let Some(gathers) = board.stop(&gathering) {
                let admission = Admission {
                    gathers,
                    ..Admission::default()
                };
                self.store.admit(vec![admission]).await?;
                continue;
            }
            self.tell_one(memory, plan, gathering).await?;
            count += 1;
        }
        memory.next = self.store.next_gathering().await?;
        memory.asked = Some(now);
        Ok(count)
    }

    async fn tell_one(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        gathering: Gathering,
    ) -> Result<(), StoreError> {
        let mut desk = self.desk(memory, plan).await?;
        let again = Gathering {
            due: desk.now.saturating_add(AFTER_A_PANIC).ok(),
            ..gathering.clone()
        };
        let ladder = ladder::Due::read(&self.store, &gathering, desk.now).await?;
        let fallen = tokio::task::spawn_blocking(move || {
            let fallen = match ladder {
                Some(ladder) => ladder.settle(&mut desk).map(|made| Fallen { made, closes: None }),
                None => due::fall(&gathering, &mut desk),
            };
            (fallen, desk)
        });
        let (fallen, mut desk) = match fallen.await {
            Ok(fallen) => fallen,
            Err(error) => {
                tracing::error!(rule = again.rule, key = again.key, %error, "composing a digest failed");
                let gathers = vec![GatherStep::Put(again, Vec::new())];
                let admission = Admission {
                    gathers,
                    ..Admission::default()
                };
                return self.store.admit(vec![admission]).await.map(drop);
            }
        };
        match fallen {
            Ok(fallen) => {
                // Before the end of what remembers it: a crash between the two closes it again.
                if let Some(case) = &fallen.closes {
                    self.store.close_case(case).await?;
                }
                let admissions = fallen.made.into_admissions().collect();
                self.admit(memory, &mut desk, admissions).await?;
                memory.fuses = Some(desk.fuses);
                Ok(())
            }
            Err(error) => {
                memory.fuses = Some(desk.fuses);
                Err(self.unready(error))
            }
        }
    }

    fn unready(&self, error: Unready) -> StoreError {
        match error {
            Unready::Store(error) => error,
            Unready::Disk(source) => {
                tracing::error!(error = %source, "no space for a mail; what it tells waits");
                StoreError::File {
                    what: "cannot write to",
                    path: self.store.path().with_file_name("spool"),
                    source: Arc::new(source),
                }
            }
        }
    }
}

/// For each entry of an admission, what the log says of it if it is held.
fn held(admission: &Admission) -> impl Iterator<Item = Option<(EventId, String, String)>> {
    admission.entries.iter().map(|entry| {
        let reason = entry.held.as_ref()?;
        Some((
            entry.event?,
            one_line(&entry.rule, 200),
            one_line(&reason.text, 500),
        ))
    })
}
