//! Quiet hours: when a rule tells nobody. Pure.
//!
//! They are times of the wall clock. They begin when it first shows `from`, and end when it shows `to` for
//! the last time: in the night in which an hour comes twice nobody is woken while the clock still says that
//! it is quiet. A time in the hour that is left out is the end of that hour.

use crate::source::schedule::instant;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

/// From when to when, in which zone, in which nights.
#[derive(Clone, Debug)]
pub struct QuietHours {
    /// They begin.
    pub from: Time,
    /// They end; on the next day if that is not later than `from`.
    pub to: Time,
    /// Whose wall clock.
    pub zone: TimeZone,
    /// Days on which they begin. Empty: every day.
    pub days: Vec<Weekday>,
}

impl QuietHours {
    /// When they end, if `now` is in them.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        [today.checked_sub(1.day()).ok(), Some(today)]
            .into_iter()
            .flatten()
            .filter_map(|day| self.of(day))
            .filter(|(begin, end)| *begin <= now && now < *end)
            .map(|(_, end)| end)
            .max()
    }

    /// Those that begin on that day, if any do.
    fn of(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&day.weekday()) {
            return None;
        }
        let end = if self.to > self.from {
            day
        } else {
            day.checked_add(1.day()).ok()?
        };
        let begin = instant(&self.zone, day.to_datetime(self.from))?;
        let wall = end.to_datetime(self.to);
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let end = match ambiguous.offset() {
            AmbiguousOffset::Fold { .. } => ambiguous.later().ok()?,
            _ => instant(&self.zone, wall)?,
        };
        Some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hours(from: &str, to: &str, days: &[Weekday]) -> QuietHours {
        QuietHours {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            days: days.to_vec(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn they_go_over_midnight() {
        let quiet = hours("20:00", "07:00", &[]);
        let end = at("2026-03-04T07:00:00+01:00");
        for (now, until) in [
            ("2026-03-03T19:59:59+01:00", None),
            ("2026-03-03T20:00:00+01:00", Some(end)),
            ("2026-03-04T00:00:00+01:00", Some(end)),
            ("2026-03-04T06:59:59+01:00", Some(end)),
            ("2026-03-04T07:00:00+01:00", None),
        ] {
            assert_eq!(quiet.until(at(now)), until, "{now}");
        }
    }

    #[test]
    fn they_may_lie_within_a_day() {
        let quiet = hours("12:00", "13:30", &[]);
        assert_eq!(
            quiet.until(at("2026-03-04T12:15:00+01:00")),
            Some(at("2026-03-04T13:30:00+01:00"))
        );
        assert_eq!(quiet.until(at("2026-03-04T13:30:00+01:00")), None);
        assert_eq!(quiet.until(at("2026-03-04T11:00:00+01:00")), None);
    }

    #[test]
    fn a_day_is_the_one_they_begin_on() {
        // 2026-03-06 is a Friday.
        let quiet = hours("20:00", "07:00", &[Weekday::Friday]);
        assert_eq!(quiet.until(at("2026-03-06T03:00:00+01:00")), None);
        assert_eq!(
            quiet.until(at("2026-03-07T03:00:00+01:00")),
            Some(at("2026-03-07T07:00:00+01:00"))
        );
        assert_eq!(quiet.until(at("2026-03-07T21:00:00+01:00")), None);
    }

    #[test]
    fn the_short_and_the_long_night_end_by_the_wall_clock() {
        let quiet = hours("20:00", "07:00", &[]);
        assert_eq!(
            quiet.until(at("2026-03-28T23:00:00+01:00")),
            Some(at("2026-03-29T07:00:00+02:00"))
        );
        assert_eq!(
            quiet.until(at("2026-10-24T23:00:00+02:00")),
            Some(at("2026-10-25T07:00:00+01:00"))
        );
    }

    #[test]
    fn a_time_in_the_missing_hour_is_its_end_and_one_in_the_doubled_hour_the_last() {
        let to = hours("22:00", "02:30", &[]);
        assert_eq!(
            to.until(at("2026-03-29T01:00:00+01:00")),
            Some(at("2026-03-29T03:00:00+02:00"))
        );
        let end = at("2026-10-25T02:30:00+01:00");
        for now in [
            "2026-10-25T02:29:00+02:00",
            "2026-10-25T02:45:00+02:00",
            "2026-10-25T02:15:00+01:00",
        ] {
            assert_eq!(to.until(at(now)), Some(end), "{now}");
        }
        let from = hours("02:30", "06:00", &[]);
        assert_eq!(
            from.until(at("2026-10-25T02:30:00+02:00")),
            Some(at("2026-10-25T06:00:00+01:00"))
        );
        assert_eq!(from.until(at("2026-03-29T01:59:00+01:00")), None);
        assert!(from.until(at("2026-03-29T03:00:00+02:00")).is_some());
    }

    proptest! {
        #[test]
        fn they_end_later_than_now_and_within_two_days(
            second in 1_700_000_000_i64..1_900_000_000,
            from in 0_i8..24,
            to in 0_i8..24,
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
        ) {
            prop_assume!(from != to);
            let quiet = QuietHours {
                from: Time::constant(from, 30, 0, 0),
                to: Time::constant(to, 30, 0, 0),
                zone: TimeZone::get(zone).unwrap(),
                days: Vec::new(),
            };
            let now = Timestamp::from_second(second).unwrap();
            if let Some(until) = quiet.until(now) {
                prop_assert!(until > now);
                prop_assert!(until.duration_since(now).as_hours() < 26);
                prop_assert_eq!(quiet.until(until), None);
            }
        }
    }
}
