//! Schedules: when a calendar time is due.
//!
//! A [`Schedule`] is pure: it names *slots*, the instants at which it is due. [`Schedule::due`] takes
//! what is remembered and the time, and returns the slots to act on and what to remember next. The
//! source around it, [`ScheduleSource`], has one loop. It waits for the earliest slot of all
//! schedules, looks at the wall clock again at least every 30 s whatever happens, records what is due
//! and the memory in one transaction, and is woken when the rules change. When it stops, nothing is
//! in hand: a slot not recorded is due at the next start.
//!
//! ```text
//!   remembered: `until`, up to where slots were looked at
//!   the clock went on:   slots in (until, now] are due; the policy decides about the late ones
//!   the clock went back: `until` follows it; a slot that comes again has its key in the journal
//!   first look:          `until` is now; nothing before it was ever due
//! ```
//!
//! | calendar | spring gap | doubled hour |
//! |---|---|---|
//! | cron with named hours, `every` of more than an hour | at the gap's end | the first |
//! | cron in every hour, `every` that divides an hour | not there | both |
//! | `every` that divides no day (`7h`) | real time since 1970 | real time since 1970 |

use crate::clock::Clock;
use crate::event::{Kind, NewEvent};
use crate::pulse::Pulse;
use crate::store::{Batch, Store, StoreError};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What becomes of slots that passed while nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One event stands for all of them.
    #[default]
    Once,
    /// An event each, the newest [`CAP`] at most.
    All,
    /// None.
    Skip,
}

/// A slot taken this soon is on time: a restart over it, or a loop that was busy, makes it no missed one.
pub const GRACE: Duration = Duration::from_secs(60);

/// Most slots one look makes up for.
pub const CAP: usize = 1000;

/// A schedule as a rule says it.
#[derive(Clone, Debug)]
pub struct ScheduleSpec<'a> {
    /// Five fields, or six with seconds first. Either this or `every`.
    pub cron: Option<&'a str>,
    /// Time between two slots, whole seconds.
    pub every: Option<Duration>,
    /// Zone of the calendar.
    pub timezone: TimeZone,
    /// What becomes of missed slots.
    pub missed: Missed,
}

/// A calendar time whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The time.
    pub due: Timestamp,
    /// How long ago that is.
    pub late: SignedDuration,
    /// Nobody looked when it came, or it stands for others that nobody saw.
    pub missed: bool,
}

/// A schedule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// When a schedule is due: a checked calendar.
#[derive(Clone, Debug)]
pub struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
    missed: Missed,
    /// As people wrote it; tells a changed schedule from the one before.
    text: String,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// And whether it runs in every hour of the day.
    Cron(Box<Cron>, bool),
    Every(Every),
}

/// How an interval is laid on the calendar. Never from the time of a start: a restart shifts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Every {
    /// Divides an hour: that much real time apart, counted from each local midnight.
    WithinHour(SignedDuration),
    /// Divides a day: by the wall clock, from midnight (`6h`: 00:00 06:00 12:00 18:00, also when the
    /// day has 23 or 25 hours).
    WithinDay(i64),
    /// Whole days: local midnight of each n-th day since 1970-01-01.
    Days(i64),
    /// Anything else: real time since 1970-01-01T00:00Z.
    Elapsed(SignedDuration),
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// 1970-01-01.
const EPOCH: Date = jiff::civil::date(1970, 1, 1);

impl Schedule {
    /// Checks a schedule. A pattern whose day never comes (31 February) is refused.
    pub fn compile(spec: &ScheduleSpec<'_>) -> Result<Schedule, ScheduleError> {
        let (pattern, text) = match (spec.cron, spec.every) {
            (Some(text), None) => {
                let cron = cron(text)?;
                let hourly = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
                (Pattern::Cron(Box::new(cron), hourly), text.trim().to_owned())
            }
            (None, Some(every)) => (
                Pattern::Every(interval(every)?),
                format!("every {}s", every.as_secs()),
            ),
            (Some(_), Some(_)) => {
                return Err(ScheduleError::new(
                    "a schedule has both `cron` and `every`",
                    "keep one of them; two schedules are two entries of `when`",
                ));
            }
            (None, None) => {
                return Err(ScheduleError::new(
                    "a schedule needs `cron` or `every`",
                    "for example `cron: \"0 2 * * *\"` or `every: 15m`",
                ));
            }
        };
        let zone = spec.timezone.iana_name().unwrap_or("local");
        Ok(Schedule {
            pattern,
            text: format!("{text}, {zone}"),
            zone: spec.timezone.clone(),
            missed: spec.missed,
        })
    }

    /// The first slot after `after`. `None` where the calendar ends (year 9999).
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.pattern {
            Pattern::Cron(cron, hourly) => self.next_cron(cron, *hourly, after),
            Pattern::Every(every) => self.next_every(*every, after),
        }
    }

    /// The slots to act on now, and what to remember for the next look.
    ///
    /// `until` is what the last look returned, `None` on the first. A slot later than `grace` is
    /// missed; one event that stands for several says so with the newest of them. A slot may come up
    /// again after the clock went back: it has the same key, which the journal takes once.
    pub fn due(&self, until: Option<Timestamp>, now: Timestamp, grace: Duration) -> (Vec<Slot>, Timestamp) {
        let Some(until) = until.filter(|until| *until < now) else {
            return (Vec::new(), now);
        };
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let mut slots: Vec<Slot> = self
            .newest(until, now)
            .into_iter()
            .map(|due| Slot {
                due,
                late: now.duration_since(due),
                missed: now.duration_since(due) > grace,
            })
            .collect();
        match self.missed {
            Missed::All => {}
            Missed::Skip => slots.retain(|slot| !slot.missed),
            Missed::Once if slots.iter().any(|slot| slot.missed) => {
                slots.drain(..slots.len() - 1);
                slots.iter_mut().for_each(|slot| slot.missed = true);
            }
            Missed::Once => {}
        }
        (slots, now)
    }

    /// The slots in (after, now], at most the newest [`CAP`], found without walking through years of
    /// seconds: from the end, in windows that double.
    fn newest(&self, after: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let mut window = SignedDuration::from_mins(1);
        loop {
            let from = now.checked_sub(window).unwrap_or(Timestamp::MIN).max(after);
            let slots: Vec<Timestamp> = std::iter::successors(self.next(from), |slot| self.next(*slot))
                .take_while(|slot| *slot <= now)
                .collect();
            if slots.len() >= CAP || from == after {
                let spare = slots.len().saturating_sub(CAP);
                return slots.into_iter().skip(spare).collect();
            }
            window = window.saturating_mul(2);
        }
    }

    /// What becomes of missed slots.
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// The schedule in a few words: `0 2 * * *, Europe/Berlin`.
    pub fn describe(&self) -> &str {
        &self.text
    }

    /// Only the wall clock is asked of the cron library; the zone is ours, because a time in the gap
    /// of spring shall not be lost whatever else the pattern says, and croner loses `0 2,14 * * *`.
    fn next_cron(&self, cron: &Cron, hourly: bool, after: Timestamp) -> Option<Timestamp> {
        // Slots are whole seconds.
        let after = Timestamp::from_second(after.as_second()).ok()?;
        let mut wall = self.zone.to_datetime(after);
        if !hourly {
            // Named hours: each once a day, the first of two, the gap's end for one that is left out.
            loop {
                wall = cron.find_next_occurrence(&wall, false).ok()?;
                let slot = self.resolve(wall)?;
                if slot > after {
                    return Some(slot);
                }
            }
        }
        // Every hour: all instants whose wall time fits, so an hour that comes twice counts twice.
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next().map(|next| next.timestamp());
            let found = cron.find_next_occurrence(&wall, inclusive).ok()?;
            let slot = offset.to_timestamp(found).ok()?;
            match change {
                Some(change) if slot >= change => {
                    (from, inclusive) = (change, true);
                    wall = self.zone.to_datetime(change);
                }
                _ => return Some(slot),
            }
        }
    }

    fn next_every(&self, every: Every, after: Timestamp) -> Option<Timestamp> {
        let today = after.to_zoned(self.zone.clone()).date();
        match every {
            Every::Elapsed(step) => {
                let step = step.as_secs();
                let n = after.as_second().div_euclid(step).checked_add(1)?;
                Timestamp::from_second(n.checked_mul(step)?).ok()
            }
            Every::WithinHour(step) => {
                // `after` may lie in a day whose midnight comes later by the wall (a gap over
                // midnight), so the day before is looked at too.
                let midnights = [
                    self.midnight(today.yesterday().ok()?)?,
                    self.midnight(today)?,
                    self.midnight(today.tomorrow().ok()?)?,
                ];
                for pair in midnights.windows(2) {
                    let &[start, end] = pair else { continue };
                    if after >= end {
                        continue;
                    }
                    let passed = after.as_second().saturating_sub(start.as_second());
                    let n = if after < start {
                        0
                    } else {
                        passed / step.as_secs() + 1
                    };
                    let slot = start
                        .checked_add(step.checked_mul(i32::try_from(n).ok()?)?)
                        .ok()?;
                    return Some(slot.min(end));
                }
                None
            }
            Every::WithinDay(step) => {
                let mut date = today.yesterday().ok()?;
                loop {
                    for n in 0..(DAY as i64 / step) {
                        let wall = date.at(0, 0, 0, 0).checked_add((n * step).seconds()).ok()?;
                        let slot = self.resolve(wall)?;
                        if slot > after {
                            return Some(slot);
                        }
                    }
                    date = date.tomorrow().ok()?;
                }
            }
            Every::Days(step) => {
                let number = i64::from(EPOCH.until(today).ok()?.get_days());
                let mut date = today.checked_sub(number.rem_euclid(step).days()).ok()?;
                loop {
                    let slot = self.midnight(date)?;
                    if slot > after {
                        return Some(slot);
                    }
                    date = date.checked_add(step.days()).ok()?;
                }
            }
        }
    }

    fn midnight(&self, date: Date) -> Option<Timestamp> {
        self.resolve(date.at(0, 0, 0, 0))
    }

    fn resolve(&self, wall: DateTime) -> Option<Timestamp> {
        instant(&self.zone, wall)
    }
}

/// A wall time as an instant: one that does not exist is the end of the gap, one that comes twice
/// is the first.
pub fn instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    use jiff::tz::AmbiguousOffset::{Fold, Gap, Unambiguous};
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        Unambiguous { .. } | Fold { .. } => ambiguous.earlier().ok(),
        // Read with the offset before the gap it lies behind the change, with the one after it
        // before the change; the change itself is the only one between.
        Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            Some(zone.following(before).next()?.timestamp())
        }
    }
}

impl ScheduleError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> ScheduleError {
        ScheduleError {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

fn cron(text: &str) -> Result<Cron, ScheduleError> {
    const FIELDS: &str = "minute hour day month weekday, as in \"0 2 * * mon-fri\"; a sixth field before them \
                          gives seconds";
    if text.len() > 200 {
        return Err(ScheduleError::new(
            "the cron pattern is longer than 200 characters",
            FIELDS,
        ));
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(text).map_err(|error| {
        ScheduleError::new(format!("the cron pattern \"{text}\" is not one: {error}"), FIELDS)
    })?;
    // The search ends in the year 5000; a tenth of a second for a day that never comes.
    if cron.find_next_occurrence(&EPOCH.at(0, 0, 0, 0), true).is_err() {
        return Err(ScheduleError::new(
            format!("the cron pattern \"{text}\" names a day that never comes"),
            "look at the day and the month: the 31st is not in every month, the 30th not in February",
        ));
    }
    Ok(cron)
}

fn interval(every: Duration) -> Result<Every, ScheduleError> {
    let seconds = every.as_secs();
    if seconds == 0 || every.subsec_nanos() != 0 {
        return Err(ScheduleError::new(
            "`every` is not a number of whole seconds",
            "one second is the shortest: `every: 1s`",
        ));
    }
    if seconds > 366 * DAY {
        return Err(ScheduleError::new(
            "`every` is longer than a year",
            "use `cron` with a day and a month",
        ));
    }
    let signed = seconds as i64;
    Ok(if HOUR.is_multiple_of(seconds) {
        Every::WithinHour(SignedDuration::from_secs(signed))
    } else if DAY.is_multiple_of(seconds) && seconds < DAY {
        Every::WithinDay(signed)
    } else if seconds.is_multiple_of(DAY) {
        Every::Days(signed / DAY as i64)
    } else {
        Every::Elapsed(SignedDuration::from_secs(signed))
    })
}

/// How late a slot may be that `run --once` still counts as on time: it looks only now and then.
const LOOK_GRACE: Duration = Duration::from_secs(3600);
/// Longest wait between two looks at the wall clock, which may step either way.
const LOOK: Duration = Duration::from_secs(30);
/// Marks of schedules begin with this.
const MARKS: &str = "schedule:";

/// Schedules by the names of their rules.
type Named = Arc<Vec<(String, Schedule)>>;

/// All schedules of the rules: what is due becomes events in the journal.
#[derive(Debug)]
pub struct ScheduleSource {
    schedules: Named,
    changes: watch::Receiver<Named>,
    /// Up to where each was looked at, by its mark; `None` before the marks were read.
    until: Option<BTreeMap<String, Timestamp>>,
    store: Store,
    clock: Clock,
    pulse: Pulse,
}

/// Hands a running [`ScheduleSource`] other schedules.
#[derive(Clone, Debug)]
pub struct Handle(Arc<watch::Sender<Named>>);

impl Handle {
    /// From now on these, by the names of their rules. One that stays goes on where it was; one that
    /// is new, or says something else than before, begins now.
    pub fn replace(&self, schedules: Vec<(String, Schedule)>) {
        self.0.send_replace(Arc::new(schedules));
    }
}

impl ScheduleSource {
    /// The schedules, by the names of their rules; a rule may have several.
    pub fn new(schedules: Vec<(String, Schedule)>, store: Store, clock: Clock) -> (ScheduleSource, Handle) {
        let schedules = Arc::new(schedules);
        let (sender, changes) = watch::channel(Arc::clone(&schedules));
        let source = ScheduleSource {
            schedules,
            changes,
            until: None,
            store,
            clock,
            pulse: Pulse::new("schedules"),
        };
        (source, Handle(Arc::new(sender)))
    }

    /// Ticks whenever it comes round.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Records what is due until it is stopped. A store that cannot be written is tried again; the
    /// slots wait.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.pulse.tick();
            if let Err(error) = self.take(GRACE).await {
                tracing::error!(%error, "cannot record what is due; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(5)) => continue,
                }
            }
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(&self.clock, wake) => {}
                () = tokio::time::sleep(LOOK) => {}
                // When the handle is gone the schedules stay as they are.
                Ok(()) = self.changes.changed() => {}
            }
        }
    }

    /// Records what is due now, once: for `run --once`. The newest slot counts as on time up to an
    /// hour, since nobody could have looked at its very minute. Returns the number of new events.
    pub async fn look(&mut self) -> Result<usize, StoreError> {
        self.take(LOOK_GRACE).await
    }

    /// Records what is due at this instant, as the daemon does. Returns the number of new events.
    pub async fn tick(&mut self) -> Result<usize, StoreError> {
        self.take(GRACE).await
    }

    /// When the next slot comes.
    pub fn wake(&self) -> Option<Timestamp> {
        let until = self.until.as_ref()?;
        self.schedules
            .iter()
            .filter_map(|(rule, schedule)| schedule.next(*until.get(&mark(rule, schedule))?))
            .min()
    }

    async fn take(&mut self, grace: Duration) -> Result<usize, StoreError> {
        self.schedules = Arc::clone(&self.changes.borrow_and_update());
        let known = match &self.until {
            Some(known) => known.clone(),
            None => remembered(self.store.marks(MARKS).await?),
        };
        let now = self.clock.now();
        let mut batch = Batch::default();
        let mut until = BTreeMap::new();
        for (rule, schedule) in self.schedules.iter() {
            let mark = mark(rule, schedule);
            let before = known.get(&mark).copied();
            let (slots, next) = schedule.due(before, now, grace);
            // A step forward without a slot need not be kept: it would find no slot again.
            if before.is_none_or(|before| next < before) || schedule.has_slot(before, now) {
                batch.marks.push((mark.clone(), Value::String(next.to_string())));
            }
            batch
                .events
                .extend(slots.iter().map(|slot| schedule.event(rule, slot)));
            until.insert(mark, next);
        }
        let fresh = if batch.events.is_empty() && batch.marks.is_empty() {
            0
        } else {
            let recorded = self.store.record(batch).await?;
            recorded.iter().filter(|recorded| recorded.fresh).count()
        };
        // What nobody wants any more begins anew when it comes back.
        for mark in known.keys().filter(|mark| !until.contains_key(*mark)) {
            self.store.delete_marks(mark).await?;
        }
        self.until = Some(until);
        Ok(fresh)
    }
}

/// The mark of a schedule: another text is another schedule. No mark begins with another.
fn mark(rule: &str, schedule: &Schedule) -> String {
    format!("{MARKS}{rule}[{}]", schedule.text)
}

fn remembered(marks: Vec<(String, Value)>) -> BTreeMap<String, Timestamp> {
    marks
        .into_iter()
        .filter_map(|(mark, value)| Some((mark, value.as_str()?.parse().ok()?)))
        .collect()
}

async fn sleep_until(clock: &Clock, time: Option<Timestamp>) {
    match time {
        Some(time) => clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Schedule {
    fn has_slot(&self, after: Option<Timestamp>, now: Timestamp) -> bool {
        after
            .and_then(|after| self.next(after))
            .is_some_and(|slot| slot <= now)
    }

    fn event(&self, rule: &str, slot: &Slot) -> NewEvent {
        let due = slot.due.to_zoned(self.zone.clone());
        let schedule = json!({
            "due": due.strftime("%FT%T%:z").to_string(),
            "late": slot.late.as_secs(),
            "missed": slot.missed,
        });
        NewEvent {
            key: format!("schedule:{rule}:{}", slot.due),
            kind: Kind::Schedule,
            source: rule.to_owned(),
            subject: rule.to_owned(),
            time: slot.due,
            facts: Map::from_iter([("schedule".to_owned(), schedule)]),
            file: None,
            origin: None,
            case: None,
        }
    }
}

#[cfg(test)]
mod tests;
