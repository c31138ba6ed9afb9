//! `remind:` and `escalate:`, and which rules may have them.

use crate::config::document::At;
use crate::config::raw::ladder as raw;
use crate::config::raw::rules;
use crate::rule::ladder::{Hours, Ladder, Remind, Rung};
use crate::rule::load::Loader;
use crate::rule::load::words::Words;
use jiff::civil::Time;
use std::time::Duration;

/// When reminders begin on a day, where a rule says only when they end.
const MORNING: Time = Time::constant(8, 0, 0, 0);

/// Whether the events of a trigger open cases, or are taken for such: a job that fails is one until it ends well.
pub fn opens_case(trigger: &rules::Trigger) -> bool {
    use rules::Trigger;
    matches!(
        trigger,
        Trigger::JobFails(_)
            | Trigger::Trouble(_)
            | Trigger::FileMissing(_)
            | Trigger::FolderBacklog(_)
            | Trigger::JobMissing(_)
            | Trigger::JobRunsLong(_)
    )
}

/// What a rule's ladder is checked against.
pub(super) struct Ground<'a> {
    /// The rule's place.
    pub at: &'a At<'a>,
    /// What its texts may say.
    pub words: &'a Words,
    /// It does work before it tells.
    pub has_work: bool,
    /// Something in it could not be read, so nothing is said about what is missing.
    pub damaged: bool,
}

impl Loader<'_> {
    /// What the rule says while a case stays open.
    pub(super) fn ladder(&mut self, rule: &rules::Rule, ground: &Ground<'_>) -> Ladder {
        let at = ground.at;
        for (key, there) in [
            ("remind", rule.remind.is_some()),
            ("escalate", rule.escalate.is_some()),
        ] {
            if there {
                self.only_of_cases(at, key, rule);
            }
        }
        let remind = rule.remind.as_ref().and_then(|raw| {
            if !ground.damaged && (ground.has_work || rule.mail.is_none()) {
                let hint = if ground.has_work {
                    "with work the mail tells of the work; write `escalate`, which has mails of its own, \
                     or make two rules of it"
                } else {
                    "add `mail:`, or write `escalate`, which has mails of its own"
                };
                self.complain(
                    at.name("remind")
                        .error("`remind` sends the rule's `mail` again, and there is none to send again")
                        .hint(hint),
                );
            }
            self.remind(&at.key("remind"), raw)
        });
        let mut escalate = Vec::new();
        let mut last = Duration::ZERO;
        for (index, raw) in rule.escalate.iter().flat_map(|many| &many.0).enumerate() {
            let rung = at.key("escalate").item(index);
            let after = self.wait(&rung.key("after"), &raw.after.0);
            if let Some(after) = after {
                if !after.is_zero() && after <= last {
                    self.complain(
                        rung.key("after")
                            .error("each rung must come later than the one before")
                            .hint("all are counted from the first mail: after: 3h, then after: 6h"),
                    );
                }
                last = after;
            }
            let mails = self.mails(&rung.key("mail"), &raw.mail, ground.words, ground.damaged);
            escalate.push(Rung { after: last, mails });
        }
        Ladder { remind, escalate }
    }

    /// Only what opens a case can stay open.
    fn only_of_cases(&mut self, at: &At<'_>, key: &str, rule: &rules::Rule) {
        if rule.when.0.iter().all(opens_case) {
            return;
        }
        let hint = if rule.when.0.iter().any(opens_case) {
            "another trigger of this rule opens none; make two rules of it"
        } else {
            "an absence or a trouble does, and a job that fails; nothing else can be over"
        };
        self.complain(
            at.name(key)
                .error(format!("`{key}` needs a trigger that opens a case"))
                .hint(hint),
        );
    }

    fn remind(&mut self, at: &At<'_>, raw: &raw::Remind) -> Option<Remind> {
        let every = self.wait(&at.key("every"), &raw.every.0);
        let from = raw.from.as_deref().map(|text| self.hour(&at.key("from"), text));
        let until = raw.until.as_deref().map(|text| self.hour(&at.key("until"), text));
        let hours = match (from, until) {
            (None, None) => None,
            (Some(from), None) => Some(Hours {
                from: from?,
                until: Time::MAX,
            }),
            (None, Some(until)) => {
                let until = until?;
                let from = if until > MORNING { MORNING } else { Time::MIN };
                Some(Hours { from, until })
            }
            (Some(from), Some(until)) => Some(Hours {
                from: from?,
                until: until?,
            }),
        };
        if let Some(hours) = hours
            && hours.from == hours.until
        {
            let key = if raw.until.is_some() { "until" } else { "from" };
            self.complain(
                at.key(key)
                    .error("this leaves no time for a reminder")
                    .hint("as from: \"08:00\", until: \"18:00\"; without both they come at any hour"),
            );
        }
        if raw.at_most == Some(0) {
            self.complain(
                at.key("at_most")
                    .error("that is no reminder at all")
                    .hint("leave out `remind`, or write at least 1"),
            );
        }
        Some(Remind {
            every: every?,
            hours,
            at_most: raw.at_most,
        })
    }

    /// A time that is not nothing; a minute at least between two mails to the same people.
    fn wait(&mut self, at: &At<'_>, text: &str) -> Option<Duration> {
        let wait = self.checker.time(at, Some(text), Duration::MAX);
        if wait == Duration::MAX {
            return None;
        }
        if wait.is_zero() {
            self.complain(
                at.error("that is no time at all")
                    .hint("how long after the first mail: 30m, 2h, 1d"),
            );
        }
        Some(wait)
    }

    fn hour(&mut self, at: &At<'_>, text: &str) -> Option<Time> {
        let parsed = match text.split_once(':') {
            Some((hour, minute)) if hour.len() == 2 && minute.len() == 2 => {
                let number = |text: &str| {
                    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                    digits.then(|| text.parse::<i8>().ok()).flatten()
                };
                number(hour)
                    .zip(number(minute))
                    .and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok())
            }
            _ => None,
        };
        if parsed.is_none() {
            self.complain(
                at.error(format!("`{text}` is not a time of day"))
                    .hint("hours and minutes, in quotes: \"08:00\", \"18:30\"; the day ends at \"23:59\""),
            );
        }
        parsed
    }
}
