//! iCalendar files (RFC 5545), as far as whole days go. Pure, and bounded whatever the file says.
//!
//! What counts is a `VEVENT` that lasts whole days: `DTSTART` and `DTEND` (or `DURATION`) without a time, or
//! both at midnight. What lasts hours is left out: an hour's meeting makes no holiday. `RRULE` is understood
//! by day, week, month and year with the parts people use for holidays; one that is not understood is a
//! fault, never a day too few in silence. `STATUS:CANCELLED` takes an event out; `EXDATE`, `RDATE` and
//! `RECURRENCE-ID` change single days.

use jiff::ToSpan as _;
use jiff::civil::{Date, Weekday};
use std::collections::{BTreeMap, BTreeSet};

/// Biggest file, bytes.
pub const LARGEST: u64 = 2_000_000;
/// Most events that repeat.
const REPEATS: usize = 2_000;
/// Longest single event, days.
const LONGEST: i32 = 366;
/// Most days that are walked through, for all `COUNT`s together.
const WALK: u32 = 2_000_000;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// First and last day of what happens once.
    pub spans: Vec<(Date, Date)>,
    /// What happens again and again.
    pub repeats: Vec<Repeat>,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// An event that happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    first: Date,
    /// How many days each lasts.
    days: i32,
    every: Every,
    interval: i64,
    until: Option<Date>,
    months: Vec<i8>,
    month_days: Vec<i8>,
    /// Which of them in the month or year, 0 for each; and the day.
    week_days: Vec<(i8, Weekday)>,
    week_start: Weekday,
    not: BTreeSet<Date>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Every {
    Day,
    Week,
    Month,
    Year,
}

impl Repeat {
    /// Whether one of its days is this one.
    pub fn has(&self, day: Date) -> bool {
        if day < self.first {
            return false;
        }
        (0..self.days).any(|back| day.checked_sub(back.days()).is_ok_and(|day| self.begins(day)))
    }

    fn begins(&self, day: Date) -> bool {
        if day < self.first || self.until.is_some_and(|until| day > until) || self.not.contains(&day) {
            return false;
        }
        // The first day belongs to it whatever the rule says.
        day == self.first || self.falls(day)
    }

    fn falls(&self, day: Date) -> bool {
        let passed = match self.every {
            Every::Day => days_between(self.first, day),
            Every::Week => days_between(self.week(self.first), self.week(day)) / 7,
            Every::Month => {
                i64::from(day.year() - self.first.year()) * 12 + i64::from(day.month() - self.first.month())
            }
            Every::Year => i64::from(day.year() - self.first.year()),
        };
        if passed % self.interval != 0 || !self.months.is_empty() && !self.months.contains(&day.month()) {
            return false;
        }
        if !self.month_days.is_empty() {
            let from_end = day.day() - day.days_in_month() - 1;
            if !self.month_days.contains(&day.day()) && !self.month_days.contains(&from_end) {
                return false;
            }
        }
        if !self.week_days.is_empty() {
            let whole_year = self.every == Every::Year && self.months.is_empty();
            return self.week_days.iter().any(|(which, weekday)| {
                let (at, of) = if whole_year {
                    (day.day_of_year(), day.days_in_year())
                } else {
                    (i16::from(day.day()), i16::from(day.days_in_month()))
                };
                let from_start = (at - 1) / 7 + 1;
                let from_end = -((of - at) / 7 + 1);
                *weekday == day.weekday()
                    && (*which == 0 || i16::from(*which) == from_start || i16::from(*which) == from_end)
            });
        }
        if !self.month_days.is_empty() {
            return true;
        }
        // Nothing says which day: the one it began with.
        match self.every {
            Every::Day => true,
            Every::Week => day.weekday() == self.first.weekday(),
            Every::Month => day.day() == self.first.day(),
            Every::Year => {
                day.day() == self.first.day()
                    && (!self.months.is_empty() || day.month() == self.first.month())
            }
        }
    }

    /// The first day of its week.
    fn week(&self, day: Date) -> Date {
        let back = i64::from(day.weekday().since(self.week_start));
        day.checked_sub(back.days()).unwrap_or(day)
    }
}

fn days_between(from: Date, to: Date) -> i64 {
    i64::from(from.until(to).map(|span| span.get_days()).unwrap_or_default())
}

/// One line, unfolded.
struct Line<'a> {
    number: usize,
    name: String,
    parameters: &'a str,
    value: &'a str,
}

/// An event, as far as it was read.
#[derive(Default)]
struct Event {
    line: usize,
    uid: String,
    start: Option<(Date, bool)>,
    end: Option<(Date, bool)>,
    duration: Option<Option<i32>>,
    rule: Option<(usize, String)>,
    also: Vec<Date>,
    not: BTreeSet<Date>,
    instead_of: Option<Date>,
    cancelled: bool,
}

/// Reads a file.
pub fn read(text: &str) -> Result<Read, Fault> {
    let unfolded = unfold(text);
    let mut lines = unfolded
        .iter()
        .filter_map(|(number, line)| parse(*number, line))
        .peekable();
    match lines.peek() {
        Some(line) if line.name == "BEGIN" && line.value.eq_ignore_ascii_case("VCALENDAR") => {}
        _ => {
            return Err(fault(
                1,
                "this is no iCalendar file: it does not begin with BEGIN:VCALENDAR",
            ));
        }
    }
    let mut events = Vec::new();
    let mut event: Option<Event> = None;
    // Alarms and the like inside an event.
    let mut depth = 0_usize;
    for line in lines {
        let begins = line.name == "BEGIN";
        let ends = line.name == "END";
        if event.is_none() {
            if begins && line.value.eq_ignore_ascii_case("VEVENT") {
                event = Some(Event {
                    line: line.number,
                    ..Event::default()
                });
                depth = 0;
            }
            continue;
        }
        if begins {
            depth += 1;
        } else if ends && depth > 0 {
            depth -= 1;
        } else if ends {
            events.extend(event.take());
        } else if let (Some(event), 0) = (&mut event, depth) {
            take(event, &line)?;
        }
    }
    if let Some(event) = event {
        return Err(fault(event.line, "this event has no end: the file is cut off"));
    }
    assemble(events)
}

fn take(event: &mut Event, line: &Line<'_>) -> Result<(), Fault> {
    match line.name.as_str() {
        "UID" => event.uid = line.value.to_owned(),
        "DTSTART" => event.start = Some(day(line, line.value)?),
        "DTEND" => event.end = Some(day(line, line.value)?),
        "DURATION" => event.duration = Some(duration(line.value)),
        "RRULE" => event.rule = Some((line.number, line.value.to_owned())),
        "EXDATE" => event.not.extend(days(line)?),
        "RDATE" => event.also.extend(days(line)?),
        "RECURRENCE-ID" => event.instead_of = Some(day(line, line.value)?.0),
        "STATUS" => event.cancelled = line.value.eq_ignore_ascii_case("CANCELLED"),
        _ => {}
    }
    Ok(())
}

fn assemble(events: Vec<Event>) -> Result<Read, Fault> {
    let mut moved: BTreeMap<String, BTreeSet<Date>> = BTreeMap::new();
    for event in &events {
        if let Some(day) = event.instead_of {
            moved.entry(event.uid.clone()).or_default().insert(day);
        }
    }
    let mut read = Read::default();
    let mut walk = WALK;
    for mut event in events {
        let Some((first, midnight)) = event.start else {
            return Err(fault(
                event.line,
                "this event does not say when it begins (DTSTART)",
            ));
        };
        let days = match (event.end, event.duration) {
            (Some((end, true)), _) => i32::try_from(days_between(first, end)).unwrap_or(i32::MAX).max(1),
            (Some((_, false)), _) => continue,
            (None, Some(Some(days))) => days.max(1),
            (None, Some(None)) => continue,
            (None, None) => 1,
        };
        if !midnight || event.cancelled {
            continue;
        }
        let last = |first: Date| first.checked_add((days - 1).days()).unwrap_or(Date::MAX);
        if event.instead_of.is_none()
            && let Some(moved) = moved.get(&event.uid)
        {
            event.not.extend(moved);
        }
        read.spans.extend(event.also.iter().map(|day| (*day, last(*day))));
        let Some((line, rule)) = event.rule else {
            read.spans.push((first, last(first)));
            continue;
        };
        if days > LONGEST {
            return Err(fault(line, "an event that repeats lasts longer than a year"));
        }
        if read.repeats.len() >= REPEATS {
            return Err(fault(line, &format!("more than {REPEATS} events repeat")));
        }
        read.repeats
            .push(repeat(line, &rule, first, days, event.not, &mut walk)?);
    }
    Ok(read)
}

fn repeat(
    line: usize,
    rule: &str,
    first: Date,
    days: i32,
    not: BTreeSet<Date>,
    walk: &mut u32,
) -> Result<Repeat, Fault> {
    let mut every = None;
    let mut count = None;
    let mut repeat = Repeat {
        first,
        days,
        every: Every::Year,
        interval: 1,
        until: None,
        months: Vec::new(),
        month_days: Vec::new(),
        week_days: Vec::new(),
        week_start: Weekday::Monday,
        not,
    };
    for part in rule.split(';').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let wrong = || fault(line, &format!("`{part}` of RRULE is not understood"));
        let numbers = |least: i8, most: i8| {
            let each = value.split(',').map(|number| {
                let number: i8 = number.trim().parse().map_err(|_| wrong())?;
                let fits = number != 0 && (least..=most).contains(&number);
                fits.then_some(number).ok_or_else(wrong)
            });
            each.collect::<Result<Vec<i8>, Fault>>()
        };
        match name.to_ascii_uppercase().as_str() {
            "FREQ" => {
                every = Some(match value.to_ascii_uppercase().as_str() {
                    "DAILY" => Every::Day,
                    "WEEKLY" => Every::Week,
                    "MONTHLY" => Every::Month,
                    "YEARLY" => Every::Year,
                    _ => return Err(wrong()),
                });
            }
            "INTERVAL" => {
                repeat.interval = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=1_000).contains(n))
                    .ok_or_else(wrong)?;
            }
            "COUNT" => count = Some(value.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?),
            "UNTIL" => repeat.until = Some(date(value).ok_or_else(wrong)?.0),
            "BYMONTH" => repeat.months = numbers(1, 12)?,
            "BYMONTHDAY" => repeat.month_days = numbers(-31, 31)?,
            "BYDAY" => {
                let each = value.split(',').map(|day| week_day(day.trim()).ok_or_else(wrong));
                repeat.week_days = each.collect::<Result<_, _>>()?;
            }
            "WKST" => repeat.week_start = week_day(value).ok_or_else(wrong)?.1,
            _ => return Err(wrong()),
        }
    }
    repeat.every = every.ok_or_else(|| fault(line, "this RRULE has no FREQ"))?;
    if let Some(count) = count {
        let until = last_of(&repeat, count, walk)
            .ok_or_else(|| fault(line, "this RRULE with COUNT reaches too far; use UNTIL"))?;
        repeat.until = Some(until);
    }
    Ok(repeat)
}

/// The day of its `count`-th time. Excepted days are times, too.
fn last_of(repeat: &Repeat, count: u32, walk: &mut u32) -> Option<Date> {
    let mut left = count;
    let mut day = repeat.first;
    loop {
        *walk = walk.checked_sub(1)?;
        if day == repeat.first || repeat.falls(day) {
            left -= 1;
            if left == 0 {
                return Some(day);
            }
        }
        day = day.tomorrow().ok()?;
    }
}

/// `MO`, `4TH`, `-1FR`.
fn week_day(text: &str) -> Option<(i8, Weekday)> {
    let at = text.len().checked_sub(2)?;
    let (which, day) = (text.get(..at)?, text.get(at..)?);
    let day = match day.to_ascii_uppercase().as_str() {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    };
    let which = if which.is_empty() {
        0
    } else {
        which.parse().ok().filter(|n| (-53..=53).contains(n) && *n != 0)?
    };
    Some((which, day))
}

/// Lines that begin with a blank go on with the one before.
fn unfold(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some((_, last))) => last.push_str(more),
            _ => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}

fn parse(number: usize, line: &str) -> Option<Line<'_>> {
    let mut quoted = false;
    let colon = line.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == ':' && !quoted).then_some(at)
    })?;
    let (before, value) = (&line[..colon], line[colon + 1..].trim());
    let (name, parameters) = before.split_once(';').unwrap_or((before, ""));
    Some(Line {
        number,
        name: name.trim().to_ascii_uppercase(),
        parameters,
        value,
    })
}

/// A day, and whether it begins at midnight.
fn date(text: &str) -> Option<(Date, bool)> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (day, time) = match text.split_once(['T', 't']) {
        Some((day, time)) => (day, Some(time)),
        None => (text, None),
    };
    if day.len() != 8 || !digits(day) {
        return None;
    }
    let date = Date::new(
        day[..4].parse().ok()?,
        day[4..6].parse().ok()?,
        day[6..].parse().ok()?,
    )
    .ok()?;
    Some((date, time.is_none_or(|time| time == "000000")))
}

fn day(line: &Line<'_>, text: &str) -> Result<(Date, bool), Fault> {
    // The first half of a PERIOD says when it begins.
    let text = text.split('/').next().unwrap_or_default();
    date(text).ok_or_else(|| {
        let parameters = if line.parameters.is_empty() { "" } else { ";.." };
        fault(
            line.number,
            &format!("{}{parameters} is no day: {}", line.name, shortened(text)),
        )
    })
}

fn days(line: &Line<'_>) -> Result<Vec<Date>, Fault> {
    line.value
        .split(',')
        .map(|text| day(line, text.trim()).map(|(day, _)| day))
        .collect()
}

/// `P2D`, `P1W` in days; `None` for what has hours.
fn duration(text: &str) -> Option<i32> {
    let text = text.trim_start_matches('+').strip_prefix('P')?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i32 = number.parse().ok().filter(|n| (0..=10_000).contains(n))?;
    match unit {
        "D" => Some(number),
        "W" => number.checked_mul(7),
        _ => None,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn fault(line: usize, message: &str) -> Fault {
    Fault {
        line,
        message: message.chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests;
