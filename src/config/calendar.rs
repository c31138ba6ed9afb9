//! Calendars: named sets of days, for deadlines that do not count on them. Pure.
//!
//! Days come from the settings, written out ([`Calendar::add`]), and from iCalendar files ([`ics`]).

pub mod ics;

use crate::config::calendar::ics::Repeat;
use jiff::civil::Date;
use std::collections::BTreeSet;

/// A set of days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// From the first to the last day of each, sorted by the first.
    spans: Vec<(Date, Date)>,
    /// Month and day, each year.
    yearly: BTreeSet<(i8, i8)>,
    repeats: Vec<Repeat>,
}

impl Calendar {
    /// Whether it has this day.
    pub fn has(&self, day: Date) -> bool {
        // Spans do not overlap, so only the last one that begins by then can reach it.
        let before = self.spans.partition_point(|(first, _)| *first <= day);
        let spanned = before > 0 && self.spans[before - 1].1 >= day;
        spanned
            || self.yearly.contains(&(day.month(), day.day()))
            || self.repeats.iter().any(|repeat| repeat.has(day))
    }

    /// Whether it has no day at all.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.yearly.is_empty() && self.repeats.is_empty()
    }

    /// Adds days as people write them: `2026-12-25`, `2026-12-24..2027-01-02`, or `12-25` of every year.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        const HELP: &str = "write a day (2026-12-25), a range (2026-12-24..2027-01-02), or month and day for every year (12-25)";
        let day = |text: &str| {
            let text = text.trim();
            // Ours is the one form that cannot be taken for another.
            let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            plain.then(|| text.parse::<Date>().ok()).flatten()
        };
        if let Some((first, last)) = text.split_once("..") {
            let (Some(first), Some(last)) = (day(first), day(last)) else {
                return Err(HELP.to_owned());
            };
            if last < first {
                return Err(format!("{last} is before {first}; exchange the two"));
            }
            self.span(first, last);
            return Ok(());
        }
        if let Some(day) = day(text) {
            self.span(day, day);
            return Ok(());
        }
        let (month, day) = text.trim().split_once('-').ok_or(HELP)?;
        let short = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<i8>().ok()).flatten().ok_or(HELP)
        };
        let (month, day) = (short(month)?, short(day)?);
        // A leap year has every day there is.
        Date::new(2024, month, day).map_err(|_| HELP)?;
        self.yearly.insert((month, day));
        Ok(())
    }

    /// Adds what an iCalendar file says.
    pub fn add_ics(&mut self, read: ics::Read) {
        for (first, last) in read.spans {
            self.spans.push((first, last));
        }
        self.merge();
        self.repeats.extend(read.repeats);
    }

    fn span(&mut self, first: Date, last: Date) {
        self.spans.push((first, last));
        self.merge();
    }

    fn merge(&mut self) {
        self.spans.sort_unstable();
        let mut merged: Vec<(Date, Date)> = Vec::with_capacity(self.spans.len());
        for (first, last) in self.spans.drain(..) {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        self.spans = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn calendar(days: &[&str]) -> Calendar {
        let mut calendar = Calendar::default();
        days.iter().for_each(|day| calendar.add(day).unwrap());
        calendar
    }

    #[test]
    fn days_ranges_and_days_of_every_year_are_in_it_and_nothing_else() {
        let holidays = calendar(&[
            "2026-12-24..2027-01-02",
            "2026-05-01",
            "2026-12-30..2027-01-04",
            "10-03",
        ]);
        for day in [
            "2026-12-24",
            "2026-12-31",
            "2027-01-04",
            "2026-05-01",
            "2026-10-03",
            "2031-10-03",
        ] {
            assert!(holidays.has(day.parse().unwrap()), "{day}");
        }
        for day in [
            "2026-12-23",
            "2027-01-05",
            "2026-05-02",
            "2027-05-01",
            "2026-10-04",
        ] {
            assert!(!holidays.has(day.parse().unwrap()), "{day}");
        }
        assert!(calendar(&["02-29"]).has(date(2028, 2, 29)));
        assert!(Calendar::default().is_empty() && !holidays.is_empty());
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for wrong in [
            "",
            "today",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1",
            "13-01",
            "02-30",
            "2026-12-25..",
            "..",
            "1-1",
            "2026-12-25..2026-12-24",
            "20261225",
            "2026-12-25T00:00",
            "-2026-12-25",
        ] {
            assert!(Calendar::default().add(wrong).is_err(), "{wrong}");
        }
    }
}
