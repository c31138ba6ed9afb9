//! Cases a rule told of: what it says while one stays open, and that it is over.
//!
//! The rule that fired on an opening keeps a gathering under [`key`] with the opening as its event, until the
//! event that the case is over. It is the proof that the rule told of the case: without it nothing is said of its
//! end. When it falls due, the next reminder or rung is composed, if the case is still open. A job that fails is
//! a case of its name, until the job ends well.
//!
//! ```text
//!   opening --fires--> [ gathering case:KEY ] --due, still open--> reminder, rung
//!                             |
//!   closing ------------------+--> on_recovery, at once or when the opening was told
//! ```

use crate::action::email::MailSpec;
use crate::dispatch::Plan;
use crate::dispatch::ask::Asked;
use crate::entry::NewEntry;
use crate::event::{Does, Event, EventId, Kind};
use crate::rule::Rule;
use crate::rule::facts::{CaseFacts, case_key};
use crate::rule::index::Branch;
use crate::rule::ladder::{self, Climbed, Say};
use crate::store::{Admission, EventFilter, GatherStep, Gathering, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;

/// How keys of ladders begin.
pub(super) const LADDER: &str = "case:";

/// How keys of recoveries begin that must wait for their opening to be told.
pub(super) const OVER: &str = "over:";

/// When to look again where nothing says when.
const AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Under which key a rule gathers a case.
pub(super) fn key(case: &str) -> String {
    format!("{LADDER}{case}")
}

/// The state of a ladder, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The case.
    case: String,
    /// The event that opened it.
    event: EventId,
    /// When it began.
    opened: Timestamp,
    /// What was told.
    climbed: Climbed,
}

impl Standing {
    fn read(gathering: &Gathering) -> Option<Standing> {
        serde_json::from_value(gathering.state.clone()).ok()
    }

    fn put(&self, rule: &str, due: Option<Timestamp>, events: Vec<EventId>) -> GatherStep {
        GatherStep::Put(
            Gathering {
                rule: rule.to_owned(),
                key: key(&self.case),
                state: json!(self),
                due,
            },
            events,
        )
    }

    fn end(&self, rule: &str) -> GatherStep {
        GatherStep::End {
            rule: rule.to_owned(),
            key: key(&self.case),
        }
    }
}

/// A mail of a ladder that could not be composed, kept under the key of its entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Again {
    again: Say,
    standing: Standing,
}

/// A recovery that must come after its opening.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Later {
    case: String,
    opened: Timestamp,
    opening: EventId,
    event: EventId,
}

/// What the store says of a rule's ladder before the rule is asked about an event of its case.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The ladder there is.
    standing: Option<Standing>,
    /// The case was over already, and that was dispatched: the event is asked about again.
    passed: bool,
    /// The rule told of this end before: the event is asked about again.
    told: bool,
    /// The opening waits to be told, until about then.
    waits: Option<Timestamp>,
}

impl Known {
    /// What ends the ladder, if there is one.
    pub(super) fn end(&self, rule: &str) -> Option<GatherStep> {
        self.standing.as_ref().map(|standing| standing.end(rule))
    }
}

/// Whether the answer to an event may depend on a ladder. Such events are dispatched one by one.
pub(super) fn concerns(plan: &Plan, event: &Event) -> bool {
    let may = event.happening.case.is_some() || matches!(event.happening.kind, Kind::JobFails | Kind::JobSucceeds);
    may && plan
        .find(event)
        .iter()
        .any(|found| found.rule.follows_cases() && case_key(event, &found.rule.name).is_some())
}

pub(super) fn opens(event: &Event) -> bool {
    match &event.happening.case {
        Some(step) => step.does == Does::Opens,
        None => event.happening.kind == Kind::JobFails,
    }
}

/// Whether an event opened a case that is over by now. A job that failed has failed, whatever came after.
pub(super) async fn is_over(store: &Store, event: &Event) -> Result<bool, StoreError> {
    match &event.happening.case {
        Some(step) if step.does == Does::Opens => {
            let open = store.open_case_of(&step.key).await?;
            Ok(open.is_none_or(|case| case.event != Some(event.id)))
        }
        _ => Ok(false),
    }
}

impl Known {
    /// Reads it. `None` where the rule follows no cases, or the event is none.
    pub(super) async fn read(
        store: &Store,
        rule: &Rule,
        event: &Event,
        now: Timestamp,
    ) -> Result<Option<Known>, StoreError> {
        let (true, Some(case)) = (rule.follows_cases(), case_key(event, &rule.name)) else {
            return Ok(None);
        };
        let mut known = Known::default();
        let kept = store.gathering(&rule.name, &key(&case)).await?;
        known.standing = kept.as_ref().and_then(Standing::read);
        if opens(event) {
            known.passed = known.standing.is_none() && passed(store, &rule.name, event).await?;
        } else if let Some(standing) = &known.standing {
            known.waits = waits(store, &rule.name, standing.event, now).await?;
        } else {
            let before = store.event(event.id).await?;
            known.told = before
                .iter()
                .flat_map(|detail| &detail.verdicts)
                .any(|verdict| verdict.rule == rule.name && verdict.outcome == "fired");
        }
        Ok(Some(known))
    }
}

/// Whether what this event opened is over, and the rule was asked about that.
async fn passed(store: &Store, rule: &str, opening: &Event) -> Result<bool, StoreError> {
    let happening = &opening.happening;
    let filter = match &happening.case {
        Some(step) => {
            let open = store.open_case_of(&step.key).await?;
            if open.is_some_and(|case| case.event == Some(opening.id)) {
                return Ok(false);
            }
            EventFilter {
                case: Some(step.key.clone()),
                limit: 1,
                ..EventFilter::default()
            }
        }
        None => EventFilter {
            kind: Some(Kind::JobSucceeds),
            subject: Some(happening.subject.clone()),
            ..EventFilter::default()
        },
    };
    let later = store
        .events(EventFilter {
            after: Some(opening.id),
            ..filter
        })
        .await?;
    // The subject of a filter is a part; the case's is exact.
    let end = later
        .iter()
        .find(|event| happening.case.is_some() || event.happening.subject == happening.subject);
    match end {
        Some(end) => {
            // A rule that was paused will be asked about it yet.
            let asked = store.event(end.id).await?.is_some_and(|detail| {
                let mut verdicts = detail.verdicts.iter();
                detail.dispatched.is_some()
                    && !verdicts.any(|verdict| verdict.rule == rule && verdict.outcome == "paused")
            });
            Ok(asked)
        }
        None => Ok(false),
    }
}

/// Until when an event of a rule still waits to be told, with others or for a time of day.
async fn waits(
    store: &Store,
    rule: &str,
    event: EventId,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut until = None;
    for (owner, key) in store.gathered_in(event).await? {
        if owner != rule || key.starts_with(LADDER) || key.starts_with(OVER) {
            continue;
        }
        // What is due at no time is no promise to tell it.
        if let Some(due) = store.gathering(rule, &key).await?.and_then(|gathering| gathering.due) {
            until = until.max(Some(due.max(now.saturating_add(AGAIN).unwrap_or(now))));
        }
    }
    Ok(until)
}

impl Asked<'_> {
    /// The rule fired: if that opened a case, it is followed from now on.
    pub(super) fn follow(&self, known: Option<&Known>, gathers: &mut Vec<GatherStep>) {
        let (Some(known), Some(case)) = (known, case_key(self.event, &self.rule.name)) else {
            return;
        };
        if !opens(self.event) || known.passed {
            return;
        }
        if let Some(standing) = &known.standing {
            // A job that fails again goes on being the same case.
            if self.event.happening.case.is_none() || standing.event == self.event.id {
                return;
            }
            gathers.push(standing.end(&self.rule.name));
        }
        let standing = Standing {
            case,
            event: self.event.id,
            opened: self.event.happening.time,
            climbed: Climbed::begun(self.now),
        };
        let zone = &self.plan.settings.defaults.timezone;
        let next = ladder::next(&self.rule.ladder, standing.climbed, zone, self.now);
        gathers.push(standing.put(&self.rule.name, next.due, vec![self.event.id]));
    }

    /// A case is over.
    pub(super) fn over(
        &self,
        known: Option<&Known>,
        made: &mut Admission,
    ) -> io::Result<(&'static str, String)> {
        let (Some(known), Some(case)) = (known, case_key(self.event, &self.rule.name)) else {
            return Ok(("not_told", "this rule follows no cases".to_owned()));
        };
        // Whoever told of it, nothing that waits is right any more.
        made.over.push(case.clone());
        if known.standing.is_none() && !known.told {
            return Ok(("not_told", "the rule did not tell of it before".to_owned()));
        }
        let rule = &self.rule.name;
        if let Some(standing) = &known.standing {
            made.gathers.push(standing.end(rule));
        }
        if !self.rule.work.is_empty() || !self.rule.on_recovery.says_something() {
            return Ok(("closed", "the case is over; nothing more is told of it".to_owned()));
        }
        let opened = known
            .standing
            .as_ref()
            .map_or(self.event.happening.time, |standing| standing.opened);
        if let (Some(until), Some(standing)) = (known.waits, &known.standing) {
            let later = Later {
                case,
                opened,
                opening: standing.event,
                event: self.event.id,
            };
            made.gathers.push(GatherStep::Put(
                Gathering {
                    rule: rule.clone(),
                    key: format!("{OVER}{}", self.event.id),
                    state: json!(later),
                    due: Some(until),
                },
                vec![self.event.id],
            ));
            return Ok(("waits", "told after what it answers, which still waits".to_owned()));
        }
        self.recovery(&case, opened, &mut made.entries)?;
        Ok(("fired", Branch::Recovery.as_str().to_owned()))
    }

    fn recovery(&self, case: &str, opened: Timestamp, entries: &mut Vec<NewEntry>) -> io::Result<()> {
        let ended = self.event.happening.time;
        let facts = self.case_facts(case, opened, ended, None);
        self.mails(&self.rule.on_recovery.mails, "on_recovery", &facts, entries)
    }

    /// The facts of the event, with how its case stands.
    fn case_facts(&self, case: &str, opened: Timestamp, at: Timestamp, say: Option<Say>) -> Value {
        let zone = &self.plan.settings.defaults.timezone;
        let (reminder, escalation) = match say {
            None => (0, 0),
            Some(Say::Reminder(number)) => (number, 0),
            Some(Say::Rung(place)) => (0, place + 1),
        };
        let mut facts = self.facts();
        facts["case"] = json!(CaseFacts {
            key: case.to_owned(),
            opened: opened.display_with_offset(zone.to_offset(opened)).to_string(),
            open_for: at.duration_since(opened).as_secs().max(0),
            reminder,
            escalation,
        });
        facts
    }

    /// A reminder or a rung.
    fn say(&self, standing: &Standing, say: Say, made: &mut Admission) -> io::Result<()> {
        let none: &[MailSpec] = &[];
        let (mails, part) = match say {
            Say::Reminder(number) => (self.rule.mails.as_slice(), format!("remind-{number}")),
            Say::Rung(place) => (
                self.rule
                    .ladder
                    .escalate
                    .get(place)
                    .map_or(none, |rung| rung.mails.as_slice()),
                format!("escalate-{}", place + 1),
            ),
        };
        let facts = self.case_facts(&standing.case, standing.opened, self.now, Some(say));
        let mut entries = Vec::new();
        self.mails(mails, &part, &facts, &mut entries)?;
        for entry in &mut entries {
            entry.of_case = Some(standing.case.clone());
            if entry.held.is_some() && entry.effect.is_empty() {
                // When a person has mended it, this makes it anew.
                let again = Again {
                    again: say,
                    standing: standing.clone(),
                };
                made.gathers.push(GatherStep::Put(
                    Gathering {
                        rule: self.rule.name.clone(),
                        key: entry.key.clone(),
                        state: json!(again),
                        due: None,
                    },
                    vec![self.event.id],
                ));
            }
        }
        made.entries.extend(entries);
        Ok(())
    }
}

/// Something of a ladder that fell due, with what the store says about it.
#[derive(Debug)]
pub(super) struct Due {
    gathering: Gathering,
    step: Step,
    /// The opening; for a recovery the event that it is over.
    event: Option<Event>,
    /// The case is open.
    open: bool,
    /// The opening waits to be told, until about then.
    waits: Option<Timestamp>,
}

#[derive(Debug)]
enum Step {
    Climb(Standing),
    Again(Again),
    Recover(Later),
}

impl Step {
    fn of(gathering: &Gathering) -> Option<Step> {
        let state = || gathering.state.clone();
        if gathering.key.starts_with(LADDER) {
            serde_json::from_value(state()).ok().map(Step::Climb)
        } else if gathering.key.starts_with(OVER) {
            serde_json::from_value(state()).ok().map(Step::Recover)
        } else {
            serde_json::from_value(state()).ok().map(Step::Again)
        }
    }
}

impl Due {
    /// Reads what must be known about it; `None` where it is not one of ours.
    pub(super) async fn read(
        store: &Store,
        gathering: &Gathering,
        now: Timestamp,
    ) -> Result<Option<Due>, StoreError> {
        let Some(step) = Step::of(gathering) else {
            return Ok(None);
        };
        let rule = &gathering.rule;
        let event = store.gathered(rule, &gathering.key, 1).await?.pop();
        let opening = match &step {
            Step::Climb(standing) | Step::Again(Again { standing, .. }) => standing.event,
            Step::Recover(later) => later.opening,
        };
        let open = match (&step, &event) {
            (Step::Recover(_), _) | (_, None) => false,
            (Step::Climb(standing) | Step::Again(Again { standing, .. }), Some(event)) => {
                match &event.happening.case {
                    Some(step) => {
                        let open = store.open_case_of(&step.key).await?;
                        open.is_some_and(|case| case.event == Some(opening))
                    }
                    // A job's ladder ends with its next success.
                    None => {
                        let kept = store.gathering(rule, &key(&standing.case)).await?;
                        let kept = kept.as_ref().and_then(Standing::read);
                        kept.is_some_and(|kept| kept.event == opening)
                    }
                }
            }
        };
        Ok(Some(Due {
            waits: waits(store, rule, opening, now).await?,
            gathering: gathering.clone(),
            step,
            event,
            open,
        }))
    }

    /// What follows from it. Composes mails, so it may block; the error is our own disk's.
    pub(super) fn settle(&self, plan: &Plan, store: &Store, now: Timestamp) -> io::Result<Admission> {
        let mut made = Admission::default();
        let end = GatherStep::End {
            rule: self.gathering.rule.clone(),
            key: self.gathering.key.clone(),
        };
        let rule = plan.rules.get(&self.gathering.rule);
        let (Some(rule), Some(event)) = (rule.filter(|rule| rule.follows_cases()), &self.event) else {
            made.gathers.push(end);
            return Ok(made);
        };
        let asked = Asked {
            event,
            rule,
            plan,
            store,
            now,
        };
        match &self.step {
            Step::Climb(standing) => self.climb(standing, &asked, &mut made)?,
            Step::Again(again) => {
                made.gathers.push(end);
                if self.open {
                    asked.say(&again.standing, again.again, &mut made)?;
                }
            }
            Step::Recover(later) => match self.waits {
                Some(until) => made.gathers.push(self.at(Some(until))),
                None => {
                    made.gathers.push(end);
                    asked.recovery(&later.case, later.opened, &mut made.entries)?;
                }
            },
        }
        Ok(made)
    }

    /// As it is, due then.
    fn at(&self, due: Option<Timestamp>) -> GatherStep {
        GatherStep::Put(
            Gathering {
                due,
                ..self.gathering.clone()
            },
            Vec::new(),
        )
    }

    fn climb(&self, standing: &Standing, asked: &Asked<'_>, made: &mut Admission) -> io::Result<()> {
        if !self.open {
            // The event that it is over is on its way, and needs the proof that the rule told of it.
            made.gathers.push(self.at(None));
            return Ok(());
        }
        let zone = &asked.plan.settings.defaults.timezone;
        let steps = &asked.rule.ladder;
        if let Some(until) = self.waits {
            // Nobody knows of it yet: all is counted from when they do.
            let climbed = Climbed::begun(until);
            let due = ladder::next(steps, climbed, zone, until).due;
            let standing = Standing {
                climbed,
                ..standing.clone()
            };
            made.gathers.push(standing.put(&asked.rule.name, due, Vec::new()));
            return Ok(());
        }
        let next = ladder::next(steps, standing.climbed, zone, asked.now);
        let standing = Standing {
            climbed: next.climbed,
            ..standing.clone()
        };
        for say in next.say {
            asked.say(&standing, say, made)?;
        }
        made.gathers.push(standing.put(&asked.rule.name, next.due, Vec::new()));
        Ok(())
    }
}

/// Sets the ladders to what their rules say now: after a start or a reload, when `remind` may say something else.
/// Those of rules that are paused go on when the rule does.
pub(super) async fn retime(
    store: &Store,
    plan: &Plan,
    paused: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut made = Admission::default();
    for gathering in store.gatherings(None).await? {
        let standing = match Step::of(&gathering) {
            Some(Step::Climb(standing)) if !paused(&gathering.rule) => standing,
            _ => continue,
        };
        let Some(rule) = plan.rules.get(&gathering.rule) else {
            continue;
        };
        let zone = &plan.settings.defaults.timezone;
        let next = ladder::next(&rule.ladder, standing.climbed, zone, now);
        let due = if next.say.is_empty() { next.due } else { Some(now) };
        if due != gathering.due {
            made.gathers.push(standing.put(&gathering.rule, due, Vec::new()));
        }
    }
    if !made.gathers.is_empty() {
        store.admit(vec![made]).await?;
    }
    Ok(())
}
