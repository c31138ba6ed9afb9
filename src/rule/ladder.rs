//! `remind` and `escalate`: what is told, and when, while a case stays open. Pure.
//!
//! All is counted from the moment the rule told of the case first. Reminders come every so often, within a
//! time of day if the rule says one; what would come outside it comes when it next begins, and `every` counts on
//! from there. Rungs come once each, in order, at any hour. After a long silence (the machine was off, the
//! rule paused) there is one reminder, not one for each that was missed, and every rung that came due.

use crate::action::email::MailSpec;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a rule says while a case is open.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    /// The rule's mails again and again.
    pub remind: Option<Remind>,
    /// Further mails, each once.
    pub escalate: Vec<Rung>,
}

impl Ladder {
    /// Whether the rule says anything while a case is open.
    pub fn is_some(&self) -> bool {
        self.remind.is_some() || !self.escalate.is_empty()
    }
}

/// `remind:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remind {
    /// From the first mail to the first reminder, and from one to the next.
    pub every: Duration,
    /// The time of day within which reminders are sent.
    pub hours: Option<Hours>,
    /// At most so many.
    pub at_most: Option<u32>,
}

/// A part of the day: from the first time, up to and including the second; over midnight if that is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// It begins.
    pub from: Time,
    /// It ends.
    pub until: Time,
}

/// One rung of `escalate:`.
#[derive(Clone, Debug)]
pub struct Rung {
    /// How long after the first mail.
    pub after: Duration,
    /// Whom to tell.
    pub mails: Vec<MailSpec>,
}

/// How far a ladder has been climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Climbed {
    /// When the case was told first.
    pub since: Timestamp,
    /// How many reminders were told.
    pub reminders: u32,
    /// When the last of them was to come; else `since`.
    pub last: Timestamp,
    /// How many rungs were told.
    pub rungs: usize,
}

impl Climbed {
    /// Told for the first time at `now`.
    pub fn begun(now: Timestamp) -> Climbed {
        Climbed {
            since: now,
            reminders: 0,
            last: now,
            rungs: 0,
        }
    }
}

/// One thing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// Reminder of that number, from 1.
    Reminder(u32),
    /// The rung at that place, from 0.
    Rung(usize),
}

/// What is to be said now, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// To be said now, in this order.
    pub say: Vec<Say>,
    /// How far the ladder is climbed then.
    pub climbed: Climbed,
    /// When something more may come; `None`: nothing will.
    pub due: Option<Timestamp>,
}

/// What `ladder` says at `now`, climbed so far, and when next. `zone` is where the time of day is told.
pub fn next(ladder: &Ladder, climbed: Climbed, zone: &TimeZone, now: Timestamp) -> Next {
    let mut climbed = climbed;
    let mut say = Vec::new();
    // Fewer rungs than were told: the rule was changed meanwhile. Nothing is told twice.
    while let Some(rung) = ladder.escalate.get(climbed.rungs) {
        if after(climbed.since, rung.after) > now {
            break;
        }
        say.push(Say::Rung(climbed.rungs));
        climbed.rungs += 1;
    }
    let mut due = ladder
        .escalate
        .get(climbed.rungs)
        .map(|rung| after(climbed.since, rung.after));
    if let Some(remind) = &ladder.remind {
        let planned = remind.planned(climbed, zone);
        if let Some(planned) = planned
            && planned <= now
            && remind.open_again(now, zone) == Some(now)
        {
            climbed.reminders += 1;
            // A little late is none the later next time; long late begins anew, or one would chase the other.
            climbed.last = if after(planned, remind.every) > now {
                planned
            } else {
                now
            };
            say.insert(0, Say::Reminder(climbed.reminders));
        }
        let next = remind
            .planned(climbed, zone)
            .and_then(|planned| remind.open_again(planned.max(now), zone));
        due = match (due, next) {
            (Some(rung), Some(reminder)) => Some(rung.min(reminder)),
            (rung, reminder) => rung.or(reminder),
        };
    }
    Next { say, climbed, due }
}

impl Remind {
    /// When the next reminder is to come; `None` when there were enough.
    fn planned(&self, climbed: Climbed, zone: &TimeZone) -> Option<Timestamp> {
        if self.at_most.is_some_and(|most| climbed.reminders >= most) {
            return None;
        }
        self.open_again(after(climbed.last, self.every), zone)
    }

    /// `time`, or when the hours for reminders begin next after it.
    fn open_again(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let Some(hours) = &self.hours else {
            return Some(time);
        };
        let local = time.to_zoned(zone.clone());
        if hours.contain(local.time()) {
            return Some(time);
        }
        // Where a clock change took `from` away, the day has it a little later: still after `time`.
        let mut date = local.date();
        for _ in 0..3 {
            let begins = date.to_datetime(hours.from).to_zoned(zone.clone()).ok()?;
            if begins.timestamp() > time {
                return Some(begins.timestamp());
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

impl Hours {
    /// Whether a time of day lies within. `until` counts to the end of its minute's first second, so that a
    /// reminder due at 18:00 sharp still comes at 18:00:00.4.
    fn contain(&self, time: Time) -> bool {
        let time = time.with().subsec_nanosecond(0).build().unwrap_or(time);
        if self.from <= self.until {
            self.from <= time && time <= self.until
        } else {
            time >= self.from || time <= self.until
        }
    }
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| time.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
