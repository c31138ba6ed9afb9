//! `tidings explain rule`: what a rule is for, when it is next due, what it did last, what it holds back.

use super::Sight;
use super::event;
use super::story::{Lines, Story, Times};
use super::suppose::{Answer, decide, supposed};
use super::trigger;
use crate::cli::{events, outbox, show};
use crate::entry::{Entry, State};
use crate::event::{Event, Kind, NewEvent};
use crate::rule::load::Setup;
use crate::rule::{Rule, Trigger};
use crate::source::Watch;
use crate::source::file::status::{self, Mode, WatchStatus};
use crate::source::schedule::Schedule;
use crate::store::{EntryFilter, EventDetail, EventFilter, Gathering, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Events told as its last ones.
const LAST: usize = 5;

/// What a rule did and has in hand.
#[derive(Debug, Default)]
pub struct Done {
    /// What it waits for, a clause a trigger.
    pub waits: Vec<String>,
    /// How often it said what in the last day.
    pub day: BTreeMap<String, u64>,
    /// The same of the last week.
    pub week: BTreeMap<String, u64>,
    /// The last events it was asked about, newest first.
    pub last: Vec<EventDetail>,
    /// What it gathers, and of how many events.
    pub gathers: Vec<(Gathering, usize)>,
    /// Its entries that are not done.
    pub open: Vec<Entry>,
    /// Watches it looks through, and how they are.
    pub watches: Vec<(Watch, Option<WatchStatus>)>,
    /// The moment asked about, and what it would do then for each of its schedules.
    pub at: Option<(Timestamp, Vec<Then>)>,
}

/// A schedule at the moment asked about.
#[derive(Clone, Debug)]
pub struct Then {
    /// As it is written.
    pub schedule: String,
    /// What the rule would make of it, where it is due exactly then.
    pub due: Option<Answer>,
    /// The next time after the moment.
    pub next: Option<Timestamp>,
}

/// Reads what a rule did.
pub async fn read(
    rule: &Rule,
    setup: &Setup,
    store: &Store,
    at: Option<Timestamp>,
    sight: &Sight,
) -> Result<Done, StoreError> {
    let now = sight.times.now;
    let ago = |hours| {
        now.checked_sub(SignedDuration::from_hours(hours))
            .unwrap_or(Timestamp::MIN)
    };
    let mut done = Done {
        waits: rule
            .triggers
            .iter()
            .map(|each| trigger::waits(each, &setup.watches))
            .collect(),
        day: store.said(&rule.name, ago(24)).await?,
        week: store.said(&rule.name, ago(7 * 24)).await?,
        ..Done::default()
    };
    let asked = EventFilter {
        rule: Some(rule.name.clone()),
        limit: LAST,
        ..EventFilter::default()
    };
    for event in store.events(asked).await? {
        done.last.extend(store.event(event.id).await?);
    }
    for gathering in store.gatherings(Some(&rule.name)).await? {
        let count = store.gathered(&rule.name, &gathering.key, 10_000).await?.len();
        done.gathers.push((gathering, count));
    }
    let open = EntryFilter {
        rule: Some(rule.name.clone()),
        states: State::ALL
            .into_iter()
            .filter(|state| !matches!(state, State::Accepted | State::Cancelled))
            .collect(),
        ..EntryFilter::default()
    };
    done.open = store.entries(open).await?;
    for trigger in &rule.triggers {
        let watch = match trigger {
            Trigger::FileRemoved { watch, .. } => watch,
            other => match other.arrival() {
                Some((watch, _)) => watch,
                None => continue,
            },
        };
        if done.watches.iter().any(|(known, _)| known.id == watch) {
            continue;
        }
        let Some(watch) = setup.watches.iter().find(|known| known.id == watch) else {
            continue;
        };
        let mark = store.marks(&status::mark(&watch.id)).await?.pop();
        let status = mark.and_then(|(_, mark)| serde_json::from_value(mark).ok());
        done.watches.push((watch.clone(), status));
    }
    done.at = at.map(|at| {
        let each = schedules(rule).map(|schedule| then(setup, store, rule, schedule, at));
        (at, each.collect())
    });
    Ok(done)
}

fn schedules(rule: &Rule) -> impl Iterator<Item = &Schedule> {
    rule.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Schedule(schedule) => Some(schedule),
        _ => None,
    })
}

/// What a schedule says of a moment.
fn then(setup: &Setup, store: &Store, rule: &Rule, schedule: &Schedule, at: Timestamp) -> Then {
    let second = SignedDuration::from_secs(1);
    let due = at
        .checked_sub(second)
        .ok()
        .and_then(|before| schedule.next(before))
        .filter(|slot| slot.duration_since(at) < second);
    let due = due.map(|slot| {
        let zoned = slot.to_zoned(setup.settings.defaults.timezone.clone());
        let facts = json!({
            "due": slot.display_with_offset(zoned.offset()).to_string(), "late": 0, "missed": false,
        });
        let happening = NewEvent {
            key: "explain".to_owned(),
            kind: Kind::Schedule,
            source: rule.name.clone(),
            subject: rule.name.clone(),
            time: slot,
            facts: Map::from_iter([("schedule".to_owned(), facts)]),
            file: None,
            origin: None,
            case: None,
        };
        decide(setup, store, rule, &supposed(happening, false), None)
    });
    Then {
        schedule: schedule.describe().to_owned(),
        due,
        next: schedule.next(at),
    }
}

/// What a rule made of an event: its verdicts there, in words.
fn made(detail: &EventDetail, rule: &str) -> String {
    let said: Vec<String> = detail
        .verdicts
        .iter()
        .filter(|verdict| verdict.rule == rule)
        .map(|verdict| events::said(&verdict.outcome, &verdict.detail))
        .collect();
    said.join("; ")
}

fn when(event: &Event) -> Timestamp {
    event.happening.time
}

fn headline(rule: &Rule, done: &Done, times: &Times) -> String {
    let what = match rule.description.as_deref().map(str::trim) {
        Some(text) if !text.is_empty() => text.trim_end_matches('.').to_owned(),
        _ => format!("when {}", done.waits.join(", or ")),
    };
    let fired = done.last.iter().find(|detail| {
        detail
            .verdicts
            .iter()
            .any(|v| v.rule == rule.name && v.outcome == "fired")
    });
    let last = match (fired, done.last.first()) {
        (Some(fired), _) => format!("It last fired {}.", times.how_far(when(&fired.event))),
        (None, Some(asked)) => format!(
            "It was last asked {} and did not fire.",
            times.how_far(when(&asked.event))
        ),
        (None, None) => "The journal knows of nothing that it was asked about.".to_owned(),
    };
    format!("Rule {}: {what}. {last}", rule.name)
}

/// The whole answer. Pure.
pub fn story(rule: &Rule, done: &Done, sight: &Sight) -> Story {
    let times = &sight.times;
    let mut story = Story::new(headline(rule, done, times));
    let mut says = Lines::default();
    for waits in &done.waits {
        says.pair(0, "when", waits.clone());
    }
    if let Some(condition) = &rule.condition {
        says.pair(0, "if", condition.source());
    }
    for (label, text) in trigger::does(rule) {
        says.pair(0, label, text);
    }
    says.pair(0, "written", rule.place.clone());
    story.part("What it says", says);
    story.part("What it waits for", waiting(rule, done, sight));
    story.part("What it did", did(rule, done, times));
    let mut holds = Lines::default();
    for (gathering, count) in &done.gathers {
        let due = gathering.due.map(|due| format!(", due {}", times.at(due)));
        holds.say(
            0,
            format!(
                "{} gathered as `{}`{}",
                show::count(*count as u64, "event"),
                gathering.key,
                due.unwrap_or_default()
            ),
        );
    }
    for entry in &done.open {
        holds.say(0, event::entry(entry, times));
    }
    story.part("What it holds or waits to do", holds);
    if let Some((at, each)) = &done.at {
        story.part("At the time asked about", at_a_time(rule, *at, each, done, times));
    }
    tell_machines(&mut story, rule, done);
    story
}

/// When it is next due, and whether what it waits for can be noticed at all.
fn waiting(rule: &Rule, done: &Done, sight: &Sight) -> Lines {
    let times = &sight.times;
    let mut lines = Lines::default();
    for schedule in schedules(rule) {
        lines.say(
            0,
            match schedule.next(times.now) {
                Some(next) => format!(
                    "{} is next due {} ({}).",
                    schedule.describe(),
                    times.day(next),
                    times.how_far(next)
                ),
                None => format!("{} is never due again.", schedule.describe()),
            },
        );
    }
    for (watch, status) in &done.watches {
        let root = watch.root.display();
        lines.say(
            0,
            match status {
                None => format!("{root}: nobody has looked into it yet."),
                Some(status) if status.mode == Mode::Away => format!(
                    "{root} cannot be looked at: {}",
                    status.why.as_deref().unwrap_or("it is away")
                ),
                Some(status) => {
                    let scan = status
                        .last_scan
                        .map(|time| format!(", last looked through {}", times.at(time)));
                    format!(
                        "{root}: {} known{}{}.",
                        show::count(status.known, "file"),
                        match status.candidates {
                            0 => String::new(),
                            count => format!(", {} not settled yet", show::count(count, "file")),
                        },
                        scan.unwrap_or_default()
                    )
                }
            },
        );
    }
    if !sight.running {
        lines.say(
            0,
            "Tidings is not running: nothing is noticed until `tidings run` is started.",
        );
    }
    lines
}

fn counts(counted: &BTreeMap<String, u64>) -> String {
    if counted.is_empty() {
        return "asked about nothing".to_owned();
    }
    let words: Vec<String> = counted
        .iter()
        .map(|(word, count)| match word.as_str() {
            "condition_false" => format!("{count} x condition said no"),
            word => format!("{count} x {}", word.replace('_', " ")),
        })
        .collect();
    words.join(", ")
}

fn did(rule: &Rule, done: &Done, times: &Times) -> Lines {
    let mut lines = Lines::default();
    lines.pair(0, "24 hours", counts(&done.day));
    lines.pair(0, "7 days", counts(&done.week));
    for detail in &done.last {
        let event = &detail.event;
        lines.say(
            0,
            format!(
                "{}, event {}: {}. It {}.",
                times.at(when(event)),
                event.id,
                event::happened(event),
                made(detail, &rule.name)
            ),
        );
        for entry in detail.entries.iter().filter(|entry| entry.rule == rule.name) {
            lines.say(1, event::entry(entry, times));
        }
    }
    lines
}

fn at_a_time(rule: &Rule, at: Timestamp, each: &[Then], done: &Done, times: &Times) -> Lines {
    let mut lines = Lines::default();
    lines.say(0, format!("{} ({}):", times.day(at), times.how_far(at)));
    for then in each {
        match &then.due {
            Some(answer) => {
                lines.say(0, format!("{} is due then.", then.schedule));
                answer.tell(&mut lines);
            }
            None => lines.say(0, format!("{} is not due then.", then.schedule)),
        }
        lines.say(
            0,
            match then.next {
                Some(next) => format!("After that it is due {}.", times.day(next)),
                None => "After that it is never due again.".to_owned(),
            },
        );
    }
    for (gathering, count) in &done.gathers {
        if let Some(due) = gathering.due {
            let when = if due <= at {
                "will have been told by then"
            } else {
                "waits still"
            };
            lines.say(
                0,
                format!(
                    "What is gathered as `{}` ({}) {when}: it is due {}.",
                    gathering.key,
                    show::count(*count as u64, "event"),
                    times.day(due)
                ),
            );
        }
    }
    if each.is_empty()
        && rule
            .triggers
            .iter()
            .any(|each| !matches!(each, Trigger::Schedule(_)))
    {
        lines.say(
            0,
            "It has no schedule: it answers whenever what it waits for happens, then as now.",
        );
    }
    lines
}

fn tell_machines(story: &mut Story, rule: &Rule, done: &Done) {
    story.with("rule", json!(rule.name));
    story.with("place", json!(rule.place));
    story.with("description", json!(rule.description));
    story.with("when", json!(done.waits));
    story.with(
        "if",
        json!(rule.condition.as_ref().map(|condition| condition.source())),
    );
    story.with("last_24h", json!(done.day));
    story.with("last_7d", json!(done.week));
    story.with("last", done.last.iter().map(events::detail_json).collect());
    story.with(
        "gathers",
        done.gathers
            .iter()
            .map(|(gathering, count)| {
                json!({
                    "key": gathering.key, "events": count,
                    "due": gathering.due.map(|due| due.to_string()),
                })
            })
            .collect(),
    );
    story.with("open", done.open.iter().map(outbox::as_json).collect());
    if let Some((at, each)) = &done.at {
        let each: Vec<Value> = each
            .iter()
            .map(|then| {
                json!({
                    "schedule": then.schedule, "due": then.due.is_some(),
                    "would": then.due.as_ref().map(Answer::to_json),
                    "next": then.next.map(|next| next.to_string()),
                })
            })
            .collect();
        story.with("at", json!({ "time": at.to_string(), "schedules": each }));
    }
}
