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

use croner::Cron;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn schedule(cron: Option<&str>, every: Option<u64>, zone: &str, missed: Missed) -> Schedule {
        Schedule::compile(&ScheduleSpec {
            cron,
            every: every.map(Duration::from_secs),
            timezone: TimeZone::get(zone).unwrap(),
            missed,
        })
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The first `n` slots after `start`, as wall times with offset.
    fn slots(schedule: &Schedule, start: &str, n: usize) -> Vec<String> {
        std::iter::successors(schedule.next(at(start)), |slot| schedule.next(*slot))
            .take(n)
            .map(|slot| {
                slot.to_zoned(schedule.zone.clone())
                    .strftime("%m-%dT%H:%M%:z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn a_time_in_the_spring_gap_is_due_at_its_end() {
        let nightly = schedule(Some("30 2 * * *"), None, "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&nightly, "2026-03-28T00:00:00Z", 3),
            ["03-28T02:30+01:00", "03-29T03:00+02:00", "03-30T02:30+02:00"]
        );
        // Two named hours are no interval: neither is lost.
        let twice = schedule(Some("0 2,14 * * *"), None, "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&twice, "2026-03-28T22:00:00Z", 2),
            ["03-29T03:00+02:00", "03-29T14:00+02:00"]
        );
        // Half an hour on Lord Howe.
        let howe = schedule(Some("15 2 * * *"), None, "Australia/Lord_Howe", Missed::Once);
        assert_eq!(slots(&howe, "2026-10-03T00:00:00Z", 1), ["10-04T02:30+11:00"]);
    }

    #[test]
    fn a_doubled_time_is_due_once() {
        let nightly = schedule(Some("30 2 * * *"), None, "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&nightly, "2026-10-24T12:00:00Z", 2),
            ["10-25T02:30+02:00", "10-26T02:30+01:00"]
        );
        // Also asked from between the two.
        assert_eq!(slots(&nightly, "2026-10-25T00:45:00Z", 1), ["10-26T02:30+01:00"]);
    }

    #[test]
    fn an_hourly_pattern_keeps_its_pace_through_both_changes() {
        let hourly = schedule(Some("0 * * * *"), None, "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&hourly, "2026-03-28T23:30:00Z", 3),
            ["03-29T01:00+01:00", "03-29T03:00+02:00", "03-29T04:00+02:00"]
        );
        assert_eq!(
            slots(&hourly, "2026-10-24T23:30:00Z", 3),
            ["10-25T02:00+02:00", "10-25T02:00+01:00", "10-25T03:00+01:00"]
        );
    }

    #[test]
    fn a_day_that_was_left_out_altogether_shifts_its_slot_to_the_next_morning() {
        let daily = schedule(Some("0 9 * * *"), None, "Pacific/Apia", Missed::Once);
        assert_eq!(
            slots(&daily, "2011-12-29T12:00:00Z", 3),
            ["12-29T09:00-10:00", "12-31T00:00+14:00", "12-31T09:00+14:00"]
        );
    }

    #[test]
    fn intervals_stand_on_the_calendar_not_on_the_start() {
        let quarter = schedule(None, Some(900), "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&quarter, "2026-01-01T10:07:31Z", 2),
            ["01-01T11:15+01:00", "01-01T11:30+01:00"]
        );
        let six = schedule(None, Some(6 * 3600), "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&six, "2026-10-24T22:00:00Z", 4),
            [
                "10-25T06:00+01:00",
                "10-25T12:00+01:00",
                "10-25T18:00+01:00",
                "10-26T00:00+01:00"
            ]
        );
        let daily = schedule(None, Some(86_400), "Europe/Berlin", Missed::Once);
        assert_eq!(
            slots(&daily, "2026-10-24T10:00:00Z", 3),
            ["10-25T00:00+02:00", "10-26T00:00+01:00", "10-27T00:00+01:00"]
        );
        let kolkata = schedule(None, Some(3600), "Asia/Kolkata", Missed::Once);
        assert_eq!(slots(&kolkata, "2026-01-01T00:00:00Z", 1), ["01-01T06:00+05:30"]);
        let odd = schedule(None, Some(7 * 3600), "UTC", Missed::Once);
        let first = odd.next(at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(first.as_second() % (7 * 3600), 0);
    }

    #[test]
    fn a_pattern_that_never_comes_is_refused_with_a_hint() {
        for pattern in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 31 2 *"] {
            let error = Schedule::compile(&ScheduleSpec {
                cron: Some(pattern),
                every: None,
                timezone: TimeZone::UTC,
                missed: Missed::Once,
            })
            .unwrap_err();
            assert!(error.message.contains("never comes"), "{error}");
            assert!(error.hint.contains("February"));
        }
        for pattern in [
            "",
            "* * *",
            "61 * * * *",
            "a b c d e",
            "0 0 1 1 * 2031",
            "5/5 * * * *",
            "0 0 * * * * *",
        ] {
            let spec = ScheduleSpec {
                cron: Some(pattern),
                every: None,
                timezone: TimeZone::UTC,
                missed: Missed::Once,
            };
            assert!(Schedule::compile(&spec).is_err(), "{pattern}");
        }
        let leap = schedule(Some("0 0 29 2 *"), None, "UTC", Missed::Once);
        assert_eq!(
            leap.next(at("2026-01-01T00:00:00Z")),
            Some(at("2028-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn nothing_before_the_first_look_is_due() {
        let minutely = schedule(Some("* * * * *"), None, "UTC", Missed::All);
        let now = at("2026-01-01T10:00:30Z");
        assert_eq!(minutely.due(None, now, GRACE), (vec![], now));
    }

    #[test]
    fn the_policy_decides_about_slots_nobody_saw() {
        let (until, now) = (at("2026-01-01T10:00:30Z"), at("2026-01-01T15:00:00.2Z"));
        let due = |missed| {
            schedule(Some("0 * * * *"), None, "UTC", missed)
                .due(Some(until), now, GRACE)
                .0
        };
        let all = due(Missed::All);
        assert_eq!(all.len(), 5);
        assert_eq!(
            all.iter().map(|slot| slot.missed).collect::<Vec<_>>(),
            [true, true, true, true, false]
        );
        let once = due(Missed::Once);
        assert_eq!(
            (once.len(), once[0].due, once[0].missed),
            (1, at("2026-01-01T15:00:00Z"), true)
        );
        let skip = due(Missed::Skip);
        assert_eq!((skip.len(), skip[0].missed), (1, false));
        let later = schedule(Some("0 * * * *"), None, "UTC", Missed::Skip).due(
            Some(until),
            at("2026-01-01T15:10:00Z"),
            GRACE,
        );
        assert_eq!(later, (vec![], at("2026-01-01T15:10:00Z")));
    }

    #[test]
    fn a_year_of_missed_seconds_is_made_up_in_bounded_work() {
        let begun = std::time::Instant::now();
        let secondly = schedule(Some("* * * * * *"), None, "Europe/Berlin", Missed::All);
        let (slots, _) = secondly.due(
            Some(at("2025-01-01T00:00:00Z")),
            at("2026-01-01T00:00:00Z"),
            GRACE,
        );
        assert_eq!(slots.len(), CAP);
        assert_eq!(slots.last().unwrap().due, at("2026-01-01T00:00:00Z"));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    /// Slots by walking through every minute of real time; slow, and written another way.
    fn oracle(
        minute: i8,
        hours: &[i8],
        hourly: bool,
        zone: &TimeZone,
        from: Timestamp,
        to: Timestamp,
    ) -> BTreeSet<Timestamp> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut now = from;
        let mut before = from.to_zoned(zone.clone()).datetime();
        while now < to {
            now += SignedDuration::from_mins(1);
            let wall = now.to_zoned(zone.clone()).datetime();
            let fits = |wall: DateTime| wall.minute() == minute && (hourly || hours.contains(&wall.hour()));
            if fits(wall) && (hourly || seen.insert(wall)) {
                found.insert(now);
            }
            // Wall minutes that were jumped over.
            let mut skipped = before.checked_add(1.minute()).unwrap();
            while !hourly && skipped < wall {
                if fits(skipped) && seen.insert(skipped) {
                    found.insert(now);
                }
                skipped = skipped.checked_add(1.minute()).unwrap();
            }
            before = wall;
        }
        found
    }

    #[test]
    fn slots_are_those_of_a_slow_oracle_around_every_change_of_offset() {
        let zones = [
            "Europe/Berlin",
            "Europe/London",
            "America/New_York",
            "America/St_Johns",
            "Australia/Lord_Howe",
            "America/Santiago",
            "Africa/Casablanca",
            "Africa/Cairo",
            "Asia/Beirut",
            "Pacific/Chatham",
            "UTC",
        ];
        let patterns: [(i8, &[i8]); 6] = [
            (0, &[0]),
            (30, &[2]),
            (0, &[2, 14]),
            (15, &[1, 2, 3]),
            (59, &[23]),
            (30, &[]),
        ];
        for zone in zones {
            let zone = TimeZone::get(zone).unwrap();
            let start = at("2019-01-01T00:00:00Z");
            let changes: Vec<Timestamp> = zone
                .following(start)
                .map(|change| change.timestamp())
                .take_while(|change| *change < at("2041-01-01T00:00:00Z"))
                .step_by(3)
                .collect();
            for change in changes {
                let (from, to) = (
                    change - SignedDuration::from_hours(26),
                    change + SignedDuration::from_hours(26),
                );
                for (minute, hours) in patterns {
                    let text = match hours {
                        [] => format!("{minute} * * * *"),
                        hours => format!(
                            "{minute} {} * * *",
                            hours.iter().map(i8::to_string).collect::<Vec<_>>().join(",")
                        ),
                    };
                    let schedule = Schedule::compile(&ScheduleSpec {
                        cron: Some(&text),
                        every: None,
                        timezone: zone.clone(),
                        missed: Missed::All,
                    })
                    .unwrap();
                    let ours: BTreeSet<Timestamp> =
                        std::iter::successors(schedule.next(from), |slot| schedule.next(*slot))
                            .take_while(|slot| *slot <= to)
                            .collect();
                    let theirs = oracle(minute, hours, hours.is_empty(), &zone, from, to);
                    assert_eq!(ours, theirs, "{text} in {zone:?} around {change}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn next_is_later_and_nothing_lies_between(
            cron in prop::option::of((0..60_u8, 0..24_u8)), every in 1..200_000_u64,
            start in 1_500_000_000..2_200_000_000_i64, zone in 0..4_usize,
        ) {
            let zone = ["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC"][zone];
            let text = cron.map(|(minute, hour)| format!("{minute} {hour} * * *"));
            let schedule = schedule(text.as_deref(), text.is_none().then_some(every), zone, Missed::All);
            let start = Timestamp::from_second(start).unwrap();
            let next = schedule.next(start).unwrap();
            prop_assert!(next > start);
            // From any place between, the answer is the same.
            let middle = start + next.duration_since(start) / 2;
            prop_assert_eq!(schedule.next(middle), if middle < next { Some(next) } else { schedule.next(next) });
        }

        #[test]
        fn each_slot_is_taken_at_most_once_however_the_clock_steps(
            steps in prop::collection::vec((-4_000..9_000_i64, any::<bool>()), 1..60), policy in 0..3_usize,
        ) {
            let missed = [Missed::Once, Missed::All, Missed::Skip][policy];
            let schedule = schedule(Some("*/10 * * * *"), None, "Europe/Berlin", missed);
            let mut now = at("2026-10-24T22:00:00Z");
            let (mut until, mut stored) = (None, None);
            let mut journal = BTreeSet::new();
            let mut on_time = BTreeSet::new();
            for (step, restart) in steps {
                now += SignedDuration::from_secs(step);
                if restart {
                    until = stored;
                }
                let (slots, next) = schedule.due(until, now, GRACE);
                for slot in &slots {
                    prop_assert!(slot.due <= now && until.is_some_and(|until| slot.due > until));
                    if journal.insert(slot.due) && !slot.missed {
                        on_time.insert(slot.due);
                    }
                }
                until = Some(next);
                stored = until;
            }
            prop_assert!(on_time.is_subset(&journal));
        }
    }
}
