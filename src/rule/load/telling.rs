//! `group:`, `throttle:` and `quiet_hours:`.

use crate::config::document::At;
use crate::config::raw::{Many, Template, rules as rules_raw, telling as raw};
use crate::rule::gather::{Group, MOST, Telling, Throttle};
use crate::rule::load::Loader;
use crate::rule::load::words::Words;
use crate::rule::quiet::QuietHours;
use crate::template::Text;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use std::time::Duration;

/// How long a group waits where the rule does not say.
const WAIT: Duration = Duration::from_secs(300);

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Loader<'_> {
    /// All three of a rule. `words`: what its mails may say, before anything is gathered.
    pub(super) fn telling(&mut self, at: &At<'_>, rule: &rules_raw::Rule, words: &Words) -> Telling {
        Telling {
            throttle: rule
                .throttle
                .as_ref()
                .map(|raw| self.throttle(&at.key("throttle"), raw, words)),
            group: rule
                .group
                .as_ref()
                .map(|raw| self.group(&at.key("group"), raw, words)),
            quiet: rule
                .quiet_hours
                .as_ref()
                .and_then(|raw| self.quiet_hours(&at.key("quiet_hours"), raw)),
        }
    }

    fn throttle(&mut self, at: &At<'_>, raw: &raw::Throttle, words: &Words) -> Throttle {
        Throttle {
            at_most: usize::try_from(raw.at_most).unwrap_or(MOST).max(1),
            per: self
                .checker
                .some_time(&at.key("per"), Some(&raw.per.0), Duration::from_secs(3600)),
            by: self.by(at, raw.by.as_ref(), words),
            zone: self.zone(at, None),
        }
    }

    fn group(&mut self, at: &At<'_>, raw: &raw::Group, words: &Words) -> Group {
        if raw.at.is_some() && raw.wait.is_some() {
            self.complain(
                at.name("wait")
                    .error("`at` says when a group is told, and so does `wait`")
                    .hint("keep one of them"),
            );
        }
        let wait = raw.wait.as_ref().map(|wait| wait.0.as_str());
        let times = raw.at.as_ref().map_or(&[][..], |Many(times)| times.as_slice());
        Group {
            by: self.by(at, raw.by.as_ref(), words),
            wait: self.checker.some_time(&at.key("wait"), wait, WAIT),
            at: times
                .iter()
                .enumerate()
                .filter_map(|(index, time)| self.time_of_day(&at.key("at").item(index), time))
                .collect(),
            zone: self.zone(at, raw.timezone.as_deref()),
            max: raw
                .max
                .and_then(|max| usize::try_from(max).ok())
                .map_or(MOST, |max| max.clamp(1, MOST)),
        }
    }

    fn quiet_hours(&mut self, at: &At<'_>, raw: &raw::QuietHours) -> Option<QuietHours> {
        let from = self.time_of_day(&at.key("from"), &raw.from);
        let to = self.time_of_day(&at.key("to"), &raw.to);
        let days = raw
            .days
            .as_ref()
            .map(|Many(days)| self.weekdays(&at.key("days"), days))
            .unwrap_or_default();
        let zone = self.zone(at, raw.timezone.as_deref());
        let (from, to) = (from?, to?);
        if from == to {
            self.complain(
                at.name("to")
                    .error("these quiet hours end when they begin")
                    .hint("a rule that shall never tell needs no mail; write two different times"),
            );
            return None;
        }
        Some(QuietHours { from, to, zone, days })
    }

    /// A key: a template that something is filled into.
    fn by(&mut self, at: &At<'_>, raw: Option<&Template>, words: &Words) -> Option<Text> {
        let Template(text) = raw?;
        let spot = at.key("by");
        if !text.contains("{{") {
            self.complain(
                spot.error(format!("`{text}` is the same for every event"))
                    .hint("name a fact, as \"{{file.folder}}\", or leave `by` out"),
            );
            return None;
        }
        self.text(&spot, text, words)
    }

    fn time_of_day(&mut self, at: &At<'_>, raw: &raw::TimeOfDay) -> Option<Time> {
        let raw::TimeOfDay(text) = raw;
        let time = text.parse::<Time>().ok().filter(|_| text.len() == 5);
        if time.is_none() {
            self.complain(
                at.error(format!("`{text}` is not a time of day"))
                    .hint("hours and minutes: \"07:00\""),
            );
        }
        time
    }

    /// Days of the week: `mon`, `mon-fri`, `sat-sun`, and lists of these.
    fn weekdays(&mut self, at: &At<'_>, raw: &[String]) -> Vec<Weekday> {
        let place = |word: &str| DAYS.iter().position(|(name, _)| *name == word.trim());
        let mut days = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            for part in text.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (Some(first), Some(last)) = (place(first), place(last)) else {
                    self.complain(
                        at.item(index)
                            .error(format!("`{}` is not a day of the week", part.trim()))
                            .hint("mon tue wed thu fri sat sun, or from one to another: mon-fri"),
                    );
                    continue;
                };
                let length = (last + 7 - first) % 7;
                days.extend((0..=length).map(|step| DAYS[(first + step) % 7].1));
            }
        }
        days
    }

    fn zone(&mut self, at: &At<'_>, name: Option<&str>) -> TimeZone {
        name.and_then(|name| self.checker.timezone(&at.key("timezone"), name))
            .unwrap_or_else(|| self.checked.settings.defaults.timezone.clone())
    }
}
