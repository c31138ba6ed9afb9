//! Gathering: when the mails of a rule leave. Pure.
//!
//! A rule's condition held, its work ended: now somebody is to be told. What stands in the way, in this order:
//!
//! ```text
//!   event --> throttle --> group --> quiet hours --> (fuse) --> mail
//!                |           |            |
//!             counted,    joined,       held,
//!             told by     told by       told by
//!             the next    the digest    one digest at their end
//! ```
//!
//! [`arrive`] says what becomes of an event, [`fall_due`] what becomes of that which was gathered when its time
//! has come. Both take how things stand and return how they stand from then on, with a sentence for people.
//! They keep nothing: the dispatcher writes what they return in the transaction that admits the event.
//!
//! A group is due a while after its *first* event, never later for others that join: a digest is late by at
//! most that time.

use crate::event::EventId;
use crate::rule::quiet::QuietHours;
use crate::source::schedule::instant;
use crate::template::Text;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most events in one digest: what more there is makes another one.
pub const MOST: usize = 1000;

/// How the mails of a rule are gathered before they leave. The default: not at all.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// How many mails at most.
    pub throttle: Option<Throttle>,
    /// Many events, one mail.
    pub group: Option<Group>,
    /// When nobody is told.
    pub quiet: Option<QuietHours>,
}

impl Telling {
    /// Whether each event is told at once.
    pub fn is_plain(&self) -> bool {
        self.throttle.is_none() && self.group.is_none() && self.quiet.is_none()
    }
}

/// Many events, one mail.
#[derive(Clone, Debug)]
pub struct Group {
    /// Events for which this gives the same text belong together; `None`: all of them.
    pub by: Option<Text>,
    /// How long after its first event it is told, where `at` is empty.
    pub wait: Duration,
    /// Times of day at which it is told.
    pub at: Vec<Time>,
    /// Zone of `at`, and of times for people.
    pub zone: TimeZone,
    /// It is told at once when so many are in it; 1 to [`MOST`].
    pub max: usize,
}

impl Group {
    /// When a group is due whose first event came `now`.
    fn due(&self, now: Timestamp) -> Timestamp {
        let today = now.to_zoned(self.zone.clone()).date();
        let days = (0..3).filter_map(|days: i64| today.checked_add(days.days()).ok());
        days.flat_map(|day| self.at.iter().map(move |time| day.to_datetime(*time)))
            .filter_map(|wall| instant(&self.zone, wall))
            .filter(|due| *due > now)
            .min()
            .unwrap_or_else(|| later(now, self.wait))
    }
}

/// How many mails at most.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// How many mails may go in that time.
    pub at_most: usize,
    /// In which time.
    pub per: Duration,
    /// Counted apart for each text this gives; `None`: all together.
    pub by: Option<Text>,
    /// Zone of times for people.
    pub zone: TimeZone,
}

/// Events that were not told one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// How many.
    pub count: u64,
    /// Since when.
    pub since: Timestamp,
}

impl Folded {
    fn and(this: Option<Folded>, other: Option<Folded>) -> Option<Folded> {
        match (this, other) {
            (Some(a), Some(b)) => Some(Folded {
                count: a.count.saturating_add(b.count),
                since: a.since.min(b.since),
            }),
            (a, b) => a.or(b),
        }
    }
}

/// How a throttle stands under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When mails went, as long as that counts.
    pub sent: Vec<Timestamp>,
    /// What was folded since the last of them.
    pub folded: Option<Folded>,
}

impl Window {
    /// When there is nothing left to remember; `None` while something is to be told.
    pub fn due(&self, throttle: &Throttle) -> Option<Timestamp> {
        let last = self.sent.iter().max()?;
        self.folded.is_none().then(|| later(*last, throttle.per))
    }
}

/// Events gathered to be told together. Which ones they are, the store knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What they have in common, as `by` gave it; may be empty.
    pub key: String,
    /// How many.
    pub count: usize,
    /// When the first of them happened.
    pub first: Timestamp,
    /// When the last of them happened.
    pub last: Timestamp,
    /// What a throttle folded before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<Folded>,
    /// Whom the rule would have told, should it be gone when this is due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Addressed>,
}

impl Batch {
    /// Of one event.
    pub fn of(event: &Arriving<'_>, key: &str, folded: Option<Folded>) -> Batch {
        Batch {
            key: key.to_owned(),
            count: 1,
            first: event.time,
            last: event.time,
            folded,
            told: Vec::new(),
        }
    }

    /// With another one.
    pub fn and(self, other: Batch) -> Batch {
        let mut told = self.told;
        for (number, more) in other.told.into_iter().enumerate() {
            match told.get_mut(number) {
                Some(known) => known.and(more),
                None => told.push(more),
            }
        }
        Batch {
            key: if self.key == other.key {
                self.key
            } else {
                String::new()
            },
            count: self.count.saturating_add(other.count),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            folded: Folded::and(self.folded, other.folded),
            told,
        }
    }
}

/// Whom one mail of a rule goes to, as text: what can be kept when the rule is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed {
    /// The account.
    pub account: String,
    /// From.
    pub from: String,
    /// To and Cc.
    pub to: Vec<String>,
    /// Bcc.
    pub bcc: Vec<String>,
}

impl Addressed {
    /// With further recipients.
    pub fn and(&mut self, more: Addressed) {
        for (list, more) in [(&mut self.to, more.to), (&mut self.bcc, more.bcc)] {
            for address in more {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
        }
    }
}

/// An event about to be told.
#[derive(Clone, Copy, Debug)]
pub struct Arriving<'a> {
    /// Which one.
    pub id: EventId,
    /// When it happened.
    pub time: Timestamp,
    /// Under which key it is throttled.
    pub throttle_key: &'a str,
    /// With which others it belongs together.
    pub group_key: &'a str,
}

/// How things stand for one rule and one kind of news of it.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Of the throttle, under the event's key.
    pub window: Option<Window>,
    /// Of the group the event belongs to, and when it is due.
    pub group: Option<(Batch, Timestamp)>,
    /// Of what is held for the quiet hours.
    pub quiet: Option<Batch>,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is told now, with what was folded before it.
    Tell(Option<Folded>),
    /// It is counted, and told with the next one that goes.
    Throttled,
    /// It joined a group, which is due then.
    Grouped(Batch, Timestamp),
    /// It waits for the end of the quiet hours.
    Quiet(Batch, Timestamp),
}

/// [`arrive`]'s answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// How the throttle stands from now on, where the rule has one.
    pub window: Option<Window>,
    /// What becomes of the event.
    pub decision: Decision,
    /// Why, for people; empty where it is simply told.
    pub reason: String,
}

/// Decides about an event that is to be told. `gathers`: it is news to be throttled and grouped; the good news
/// that something is over is not, and only kept for the end of the quiet hours.
pub fn arrive(
    telling: &Telling,
    gathers: bool,
    standing: Standing,
    event: &Arriving<'_>,
    now: Timestamp,
) -> Arrival {
    let mut window = None;
    let mut folded = None;
    if let (true, Some(throttle)) = (gathers, &telling.throttle) {
        let mut state = standing.window.unwrap_or_default();
        let since = earlier(now, throttle.per);
        // What the clock says went in the future went before it was set back.
        state.sent = state.sent.into_iter().map(|then| then.min(now)).collect();
        state.sent.retain(|then| *then > since);
        if state.sent.len() >= throttle.at_most {
            let one = Folded {
                count: 1,
                since: event.time.min(now),
            };
            state.folded = Folded::and(state.folded, Some(one));
            let folded = state.folded.as_ref().map_or(1, |folded| folded.count);
            let again = state.sent.first().map(|first| later(*first, throttle.per));
            let reason = format!(
                "{} {} in {} {}{}; counted, {folded} so far, and told with the next mail{}",
                state.sent.len(),
                if state.sent.len() == 1 { "mail" } else { "mails" },
                span(throttle.per),
                if state.sent.len() == 1 {
                    "was enough"
                } else {
                    "were enough"
                },
                about(event.throttle_key),
                again.map_or_else(String::new, |again| format!(
                    " that goes after {}",
                    clock(again, now, &throttle.zone)
                )),
            );
            return Arrival {
                window: Some(state),
                decision: Decision::Throttled,
                reason,
            };
        }
        state.sent.push(now);
        folded = state.folded.take();
        window = Some(state);
    }
    if let (true, Some(group)) = (gathers, &telling.group) {
        let one = Batch::of(event, event.group_key, folded);
        let (batch, mut due) = match standing.group {
            Some((batch, due)) => (batch.and(one), due),
            None => (one, group.due(now)),
        };
        let what = if event.group_key.is_empty() {
            "the digest".to_owned()
        } else {
            format!("the digest of {}", event.group_key)
        };
        let reason = if batch.count >= group.max {
            due = now;
            format!("filled {what} ({} events), due now", batch.count)
        } else {
            format!("joined {what}, due {}", clock(due, now, &group.zone))
        };
        return Arrival {
            window,
            decision: Decision::Grouped(batch, due),
            reason,
        };
    }
    if let Some(quiet) = &telling.quiet
        && let Some(until) = quiet.until(now)
    {
        let one = Batch::of(event, "", folded);
        let batch = match standing.quiet {
            Some(batch) => batch.and(one),
            None => one,
        };
        return Arrival {
            window,
            decision: Decision::Quiet(batch, until),
            reason: format!("quiet hours until {}", clock(until, now, &quiet.zone)),
        };
    }
    Arrival {
        window,
        decision: Decision::Tell(folded),
        reason: String::new(),
    }
}

/// What was gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A group.
    Group,
    /// What was held for the quiet hours.
    Quiet,
    /// What the fuse summed up.
    Summary,
}

/// What becomes of that which was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is told now.
    Release,
    /// It is held for the quiet hours, with what is held there already.
    Hold(Timestamp),
    /// It stays as it is until then.
    Wait(Timestamp),
}

/// Decides about what is gathered when its time has come, with the reason.
pub fn fall_due(telling: &Telling, what: What, now: Timestamp) -> (Due, String) {
    let quiet = telling.quiet.as_ref();
    match quiet.and_then(|quiet| Some((quiet.until(now)?, quiet))) {
        None => (Due::Release, "its time has come".to_owned()),
        Some((until, quiet)) => {
            let reason = format!("quiet hours until {}", clock(until, now, &quiet.zone));
            match what {
                What::Group => (Due::Hold(until), reason),
                What::Quiet | What::Summary => (Due::Wait(until), reason),
            }
        }
    }
}

/// A time for people: of the day, with the date where that is another one.
pub fn clock(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if at.date() == now.date() {
        "%H:%M"
    } else {
        "%Y-%m-%d %H:%M"
    };
    at.strftime(format).to_string()
}

fn about(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!(" for {key}")
    }
}

/// `1h`, `1h 30m`, `45s`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if said.is_empty() {
        format!("{}ms", time.as_millis())
    } else {
        said.join(" ")
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
