//! One look at all expectations: reads, decides, records.

use super::backlog::{Backlog, Pile};
use super::expected::{Arrival, Expected, Look, Progress, Step};
use super::running::Running;
use super::{AbsenceSource, Expectation, FileExpected, State, What, tell};
use crate::event::{Event, EventId, FileRef, Kind, NewEvent};
use crate::source::file::status::{self, Mode, WatchStatus};
use crate::store::{Batch, EventFilter, Lying, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Mark of what all expectations share.
const JOURNAL: &str = "absence:journal";
/// Marks of single ones begin with this.
const MARKS: &str = "absence:of:";
/// Events read in one go.
const PAGE: usize = 1_000;
/// Events of a window that are read when an expectation begins.
const BEFORE: usize = 10_000;
/// How long files that a scan found, and that have not settled, are waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two wishes for a scan.
const ASK: Duration = Duration::from_secs(5);
/// Time between two writes of what only saves work after a restart.
const KEEP: Duration = Duration::from_secs(60);

/// What all expectations share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Up to which event it was read.
    after: i64,
    /// Up to when it is known what came into each watched folder.
    certain: BTreeMap<String, Timestamp>,
    /// A scan whose finds have not all settled: when it began, and when we first saw it.
    #[serde(skip)]
    unsettled: BTreeMap<String, (Timestamp, Timestamp)>,
    /// When a scan was last asked for.
    #[serde(skip)]
    asked: Option<Timestamp>,
    /// When this was last written.
    #[serde(skip)]
    kept: Option<Timestamp>,
}

/// What a look has found so far.
#[derive(Default)]
struct Found {
    batch: Batch,
    states: BTreeMap<String, State>,
    wake: Option<Timestamp>,
    waits: bool,
    wants_scan: bool,
}

impl Found {
    fn wake_at(&mut self, time: Option<Timestamp>) {
        self.wake = [self.wake, time].into_iter().flatten().min();
    }
}

impl AbsenceSource {
    pub(super) async fn take(&mut self, late: Duration) -> Result<usize, StoreError> {
        self.all = Arc::clone(&self.changes.borrow_and_update());
        let all = Arc::clone(&self.all);
        let known = self.remembered().await?;
        let mut recorded = self.close_orphans(&known).await?;
        if all.is_empty() {
            (self.states, self.wake, self.waits) = (Some(BTreeMap::new()), None, false);
            return Ok(recorded);
        }
        let now = self.clock.now();
        let mut journal = self.journal.clone();
        // The watches first, then the journal: what a scan found is recorded before its end is told.
        let looked = journal.certain.clone();
        let watches = self.watches(&all).await?;
        for (id, status) in &watches {
            journal.note(id, status, now);
        }
        let events = self.news(&all, &mut journal).await?;
        let running = if all.iter().any(|each| matches!(each.what, What::Running(_))) {
            self.running().await?
        } else {
            Vec::new()
        };
        let mut found = Found::default();
        for each in all.iter() {
            // Two triggers of a rule that say the same are one.
            if found.states.contains_key(&each.id) {
                continue;
            }
            let before = known.get(&each.id);
            let state = match (&each.what, before.cloned()) {
                (What::File(file), before) => {
                    let mut progress = match before {
                        Some(State::Expected(progress)) => progress,
                        _ => Progress::begin(&file.expected, now),
                    };
                    let look = Look {
                        certain: journal.certain.get(&file.watch).copied(),
                        up_since: self.up_since,
                        late,
                    };
                    let came = came(file, &events, &progress, looked.get(&file.watch).copied());
                    self.file(each, file, &mut progress, came, &look, &mut found)
                        .await?;
                    let due = file.expected.wake(&progress);
                    self.await_scan(
                        file,
                        &progress,
                        watches.get(&file.watch),
                        due,
                        now,
                        &look,
                        &mut found,
                    );
                    State::Expected(progress)
                }
                (What::Job(job), before) => {
                    let mut progress = match before {
                        Some(State::Expected(progress)) => progress,
                        _ => Progress::begin(&job.expected, now),
                    };
                    let look = Look {
                        certain: Some(now),
                        up_since: self.up_since,
                        late,
                    };
                    let (steps, primes) = if progress.primed {
                        let came = ended(&job.job, &events, &progress);
                        (job.expected.step(&mut progress, came, &look), false)
                    } else {
                        let before = self.ends_before(&job.job, &job.expected, &mut progress).await?;
                        (job.expected.prime(&mut progress, before, &look), true)
                    };
                    tracing::debug!(
                        id = each.id,
                        primes,
                        steps = steps.len(),
                        "looked at a job's deadline"
                    );
                    self.tell(each, steps, &[], &mut found).await?;
                    found.wake_at(job.expected.wake(&progress));
                    State::Expected(progress)
                }
                (What::Backlog(backlog, _), before) => {
                    let mut standing = match before {
                        Some(State::Backlog(standing)) => standing,
                        _ => super::Standing::default(),
                    };
                    let status = watches.get(&backlog.watch);
                    self.backlog(each, backlog, &mut standing, status, now, &mut found)
                        .await?;
                    State::Backlog(standing)
                }
                (What::Running(limit), before) => {
                    let mut open = match before {
                        Some(State::Running(open)) => open,
                        _ => super::Overrunning::new(),
                    };
                    let steps = limit.step(&mut open, &running, now);
                    found
                        .batch
                        .events
                        .extend(steps.iter().map(|step| tell::running(each, step, now)));
                    found.wake_at(limit.wake(&open, &running));
                    State::Running(open)
                }
            };
            if before != Some(&state)
                && let Ok(value) = serde_json::to_value(&state)
            {
                found.batch.marks.push((format!("{MARKS}{}", each.id), value));
            }
            found.states.insert(each.id.clone(), state);
        }
        if found.wants_scan
            && journal.asks(now)
            && let Some(files) = &self.files
        {
            files.rescan();
        }
        let moved = journal.after != self.journal.after;
        let old = journal
            .kept
            .is_none_or(|kept| now.duration_since(kept) >= signed(KEEP) || kept > now);
        if (moved || old || !found.batch.marks.is_empty())
            && let Ok(value) = serde_json::to_value(&journal)
        {
            journal.kept = Some(now);
            found.batch.marks.push((JOURNAL.to_owned(), value));
        }
        let batch = std::mem::take(&mut found.batch);
        if !batch.events.is_empty() || !batch.marks.is_empty() {
            let made = self.store.record(batch).await?;
            recorded += made.iter().filter(|recorded| recorded.fresh).count();
        }
        for id in known.keys().filter(|id| !found.states.contains_key(*id)) {
            self.store.delete_marks(&format!("{MARKS}{id}")).await?;
        }
        self.journal = journal;
        self.states = Some(found.states);
        (self.wake, self.waits) = (found.wake, found.waits);
        Ok(recorded)
    }

    /// All jobs that run now.
    async fn running(&self) -> Result<Vec<Running>, StoreError> {
        let all = crate::source::running::list(&self.store).await?;
        let run = |job: crate::source::running::Running| Running {
            id: job.key,
            name: job.name,
            started: job.started,
        };
        Ok(all.into_iter().map(run).collect())
    }

    /// How each expectation stood.
    async fn remembered(&mut self) -> Result<BTreeMap<String, State>, StoreError> {
        if let Some(states) = &self.states {
            return Ok(states.clone());
        }
        let marks = self.store.marks(JOURNAL).await?;
        let journal = marks.into_iter().find(|(key, _)| key == JOURNAL);
        self.journal = match journal.and_then(|(_, value)| serde_json::from_value(value).ok()) {
            Some(journal) => journal,
            None => Journal {
                after: self.newest().await?,
                ..Journal::default()
            },
        };
        let marks = self.store.marks(MARKS).await?;
        let state = |(key, value): (String, Value)| {
            let id = key.strip_prefix(MARKS)?.to_owned();
            Some((id, serde_json::from_value(value).ok()?))
        };
        Ok(marks.into_iter().filter_map(state).collect())
    }

    /// Closes the cases of expectations that are no more, or that lost their memory: their events are of a
    /// source no rule knows, so nobody is told that something came.
    async fn close_orphans(&mut self, known: &BTreeMap<String, State>) -> Result<usize, StoreError> {
        let current = |id: &String| self.all.iter().any(|each| each.id == *id);
        if self.states.is_some() && known.keys().all(current) {
            return Ok(0);
        }
        let mut batch = Batch::default();
        for case in self.store.open_cases().await? {
            let Some((kind, rest)) = case.key.split_once(':') else {
                continue;
            };
            let Some(kind) = Kind::parse(kind).filter(|kind| tell::KINDS.contains(kind)) else {
                continue;
            };
            let mine = |each: &Expectation| {
                rest.strip_prefix(&each.id)
                    .is_some_and(|rest| rest.starts_with(':'))
            };
            if !self.all.iter().any(mine) {
                batch.events.push(tell::forgotten(kind, &case, self.clock.now()));
            }
        }
        if batch.events.is_empty() {
            return Ok(0);
        }
        let recorded = self.store.record(batch).await?;
        Ok(recorded.iter().filter(|recorded| recorded.fresh).count())
    }

    /// The state of the watches that are needed.
    async fn watches(&self, all: &[Expectation]) -> Result<BTreeMap<String, WatchStatus>, StoreError> {
        let mut watches = BTreeMap::new();
        if all.iter().all(|each| each.watch().is_none()) {
            return Ok(watches);
        }
        let marks: BTreeMap<String, Value> = self.store.marks(&status::mark("")).await?.into_iter().collect();
        for id in all.iter().filter_map(Expectation::watch) {
            let status = marks.get(&status::mark(id)).cloned();
            if let Some(status) = status.and_then(|value| serde_json::from_value(value).ok()) {
                watches.insert(id.to_owned(), status);
            }
        }
        Ok(watches)
    }

    async fn newest(&self) -> Result<i64, StoreError> {
        let filter = EventFilter {
            limit: 1,
            ..EventFilter::default()
        };
        let newest = self.store.events(filter).await?;
        Ok(newest.first().map_or(0, |event| event.id.0))
    }

    /// What was recorded since the last look and may be evidence.
    async fn news(&self, all: &[Expectation], journal: &mut Journal) -> Result<Vec<Event>, StoreError> {
        let files = all.iter().any(|each| matches!(each.what, What::File(_)));
        let jobs = all.iter().any(|each| matches!(each.what, What::Job(_)));
        let mut news = Vec::new();
        if !files && !jobs {
            journal.after = self.newest().await?;
            return Ok(news);
        }
        loop {
            let filter = EventFilter {
                after: Some(EventId(journal.after)),
                limit: PAGE,
                ..EventFilter::default()
            };
            let page = self.store.events(filter).await?;
            let all_read = page.len() < PAGE;
            journal.after = page.last().map_or(journal.after, |event| event.id.0);
            let matters = |event: &Event| {
                let happening = &event.happening;
                match happening.kind {
                    Kind::FileArrives => all.iter().any(|each| match &each.what {
                        What::File(file) => counts(file, event).is_some(),
                        _ => false,
                    }),
                    Kind::JobSucceeds | Kind::JobFails => all
                        .iter()
                        .any(|each| matches!(&each.what, What::Job(job) if job.job == happening.subject)),
                    _ => false,
                }
            };
            news.extend(page.into_iter().filter(matters));
            if all_read {
                return Ok(news);
            }
        }
    }

    /// Judges an expectation of files.
    async fn file(
        &self,
        each: &Expectation,
        file: &FileExpected,
        progress: &mut Progress,
        came: Vec<Arrival>,
        look: &Look,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        if progress.primed {
            let steps = file.expected.step(progress, came, look);
            return self.tell(each, steps, &[], found).await;
        }
        // What lay there before is known when a scan has seen it; until then the journal waits.
        if look.certain.is_none_or(|certain| certain < progress.since) {
            return Ok(());
        }
        let before = self.files_before(file, progress).await?;
        let arrivals = before.iter().map(|(arrival, _)| arrival.clone()).collect();
        let steps = file.expected.prime(progress, arrivals, look);
        self.tell(each, steps, &before, found).await
    }

    /// What came before an expectation was known, as far as it can still count: what lies there, by its time of
    /// change, and what the journal knows of it.
    async fn files_before(
        &self,
        file: &FileExpected,
        progress: &mut Progress,
    ) -> Result<Vec<(Arrival, FileRef)>, StoreError> {
        let back = file.expected.reaches_back(progress);
        let lying: Vec<Lying> = self.store.lying(&file.watch).await?;
        progress.after = self.newest().await?;
        let filter = EventFilter {
            kind: Some(Kind::FileArrives),
            source: Some(file.watch.clone()),
            before: Some(EventId(progress.after + 1)),
            limit: BEFORE,
            ..EventFilter::default()
        };
        let mut before = BTreeMap::new();
        for seen in lying {
            let file_ref = FileRef {
                root: file.root.clone(),
                relative: seen.relative,
                size: seen.size,
                mtime_ns: seen.mtime_ns,
            };
            if file.wanted.wants(&file_ref.relative, file_ref.size) {
                let arrival = Arrival::of_file(&file_ref, seen.since, Some(Timestamp::MIN), None);
                before.insert(file_ref.relative.clone(), (arrival, file_ref));
            }
        }
        for event in self.store.events(filter).await? {
            if event.happening.time <= back {
                break;
            }
            let Some(came) = counts(file, &event) else {
                continue;
            };
            let mut arrival = Arrival::of_file(came, event.happening.time, Some(back), Some(event.id));
            if arrival.at <= back {
                // Moved in with a time of long ago: what we know is when we met it.
                arrival.at = event.happening.time;
            }
            before.insert(came.relative.clone(), (arrival, came.clone()));
        }
        Ok(before.into_values().collect())
    }

    /// Ends of a job that came before somebody expected them.
    async fn ends_before(
        &self,
        job: &str,
        expected: &Expected,
        progress: &mut Progress,
    ) -> Result<Vec<Arrival>, StoreError> {
        let back = expected.reaches_back(progress);
        progress.after = self.newest().await?;
        let mut before = Vec::new();
        for kind in [Kind::JobSucceeds, Kind::JobFails] {
            let filter = EventFilter {
                kind: Some(kind),
                subject: Some(job.to_owned()),
                before: Some(EventId(progress.after + 1)),
                limit: 100,
                ..EventFilter::default()
            };
            let events = self.store.events(filter).await?;
            let ends = events
                .iter()
                .filter(|event| reports(job, event) && event.happening.time > back);
            before.extend(ends.map(|event| Arrival::of_job(event.happening.time, event.id)));
        }
        Ok(before)
    }

    /// Makes the events of steps.
    async fn tell(
        &self,
        each: &Expectation,
        steps: Vec<Step>,
        before: &[(Arrival, FileRef)],
        found: &mut Found,
    ) -> Result<(), StoreError> {
        for step in steps {
            let mut by = None;
            let mut file = None;
            if let Step::Closes { arrival, .. } = &step {
                if let Some(event) = arrival.event {
                    by = self.store.event(EventId(event)).await?.map(|detail| detail.event);
                }
                let lay_there = before.iter().find(|(known, _)| known == arrival);
                file = by.as_ref().and_then(|by| by.happening.file.clone());
                file = file.or_else(|| lay_there.map(|(_, file)| file.clone()));
            }
            let event = tell::expected(each, &step, by.as_ref(), file, self.clock.now());
            tracing::info!(case = event.key, "{}", event.subject);
            found.batch.events.push(event);
        }
        Ok(())
    }

    /// Asks for a scan where one is needed to decide, and says when to look again.
    #[allow(
        clippy::too_many_arguments,
        reason = "the pieces of one decision, called once"
    )]
    fn await_scan(
        &self,
        file: &FileExpected,
        progress: &Progress,
        status: Option<&WatchStatus>,
        due: Option<Timestamp>,
        now: Timestamp,
        look: &Look,
        found: &mut Found,
    ) {
        let needed = if progress.primed {
            due.filter(|due| *due <= now)
        } else {
            Some(progress.since)
        };
        let Some(needed) = needed.filter(|needed| look.certain.is_none_or(|certain| certain < *needed))
        else {
            found.wake_at(due.filter(|due| *due > now));
            return;
        };
        let away = status.is_some_and(|status| !can_look(status));
        if away {
            tracing::debug!(root = %file.root.display(), "the folder is away; nothing is decided about it");
            return;
        }
        found.waits = true;
        let met = status
            .and_then(|status| status.scan_began)
            .is_some_and(|began| began >= needed);
        found.wants_scan |= !met;
    }

    /// Judges a backlog.
    async fn backlog(
        &self,
        each: &Expectation,
        backlog: &Backlog,
        standing: &mut super::Standing,
        status: Option<&WatchStatus>,
        now: Timestamp,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let Some(began) = status
            .filter(|status| can_look(status))
            .and_then(|status| status.scan_began)
        else {
            return Ok(());
        };
        let pile: Pile = backlog.pile(&self.store.lying(&backlog.watch).await?);
        let due = backlog.wake(&pile);
        let open = standing.open;
        let Some(does) = backlog.decide(open.is_some(), &pile, now) else {
            standing.scan = Some(began);
            found.wake_at(due.filter(|_| open.is_none()));
            return Ok(());
        };
        // What has gone meanwhile is seen by a scan; and what is too old now must still be there.
        let since = if open.is_none() {
            due.filter(|due| *due <= now)
        } else {
            None
        };
        let fresh = standing.scan.is_none_or(|scan| began > scan) && since.is_none_or(|since| began >= since);
        if open.is_none() && !fresh {
            found.waits = true;
            found.wants_scan = true;
            return Ok(());
        }
        standing.scan = Some(began);
        let number = open.unwrap_or(began);
        standing.open = if open.is_some() { None } else { Some(began) };
        let event: NewEvent = tell::backlog(each, does, &pile, number, now);
        tracing::info!(case = event.key, "{}", event.subject);
        found.batch.events.push(event);
        Ok(())
    }
}

impl Journal {
    /// What a scan says of a watch.
    fn note(&mut self, id: &str, status: &WatchStatus, now: Timestamp) {
        let Some(began) = status.scan_began.filter(|_| can_look(status)) else {
            return;
        };
        if self.certain.get(id).is_some_and(|certain| *certain >= began) {
            return;
        }
        if status.candidates == 0 {
            self.unsettled.remove(id);
            self.certain.insert(id.to_owned(), began);
            return;
        }
        // In a folder where something is always being written, each scan gets its time.
        let (first, seen) = *self.unsettled.entry(id.to_owned()).or_insert((began, now));
        if now.duration_since(seen) >= signed(PATIENCE) {
            self.unsettled.remove(id);
            self.certain.insert(id.to_owned(), first);
        }
    }

    fn asks(&mut self, now: Timestamp) -> bool {
        let due = self
            .asked
            .is_none_or(|asked| now.duration_since(asked) >= signed(ASK) || asked > now);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

/// Whether the folder of a watch can be looked at.
fn can_look(status: &WatchStatus) -> bool {
    status.mode != Mode::Away && status.away_since.is_none()
}

/// The file of an event, if the expectation is about it.
fn counts<'a>(file: &FileExpected, event: &'a Event) -> Option<&'a FileRef> {
    let happening = &event.happening;
    let came = happening.file.as_ref()?;
    let is = happening.kind == Kind::FileArrives && happening.source == file.watch;
    (is && file.wanted.wants(&came.relative, came.size)).then_some(came)
}

fn came(
    file: &FileExpected,
    events: &[Event],
    progress: &Progress,
    looked: Option<Timestamp>,
) -> Vec<Arrival> {
    let new = events.iter().filter(|event| event.id.0 > progress.after);
    new.filter_map(|event| {
        let came = counts(file, event)?;
        Some(Arrival::of_file(
            came,
            event.happening.time,
            looked,
            Some(event.id),
        ))
    })
    .collect()
}

/// Whether an event is the end of that job.
fn reports(job: &str, event: &Event) -> bool {
    let skipped = event
        .happening
        .facts
        .get("job")
        .and_then(|job| job.get("skipped"));
    let ends = matches!(event.happening.kind, Kind::JobSucceeds | Kind::JobFails);
    ends && event.happening.subject == job && skipped != Some(&Value::Bool(true))
}

fn ended(job: &str, events: &[Event], progress: &Progress) -> Vec<Arrival> {
    let new = events
        .iter()
        .filter(|event| event.id.0 > progress.after && reports(job, event));
    new.map(|event| Arrival::of_job(event.happening.time, event.id))
        .collect()
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}
