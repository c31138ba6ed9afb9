//! `file_missing`, `folder_backlog`, `job_missing`, `job_runs_long`: what is expected, and by when.

use crate::config::calendar::Calendar;
use crate::config::document::At;
use crate::config::quantity;
use crate::config::raw::absence as raw;
use crate::config::raw::rules::FileArrives;
use crate::config::raw::{Many, Time};
use crate::rule::Trigger;
use crate::rule::load::Loader;
use crate::source::absence::backlog::Backlog;
use crate::source::absence::deadline::{self, Daily, Days, Every};
use crate::source::absence::expected::{self, Expected, Rhythm};
use crate::source::absence::running::RunsLong;
use crate::source::absence::{Expectation, FileExpected, JobExpected, What};
use crate::suggest;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What both kinds of deadline are made of.
struct Written<'a> {
    by: Option<&'a str>,
    every: Option<&'a Time>,
    within: Option<&'a Time>,
    days: Option<&'a Many<String>>,
    except: Option<&'a Many<String>>,
    timezone: Option<&'a str>,
    grace: Option<&'a Time>,
    missed: Option<raw::MissedDeadline>,
    count: Option<u32>,
}

impl Loader<'_> {
    pub(super) fn file_missing(
        &mut self,
        at: &At<'_>,
        rule: &str,
        raw: &raw::FileMissing,
    ) -> Option<Trigger> {
        let written = Written {
            by: raw.by.as_deref(),
            every: raw.every.as_ref(),
            within: raw.within.as_ref(),
            days: raw.days.as_ref(),
            except: raw.except.as_ref(),
            timezone: raw.timezone.as_deref(),
            grace: raw.grace.as_ref(),
            missed: raw.missed,
            count: raw.count,
        };
        let watched = FileArrives {
            min_size: raw.min_size.clone(),
            ..watched(
                &raw.folder,
                raw.matching.clone(),
                raw.ignore.clone(),
                raw.recursive,
            )
        };
        let trigger = self.file_arrives(at, &watched);
        let deadline = self.deadline(at, &written);
        let (Some(Trigger::FileArrives { watch, wanted }), Some((expected, zone))) = (trigger, deadline)
        else {
            return None;
        };
        let what = What::File(FileExpected {
            root: self.root(&watch)?,
            watch,
            wanted,
            pattern: raw
                .matching
                .as_ref()
                .map_or("*", |glob| glob.0.as_str())
                .to_owned(),
            expected,
        });
        Some(absence(rule, &format!("{raw:?}"), what, zone))
    }

    pub(super) fn folder_backlog(
        &mut self,
        at: &At<'_>,
        rule: &str,
        raw: &raw::FolderBacklog,
    ) -> Option<Trigger> {
        let watched = watched(
            &raw.folder,
            raw.matching.clone(),
            raw.ignore.clone(),
            raw.recursive,
        );
        let trigger = self.file_arrives(at, &watched);
        let mut age = None;
        if let Some(written) = &raw.age {
            age = Some(
                self.checker
                    .some_time(&at.key("age"), Some(&written.0), Duration::from_secs(1)),
            );
        }
        if raw.count.is_none() && raw.age.is_none() {
            self.complain(
                at.error("when is it a backlog?")
                    .hint("with more files than `count: 100`, with one older than `age: 2h`, or either"),
            );
            return None;
        }
        let Some(Trigger::FileArrives { watch, wanted }) = trigger else {
            return None;
        };
        let backlog = Backlog {
            root: self.root(&watch)?,
            watch,
            wanted,
            count: raw.count,
            age,
        };
        let pattern = raw.matching.as_ref().map_or("*", |glob| glob.0.as_str());
        let what = What::Backlog(backlog, pattern.to_owned());
        let zone = self.checked.settings.defaults.timezone.clone();
        Some(absence(rule, &format!("{raw:?}"), what, zone))
    }

    pub(super) fn job_missing(&mut self, at: &At<'_>, rule: &str, raw: &raw::JobMissing) -> Option<Trigger> {
        let spot = at.key("job");
        let mut fine = true;
        if raw.job.is_empty() || raw.job.contains(['*', '?', '[', '{']) {
            self.complain(
                spot.error("which job? A deadline is for one, by its name")
                    .hint("write a trigger for each job; `when:` takes a list of them"),
            );
            fine = false;
        } else {
            self.listeners.push((
                raw.job.clone(),
                spot.warning(format!("no rule here has a job called `{}`", raw.job)),
            ));
        }
        let written = Written {
            by: raw.by.as_deref(),
            every: raw.every.as_ref(),
            within: raw.within.as_ref(),
            days: raw.days.as_ref(),
            except: raw.except.as_ref(),
            timezone: raw.timezone.as_deref(),
            grace: raw.grace.as_ref(),
            missed: raw.missed,
            count: None,
        };
        let (expected, zone) = self.deadline(at, &written)?;
        let what = What::Job(JobExpected {
            job: raw.job.clone(),
            expected,
        });
        fine.then(|| absence(rule, &format!("{raw:?}"), what, zone))
    }

    pub(super) fn job_runs_long(
        &mut self,
        at: &At<'_>,
        rule: &str,
        raw: &raw::JobRunsLong,
    ) -> Option<Trigger> {
        let spot = at.key("after");
        let after = self
            .checker
            .some_time(&spot, Some(&raw.after.0), Duration::from_secs(1));
        let names = self.job(at, &crate::config::raw::rules::Job { job: raw.job.clone() })?;
        let zone = self.checked.settings.defaults.timezone.clone();
        let what = What::Running(RunsLong { names, after });
        Some(absence(rule, &format!("{raw:?}"), what, zone))
    }

    fn root(&self, watch: &str) -> Option<PathBuf> {
        self.watches.get(watch).map(|watch| watch.root.clone())
    }

    /// The deadline of a trigger, with the zone of its times.
    fn deadline(&mut self, at: &At<'_>, raw: &Written<'_>) -> Option<(Expected, TimeZone)> {
        let zone = match raw.timezone {
            Some(name) => self.checker.timezone(&at.key("timezone"), name)?,
            None => self.checked.settings.defaults.timezone.clone(),
        };
        let days = self.counting_days(at, raw)?;
        let grace = self.checker.time(
            &at.key("grace"),
            raw.grace.map(|time| time.0.as_str()),
            Duration::ZERO,
        );
        let (every, word) = match (raw.every, raw.within) {
            (Some(_), Some(_)) => {
                self.complain(
                    at.name("within")
                        .error("`every` and `within` say the same")
                        .hint("keep one of them"),
                );
                return None;
            }
            (None, within) => (within, "within"),
            (every, None) => (every, "every"),
        };
        let count = raw.count.unwrap_or(1);
        if count == 0 {
            self.complain(
                at.key("count")
                    .error("no file at all is never missing")
                    .hint("1 or more"),
            );
            return None;
        }
        let rhythm = match (raw.by, every) {
            (Some(_), Some(_)) => {
                self.complain(
                    at.name(word)
                        .error(format!(
                            "a deadline is `by` a time of day or `{word}` so long, not both"
                        ))
                        .hint("keep one of them; two deadlines are two entries of `when`"),
                );
                return None;
            }
            (None, None) => {
                self.complain(
                    at.error("by when?")
                        .hint("by: \"07:00\" each day, or every: 24h since the last one"),
                );
                return None;
            }
            (Some(by), None) => {
                let Some(time) = deadline::time_of_day(by) else {
                    self.complain(
                        at.key("by")
                            .error(format!("`{by}` is not a time of day"))
                            .hint("hours and minutes from 00:00 to 23:59, as \"07:00\""),
                    );
                    return None;
                };
                Rhythm::By(Daily {
                    at: time,
                    days: days.clone(),
                    zone: zone.clone(),
                })
            }
            (None, Some(every)) => self.rhythm(at, every, word, count, &days, &zone)?,
        };
        let now = Timestamp::now();
        let comes = match &rhythm {
            Rhythm::By(daily) => daily.next(now),
            Rhythm::Every(every) => every.over(now),
        };
        if comes.is_none() {
            let spot = if raw.except.is_some() {
                at.key("except")
            } else {
                at.key("days")
            };
            self.complain(
                spot.error("this deadline never comes: no day is left in the next ten years")
                    .hint("look at `days` and at the calendar"),
            );
            return None;
        }
        if let Rhythm::By(daily) = &rhythm
            && let Some(next) = daily.next(now)
            && let Some(after) = daily.next(next)
            && SignedDuration::try_from(grace).is_ok_and(|grace| grace >= after.duration_since(next))
        {
            self.complain(
                at.key("grace")
                    .error("the grace lasts until the next deadline")
                    .hint("make it shorter, or the deadline later"),
            );
            return None;
        }
        let list =
            |many: Option<&Many<String>>| many.map(|many| many.0.join(", ")).filter(|text| !text.is_empty());
        let mut by = match (raw.by, every) {
            (Some(by), _) => by.to_owned(),
            (None, Some(every)) => format!("{word} {}", every.0),
            (None, None) => String::new(),
        };
        if let Some(days) = list(raw.days) {
            by = format!("{by}, {days}");
        }
        if let Some(except) = list(raw.except) {
            by = format!("{by} except {except}");
        }
        let expected = Expected {
            rhythm,
            by,
            grace,
            count,
            tell_missed: raw.missed != Some(raw::MissedDeadline::Skip),
        };
        Some((expected, zone))
    }

    fn rhythm(
        &mut self,
        at: &At<'_>,
        every: &Time,
        word: &str,
        count: u32,
        days: &Days,
        zone: &TimeZone,
    ) -> Option<Rhythm> {
        let spot = at.key(word);
        let time = match quantity::time(&every.0) {
            Ok(time) => time,
            Err(help) => {
                self.complain(spot.error(format!("`{}` is not a time", every.0)).hint(help));
                return None;
            }
        };
        if time < Duration::from_secs(1) {
            self.complain(
                spot.error(format!(
                    "`{word}: {}` is no time in which anything could come",
                    every.0
                ))
                .hint("write 1s or more"),
            );
            return None;
        }
        if count > expected::COUNT {
            self.complain(
                at.key("count")
                    .error(format!(
                        "with `{word}`, at most {} files can be counted",
                        expected::COUNT
                    ))
                    .hint("with `by`, a million"),
            );
            return None;
        }
        Some(Rhythm::Every(Every {
            every: time,
            days: days.clone(),
            zone: zone.clone(),
        }))
    }

    fn counting_days(&mut self, at: &At<'_>, raw: &Written<'_>) -> Option<Days> {
        let mut fine = true;
        let mut except: Vec<Arc<Calendar>> = Vec::new();
        for (index, name) in raw.except.iter().flat_map(|many| &many.0).enumerate() {
            let calendars = &self.checked.settings.calendars;
            if let Some(calendar) = calendars.get(name) {
                except.push(Arc::clone(calendar));
                continue;
            }
            fine = false;
            if self.checked.unsure.calendars {
                continue;
            }
            let hint = if calendars.is_empty() {
                format!(
                    "calendars are made in tidings.yaml: calendars: {{ {name}: {{ dates: [2026-12-25] }} }}"
                )
            } else {
                suggest::hint(name, calendars.keys().map(String::as_str))
            };
            self.complain(
                at.key("except")
                    .item(index)
                    .error(format!("there is no calendar `{name}`"))
                    .hint(hint),
            );
        }
        let mut week = Vec::new();
        for (index, text) in raw.days.iter().flat_map(|many| &many.0).enumerate() {
            match deadline::week_days(text) {
                Ok(days) => week.extend(days),
                Err(help) => {
                    fine = false;
                    let spot = at.key("days").item(index);
                    self.complain(
                        spot.error(format!("`{text}` is not a day of the week"))
                            .hint(help),
                    );
                }
            }
        }
        if raw.days.is_none() {
            week = deadline::week_days("daily").unwrap_or_default();
        }
        fine.then(|| Days::new(week, except))
    }
}

fn absence(rule: &str, said: &str, what: What, zone: TimeZone) -> Trigger {
    Trigger::Absence(Box::new(Expectation::of(rule, said, what, zone)))
}

/// The watch that such a trigger needs.
fn watched(
    folder: &str,
    matching: Option<crate::config::raw::Glob>,
    ignore: Option<Many<crate::config::raw::Glob>>,
    recursive: Option<bool>,
) -> FileArrives {
    FileArrives {
        folder: folder.to_owned(),
        matching,
        ignore,
        recursive,
        min_size: None,
        max_size: None,
        settle: None,
        marker: None,
        existing: None,
        identity: None,
        complete_when: None,
        together: None,
    }
}
