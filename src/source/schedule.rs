//! Schedules: when a calendar time is due.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
    Cron(Box<Cron>),
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
            (Some(text), None) => (Pattern::Cron(Box::new(cron(text)?)), text.trim().to_owned()),
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
            Pattern::Cron(cron) => self.next_cron(cron, after),
            Pattern::Every(every) => self.next_every(*every, after),
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

    fn next_cron(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        // Slots are whole seconds.
        let mut from = Timestamp::from_second(after.as_second()).ok()?;
        // The search gives up at a gap of more than two hours (Apia lost the whole of 2011-12-30); we
        // go on behind it.
        for _ in 0..4 {
            match cron.find_next_occurrence(&from.to_zoned(self.zone.clone()), false) {
                Ok(found) => return Some(found.timestamp()),
                Err(CronError::TimeSearchLimitExceeded) => {
                    from = self.zone.following(from).next()?.timestamp();
                    if from > after && cron.is_time_matching(&from.to_zoned(self.zone.clone())).ok()? {
                        return Some(from);
                    }
                }
                Err(_) => return None,
            }
        }
        None
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

    /// A wall time as an instant: one that does not exist is the end of the gap, one that comes twice
    /// is the first.
    fn resolve(&self, wall: DateTime) -> Option<Timestamp> {
        use jiff::tz::AmbiguousOffset::{Fold, Gap, Unambiguous};
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        match ambiguous.offset() {
            Unambiguous { .. } | Fold { .. } => ambiguous.earlier().ok(),
            // Read with the offset before the gap it lies behind the change, with the one after it
            // before the change; the change itself is the only one between.
            Gap { .. } => {
                let before = ambiguous.earlier().ok()?;
                Some(self.zone.following(before).next()?.timestamp())
            }
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
    // By the wall clock alone, over the 28 years in which every date meets every weekday.
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
