//! Times as people write them in tests. Pure.
//!
//! | written | means |
//! |---|---|
//! | `06:40`, `06:40:30` | that time on the running day |
//! | `tomorrow 06:40` | on the day after the running one |
//! | `tue 09:00` | on the next such day, the running one included |
//! | `+10m`, `+1h30m`, `+2d` | so much later; days are calendar days |
//! | `2026-03-05 09:00` | then, in the zone of the settings |
//! | `2026-03-05T09:00+01:00` | then |
//!
//! The running day is that of the time before. A time is as exact as it is written: without seconds it is a minute.

use crate::config::quantity;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// A time, and how exact it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// How long the written time lasts: a minute or a second.
    pub lasts: SignedDuration,
}

impl Moment {
    /// The end of it.
    pub fn end(&self) -> Timestamp {
        self.at.saturating_add(self.lasts).unwrap_or(Timestamp::MAX)
    }
}

/// What is wrong with a time, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// One sentence.
    pub message: String,
    /// What to write.
    pub hint: String,
}

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong {
        message: message.into(),
        hint: hint.into(),
    }
}

const FORMS: &str = "06:40, +10m, tomorrow 06:40, tue 09:00, or 2026-03-05 09:00";

/// Reads a full time, as a test begins with.
pub fn full(text: &str, zone: &TimeZone) -> Result<Moment, Wrong> {
    read_full(text.trim(), zone).ok_or_else(|| {
        wrong(
            format!("`{text}` is no time with a date"),
            "as 2026-03-02 06:00, in the zone of the settings, or 2026-03-02T06:00+01:00",
        )
    })
}

/// Reads a time that comes after `before`.
pub fn after(text: &str, before: Timestamp, zone: &TimeZone) -> Result<Moment, Wrong> {
    let moment = read(text.trim(), before, zone)?;
    if moment.at < before {
        let shown = before.to_zoned(zone.clone()).strftime("%a %F %T").to_string();
        return Err(wrong(
            format!("`{text}` is before {shown}, where this test stands by then"),
            "write what happens in the order of time; the next day is `tomorrow 06:40` or `tue 06:40`",
        ));
    }
    Ok(moment)
}

fn read(text: &str, before: Timestamp, zone: &TimeZone) -> Result<Moment, Wrong> {
    let no_time = || wrong(format!("`{text}` is no time"), FORMS);
    let running = before.to_zoned(zone.clone());
    if let Some(later) = text.strip_prefix('+') {
        let later = quantity::time(later.trim()).map_err(|why| wrong(format!("`{text}`: {why}"), FORMS))?;
        let (days, rest) = (later.as_secs() / 86_400, later.as_secs() % 86_400);
        let days = i64::try_from(days).map_err(|_| no_time())?;
        let at = running
            .checked_add(days.days())
            .ok()
            .and_then(|day| {
                day.timestamp()
                    .checked_add(SignedDuration::from_secs(rest as i64))
                    .ok()
            })
            .and_then(|at| {
                at.checked_add(SignedDuration::from_nanos(i64::from(later.subsec_nanos())))
                    .ok()
            });
        return Ok(Moment {
            at: at.ok_or_else(no_time)?,
            lasts: if rest.is_multiple_of(60) && later.subsec_nanos() == 0 {
                MINUTE
            } else {
                SECOND
            },
        });
    }
    if let Some((time, lasts)) = time_of_day(text) {
        return on(running.date(), time, lasts, zone).ok_or_else(no_time);
    }
    if let Some((day, time)) = text.split_once(' ')
        && let Some((time, lasts)) = time_of_day(time.trim())
    {
        if day.eq_ignore_ascii_case("tomorrow") {
            let day = running.date().tomorrow().map_err(|_| no_time())?;
            return on(day, time, lasts, zone).ok_or_else(no_time);
        }
        if let Some(day) = weekday(day) {
            let mut date = running.date();
            for _ in 0..8 {
                let moment = on(date, time, lasts, zone).ok_or_else(no_time)?;
                if date.weekday() == day && moment.at >= before {
                    return Ok(moment);
                }
                date = date.tomorrow().map_err(|_| no_time())?;
            }
        }
    }
    read_full(text, zone).ok_or_else(no_time)
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// `06:40` or `06:40:30`, and how long that lasts.
fn time_of_day(text: &str) -> Option<(Time, SignedDuration)> {
    let parts: Vec<&str> = text.split(':').collect();
    let two = |part: &str| {
        (1..=2)
            .contains(&part.len())
            .then(|| {
                part.parse::<i8>()
                    .ok()
                    .filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))
            })
            .flatten()
    };
    let (hour, minute, second, lasts) = match parts[..] {
        [hour, minute] => (two(hour)?, two(minute)?, 0, MINUTE),
        [hour, minute, second] => (two(hour)?, two(minute)?, two(second)?, SECOND),
        _ => return None,
    };
    Some((Time::new(hour, minute, second, 0).ok()?, lasts))
}

fn weekday(text: &str) -> Option<Weekday> {
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.to_ascii_lowercase();
    days.into_iter()
        .find(|(name, _)| *name == text || name[..3] == text)
        .map(|(_, day)| day)
}

fn on(date: Date, time: Time, lasts: SignedDuration, zone: &TimeZone) -> Option<Moment> {
    let at = zone.to_timestamp(date.to_datetime(time)).ok()?;
    Some(Moment { at, lasts })
}

fn read_full(text: &str, zone: &TimeZone) -> Option<Moment> {
    let time = text.get(11..)?;
    let colons = time.split(['+', 'Z', '-']).next()?.matches(':').count();
    let lasts = if colons == 1 { MINUTE } else { SECOND };
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => {
            let (time, _) = time_of_day(time)?;
            let date: Date = text.get(..10)?.parse().ok()?;
            zone.to_timestamp(DateTime::from_parts(date, time)).ok()?
        }
    };
    Some(Moment { at, lasts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> String {
        let before = full("2026-03-27 10:00", &berlin()).unwrap().at; // a Friday, daylight saving begins on Sunday
        match after(text, before, &berlin()) {
            Ok(moment) => format!(
                "{} {}",
                moment.at.to_zoned(berlin()).strftime("%a %F %T%:z"),
                moment.lasts.as_secs()
            ),
            Err(wrong) => wrong.message,
        }
    }

    #[test]
    fn times_are_read_as_people_mean_them() {
        assert_eq!(at("10:00"), "Fri 2026-03-27 10:00:00+01:00 60");
        assert_eq!(at("11:30:05"), "Fri 2026-03-27 11:30:05+01:00 1");
        assert_eq!(at("tomorrow 06:40"), "Sat 2026-03-28 06:40:00+01:00 60");
        assert_eq!(at("fri 09:00"), "Fri 2026-04-03 09:00:00+02:00 60");
        assert_eq!(at("Monday 9:00"), "Mon 2026-03-30 09:00:00+02:00 60");
        assert_eq!(at("+10m"), "Fri 2026-03-27 10:10:00+01:00 60");
        assert_eq!(at("+10s"), "Fri 2026-03-27 10:00:10+01:00 1");
        assert_eq!(at("+3d"), "Mon 2026-03-30 10:00:00+02:00 60", "calendar days");
        assert_eq!(at("2026-03-28 00:00"), "Sat 2026-03-28 00:00:00+01:00 60");
        assert_eq!(at("2026-03-28T00:00:01Z"), "Sat 2026-03-28 01:00:01+01:00 1");
        assert_eq!(at("2026-03-28T00:00+05:00"), "Fri 2026-03-27 20:00:00+01:00 60");
    }

    #[test]
    fn what_is_no_time_or_lies_in_the_past_is_refused() {
        assert_eq!(
            at("09:00"),
            "`09:00` is before Fri 2026-03-27 10:00:00, where this test stands by then"
        );
        assert!(at("2026-03-26 09:00").contains("is before"));
        for text in [
            "25:00",
            "soon",
            "someday 09:00",
            "+",
            "+x",
            "9",
            "",
            "2026-13-01 09:00",
            "ä",
        ] {
            assert!(
                at(text).contains("is no time") || at(text).contains("a time is"),
                "{text}: {}",
                at(text)
            );
        }
    }
}
