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
use crate::dispatch::asked::{Asked, FIRED, Made, Said, Unready};
use crate::dispatch::desk::Desk;
use crate::dispatch::gathering;
use crate::dispatch::known::{Known, LADDER, NOT_TOLD, OVER, Standing, key, opens, waits};
use crate::dispatch::pause::Board;
use crate::event::{Event, EventId};
use crate::rule::facts::case::{CaseFacts, case_key};
use crate::rule::index::Branch;
use crate::rule::ladder::{self, Climbed, Say};
use crate::store::{GatherStep, Gathering, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;

/// Told after its opening.
const WAITS: &str = "waits";

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
    pub(super) fn over(&self, desk: &mut Desk, made: &mut Made) -> Result<Said, Unready> {
        let rule = self.rule.name.as_str();
        let (Some(known), Some(case)) = (desk.known.get(rule).cloned(), case_key(self.event, rule)) else {
            return Ok((NOT_TOLD, "this rule follows no cases".to_owned()));
        };
        // Whoever told of it, nothing that waits is right any more.
        made.main.over.push(case.clone());
        if known.standing.is_none() && !known.told {
            return Ok((NOT_TOLD, "the rule did not tell of it before".to_owned()));
        }
        made.main.gathers.extend(known.end(rule));
        if !self.rule.work.is_empty() || !self.rule.on_recovery.says_something() {
            return Ok((
                "closed",
                "the case is over; nothing more is told of it".to_owned(),
            ));
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
            made.main.gathers.push(GatherStep::Put(
                Gathering {
                    rule: rule.to_owned(),
                    key: format!("{OVER}{}", self.event.id),
                    state: json!(later),
                    due: Some(until),
                },
                vec![self.event.id],
            ));
            return Ok((WAITS, "told after what it answers, which still waits".to_owned()));
        }
        let said = self.recovery(&case, opened, desk, made)?;
        Ok(said.unwrap_or_else(|| (FIRED, Branch::Recovery.as_str().to_owned())))
    }

    fn recovery(
        &self,
        case: &str,
        opened: Timestamp,
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<Option<Said>, Unready> {
        let ended = self.event.happening.time;
        let facts = self.case_facts(case, opened, ended, None);
        let part = Branch::Recovery.as_str();
        self.tell(part, &self.rule.on_recovery.mails, facts, desk, made)
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

    /// The mails of a reminder or a rung.
    fn mails_of(&self, say: Say) -> &[MailSpec] {
        match say {
            Say::Reminder(_) => &self.rule.mails,
            Say::Rung(place) => {
                let rung = self.rule.ladder.escalate.get(place);
                rung.map_or(&[], |rung| rung.mails.as_slice())
            }
        }
    }

    /// A reminder or a rung.
    fn say(&self, standing: &Standing, say: Say, desk: &mut Desk, made: &mut Made) -> Result<(), Unready> {
        let part = match say {
            Say::Reminder(number) => format!("remind-{number}"),
            Say::Rung(place) => format!("escalate-{}", place + 1),
        };
        let facts = self.case_facts(&standing.case, standing.opened, self.now, Some(say));
        let mut entries = Vec::new();
        let composed = self.mails(self.mails_of(say), &part, &facts, &mut entries);
        for entry in &mut entries {
            entry.of_case = Some(standing.case.clone());
            if entry.held.is_some() && entry.effect.is_empty() {
                // When a person has mended it, this makes it anew.
                let again = Again {
                    again: say,
                    standing: standing.clone(),
                };
                made.main.gathers.push(GatherStep::Put(
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
        if desk.pass(&self.rule.name, entries.len()) {
            made.main.entries.extend(entries);
        } else {
            gathering::hold(entries, &self.rule.name, self.event.happening.kind, desk, made);
        }
        Ok(composed?)
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

    /// What follows from it. Composes mails, so it may block.
    pub(super) fn settle(&self, desk: &mut Desk) -> Result<Made, Unready> {
        let mut made = Made::default();
        desk.begin();
        match self.step(desk, &mut made) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.discard(&desk.store);
                desk.undo();
                Err(error)
            }
        }
    }

    fn step(&self, desk: &mut Desk, made: &mut Made) -> Result<(), Unready> {
        let (plan, store) = (Arc::clone(&desk.plan), desk.store.clone());
        let end = GatherStep::End {
            rule: self.gathering.rule.clone(),
            key: self.gathering.key.clone(),
        };
        let rule = plan.rules.get(&self.gathering.rule);
        let (Some(rule), Some(event)) = (rule.filter(|rule| rule.follows_cases()), &self.event) else {
            made.main.gathers.push(end);
            return Ok(());
        };
        let learned = RefCell::default();
        let asked = Asked {
            event,
            learned: &learned,
            rule,
            plan: &plan,
            store: &store,
            now: desk.now,
            nth: 0,
        };
        match &self.step {
            Step::Climb(standing) => self.climb(standing, &asked, desk, made),
            Step::Again(again) => {
                made.main.gathers.push(end);
                if self.open {
                    asked.say(&again.standing, again.again, desk, made)?;
                }
                Ok(())
            }
            Step::Recover(later) => {
                match self.waits {
                    Some(until) => made.main.gathers.push(self.at(Some(until))),
                    None => {
                        made.main.gathers.push(end);
                        asked.recovery(&later.case, later.opened, desk, made)?;
                    }
                }
                Ok(())
            }
        }
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

    fn climb(
        &self,
        standing: &Standing,
        asked: &Asked<'_>,
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<(), Unready> {
        let gathers = &mut made.main.gathers;
        if !self.open {
            // The event that it is over is on its way, and needs the proof that the rule told of it.
            gathers.push(self.at(None));
            return Ok(());
        }
        let rule = asked.rule;
        let zone = &asked.plan.settings.defaults.timezone;
        if let Some(until) = self.waits {
            // Nobody knows of it yet: all is counted from when they do.
            let climbed = Climbed::begun(until);
            let due = ladder::next(&rule.ladder, climbed, zone, until).due;
            let standing = Standing {
                climbed,
                ..standing.clone()
            };
            gathers.push(standing.put(&rule.name, due, Vec::new()));
            return Ok(());
        }
        if let Some(quiet) = &rule.telling.quiet
            && let Some(until) = quiet.until(asked.now)
        {
            gathers.push(self.at(Some(until)));
            return Ok(());
        }
        let next = ladder::next(&rule.ladder, standing.climbed, zone, asked.now);
        let standing = Standing {
            climbed: next.climbed,
            ..standing.clone()
        };
        gathers.push(standing.put(&rule.name, next.due, Vec::new()));
        for say in next.say {
            asked.say(&standing, say, desk, made)?;
        }
        Ok(())
    }
}

/// Whether a gathering is one of a ladder.
pub(super) fn is_ours(gathering: &Gathering) -> bool {
    Step::of(gathering).is_some()
}

/// Sets a ladder to what its rule says now: after a start or a reload, when `remind` may say something else. That
/// of a rule that is paused goes on when the rule does.
pub(super) fn retimed(
    plan: &Plan,
    gathering: &Gathering,
    board: &Board,
    now: Timestamp,
) -> Option<GatherStep> {
    let standing = match Step::of(gathering) {
        Some(Step::Climb(standing)) if !board.is_paused(&gathering.rule) => standing,
        _ => return None,
    };
    let rule = plan.rules.get(&gathering.rule)?;
    let zone = &plan.settings.defaults.timezone;
    let next = ladder::next(&rule.ladder, standing.climbed, zone, now);
    let due = if next.say.is_empty() { next.due } else { Some(now) };
    (due != gathering.due).then(|| standing.put(&gathering.rule, due, Vec::new()))
}
