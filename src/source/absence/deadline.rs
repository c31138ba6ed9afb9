//! Deadlines: when something must have happened. Pure.
//!
//! | written | the deadline is |
//! |---|---|
//! | `by: "07:00"` | that time of each day that counts |
//! | `every: 24h` | so long after the last one; days that do not count take no time |
//!
//! A time in the hour that the clocks leave out comes at its end, one in the hour that comes twice is the
//! first, as with schedules.

use crate::config::calendar::Calendar;
use crate::source::schedule::instant;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Most days that are looked through for one that counts.
const FAR: usize = 4_000;

/// Which days count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Days {
    /// Monday is the lowest bit.
    week: u8,
    /// Days of these do not.
    except: Vec<Arc<Calendar>>,
}

impl Days {
    /// These days of the week, but not those of the calendars.
    pub fn new(week: impl IntoIterator<Item = Weekday>, except: Vec<Arc<Calendar>>) -> Days {
        let bit = |day: Weekday| 1 << day.to_monday_zero_offset();
        Days {
            week: week.into_iter().map(bit).fold(0, |all, day| all | day),
            except,
        }
    }

    /// All of them.
    pub fn all() -> Days {
        Days {
            week: 0b111_1111,
            except: Vec::new(),
        }
    }

    /// Whether this one counts.
    pub fn count(&self, day: Date) -> bool {
        let of_week = self.week & (1 << day.weekday().to_monday_zero_offset()) != 0;
        of_week && !self.except.iter().any(|calendar| calendar.has(day))
    }
}

/// Days of the week as people write them: `mon`, `mon-fri`, `weekdays`, `weekends`, `daily`.
pub fn week_days(text: &str) -> Result<Vec<Weekday>, String> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    const NAMES: [(&str, Weekday); 7] = [
        ("monday", Monday),
        ("tuesday", Tuesday),
        ("wednesday", Wednesday),
        ("thursday", Thursday),
        ("friday", Friday),
        ("saturday", Saturday),
        ("sunday", Sunday),
    ];
    const HELP: &str = "mon tue wed thu fri sat sun, a range (mon-fri), weekdays, weekends or daily";
    let named = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let known = NAMES.iter().find(|(name, _)| *name == text || name[..3] == text);
        known.map(|(_, day)| *day).ok_or_else(|| HELP.to_owned())
    };
    match text.trim().to_ascii_lowercase().as_str() {
        "daily" => return Ok(NAMES.map(|(_, day)| day).to_vec()),
        "weekdays" => return Ok(vec![Monday, Tuesday, Wednesday, Thursday, Friday]),
        "weekends" => return Ok(vec![Saturday, Sunday]),
        _ => {}
    }
    if text.contains(',') {
        let parts: Result<Vec<_>, _> = text.split(',').map(week_days).collect();
        return parts.map(|parts| parts.concat());
    }
    let Some((first, last)) = text.split_once('-') else {
        return named(text).map(|day| vec![day]);
    };
    let (first, last) = (named(first)?, named(last)?);
    let mut days = vec![first];
    let mut day = first;
    while day != last {
        day = day.next();
        days.push(day);
    }
    Ok(days)
}

/// A time of day, `07:00` or `07:00:30`.
pub fn time_of_day(text: &str) -> Option<Time> {
    let mut parts = text.trim().split(':');
    let mut part = |most: i8| {
        let part = parts.next()?;
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| part.parse::<i8>().ok())
            .flatten()
            .filter(|n| *n <= most)
    };
    let (hour, minute) = (part(23)?, part(59)?);
    let second = match text.matches(':').count() {
        1 => 0,
        2 => part(59)?,
        _ => return None,
    };
    Time::new(hour, minute, second, 0).ok()
}

/// A time of each day that counts.
#[derive(Clone, Debug)]
pub struct Daily {
    /// The time.
    pub at: Time,
    /// Which days count.
    pub days: Days,
    /// Where.
    pub zone: TimeZone,
}

impl Daily {
    /// The first deadline after `after`. `None` where none comes within ten years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // A day may begin late by the wall, and its deadline then lies on the next.
        let mut day = after.to_zoned(self.zone.clone()).date().yesterday().ok()?;
        for _ in 0..FAR {
            if let Some(due) = self.on(day).filter(|due| *due > after) {
                return Some(due);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The last deadline that is not after `upto`.
    pub fn last(&self, upto: Timestamp) -> Option<Timestamp> {
        let mut day = upto.to_zoned(self.zone.clone()).date().tomorrow().ok()?;
        for _ in 0..FAR {
            if let Some(due) = self.on(day).filter(|due| *due <= upto) {
                return Some(due);
            }
            day = day.yesterday().ok()?;
        }
        None
    }

    fn on(&self, day: Date) -> Option<Timestamp> {
        if !self.days.count(day) {
            return None;
        }
        instant(&self.zone, day.to_datetime(self.at))
    }
}

/// A longest time between two.
#[derive(Clone, Debug)]
pub struct Every {
    /// How long.
    pub every: Duration,
    /// Which days take time.
    pub days: Days,
    /// Where they begin and end.
    pub zone: TimeZone,
}

impl Every {
    /// When the time that begins at `from` is over. `None` where it never is.
    pub fn over(&self, from: Timestamp) -> Option<Timestamp> {
        let mut left = SignedDuration::try_from(self.every).ok()?;
        let mut at = from;
        for _ in 0..2 * FAR {
            let day = at.to_zoned(self.zone.clone()).date();
            let mut end = instant(&self.zone, day.tomorrow().ok()?.at(0, 0, 0, 0))?;
            if end <= at {
                // Midnight itself is in the hour that comes twice.
                end = instant(&self.zone, day.tomorrow().ok()?.tomorrow().ok()?.at(0, 0, 0, 0))?;
            }
            if self.days.count(day) {
                let today = end.duration_since(at);
                if left <= today {
                    return at.checked_add(left).ok();
                }
                left -= today;
            }
            at = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holidays(days: &[&str]) -> Vec<Arc<Calendar>> {
        let mut calendar = Calendar::default();
        days.iter().for_each(|day| calendar.add(day).unwrap());
        vec![Arc::new(calendar)]
    }

    fn days(week: &str, except: &[&str]) -> Days {
        Days::new(week_days(week).unwrap(), holidays(except))
    }

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The deadlines after a time, by the clocks of Berlin.
    fn deadlines(time: &str, days: Days, after: &str, count: usize) -> Vec<String> {
        let daily = Daily {
            at: time_of_day(time).unwrap(),
            days,
            zone: berlin(),
        };
        let mut last = at(after);
        let mut found = Vec::new();
        for _ in 0..count {
            let next = daily.next(last).unwrap();
            assert_eq!(daily.last(next), Some(next), "the last up to itself");
            found.push(next.to_zoned(berlin()).strftime("%a %F %H:%M %:z").to_string());
            last = next;
        }
        found
    }

    #[test]
    fn working_days_and_holidays() {
        let found = deadlines(
            "07:00",
            days("mon-fri", &["2026-12-24..2026-12-28", "01-01"]),
            "2026-12-22T20:00:00Z",
            5,
        );
        assert_eq!(
            found,
            [
                "Wed 2026-12-23 07:00 +01:00",
                "Tue 2026-12-29 07:00 +01:00",
                "Wed 2026-12-30 07:00 +01:00",
                "Thu 2026-12-31 07:00 +01:00",
                "Mon 2027-01-04 07:00 +01:00",
            ]
        );
    }

    #[test]
    fn the_nights_on_which_the_clocks_change() {
        // 02:30 does not exist on 29 March: it comes at 03:00.
        let spring = deadlines("02:30", Days::all(), "2026-03-27T12:00:00Z", 3);
        assert_eq!(
            spring,
            [
                "Sat 2026-03-28 02:30 +01:00",
                "Sun 2026-03-29 03:00 +02:00",
                "Mon 2026-03-30 02:30 +02:00"
            ]
        );
        // 02:30 comes twice on 25 October: the first.
        let autumn = deadlines("02:30", Days::all(), "2026-10-24T12:00:00Z", 2);
        assert_eq!(
            autumn,
            ["Sun 2026-10-25 02:30 +02:00", "Mon 2026-10-26 02:30 +01:00"]
        );
    }

    #[test]
    fn a_leap_day_is_a_day_and_a_deadline_that_never_comes_is_none() {
        let leap = deadlines("07:00", days("daily", &[]), "2028-02-28T12:00:00Z", 2);
        assert_eq!(
            leap,
            ["Tue 2028-02-29 07:00 +01:00", "Wed 2028-03-01 07:00 +01:00"]
        );
        let never = Daily {
            at: time_of_day("07:00").unwrap(),
            days: days("mon", &["2000-01-01..2100-01-01"]),
            zone: berlin(),
        };
        assert_eq!(never.next(at("2026-01-01T00:00:00Z")), None);
        let none = Every {
            every: Duration::from_secs(60),
            days: never.days,
            zone: berlin(),
        };
        assert_eq!(none.over(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn days_that_do_not_count_take_no_time() {
        let over = |hours: u64, days: Days, from: &str| {
            let every = Every {
                every: Duration::from_secs(hours * 3600),
                days,
                zone: berlin(),
            };
            every
                .over(at(from))
                .unwrap()
                .to_zoned(berlin())
                .strftime("%a %F %H:%M %:z")
                .to_string()
        };
        assert_eq!(
            over(24, Days::all(), "2026-11-06T09:00:00Z"),
            "Sat 2026-11-07 10:00 +01:00"
        );
        assert_eq!(
            over(24, days("mon-fri", &[]), "2026-11-06T09:00:00Z"),
            "Mon 2026-11-09 10:00 +01:00"
        );
        assert_eq!(
            over(24, days("mon-fri", &["2026-11-09"]), "2026-11-06T09:00:00Z"),
            "Tue 2026-11-10 10:00 +01:00"
        );
        assert_eq!(
            over(1, days("mon-fri", &[]), "2026-11-07T09:00:00Z"),
            "Mon 2026-11-09 01:00 +01:00"
        );
        // Real hours: the night of 25 October has one more.
        assert_eq!(
            over(24, Days::all(), "2026-10-24T10:00:00Z"),
            "Sun 2026-10-25 11:00 +01:00"
        );
    }

    #[test]
    fn days_and_times_as_people_write_them() {
        assert_eq!(week_days("Mon").unwrap(), [Weekday::Monday]);
        assert_eq!(week_days("fri-mon").unwrap().len(), 4);
        assert_eq!(
            week_days("weekends").unwrap(),
            [Weekday::Saturday, Weekday::Sunday]
        );
        assert_eq!(week_days("tuesday - thursday").unwrap().len(), 3);
        assert_eq!(week_days("mon, wed-fri").unwrap().len(), 4);
        for wrong in ["", "mo", "mon-", "mon-fri-sun", "1", "monda"] {
            assert!(week_days(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time_of_day("7:05"), Time::new(7, 5, 0, 0).ok());
        assert_eq!(time_of_day("23:59:30"), Time::new(23, 59, 30, 0).ok());
        for wrong in [
            "",
            "7",
            "24:00",
            "07:60",
            "7am",
            "07:00:00:00",
            "-1:00",
            "07:0x",
            ":",
        ] {
            assert_eq!(time_of_day(wrong), None, "{wrong}");
        }
    }
}
