//! What is known of the case an event is about: whether a rule told of it, and how far its ladder was climbed.

use crate::dispatch::Plan;
use crate::dispatch::asked::PAUSED;
use crate::event::{Does, Event, EventId, Kind};
use crate::rule::Rule;
use crate::rule::facts::case::case_key;
use crate::rule::ladder::Climbed;
use crate::store::{EventFilter, GatherStep, Gathering, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How keys of ladders begin.
pub(super) const LADDER: &str = "case:";

/// How keys of recoveries begin that must wait for their opening to be told.
pub(super) const OVER: &str = "over:";

/// The rule did not tell of what is over now.
pub(super) const NOT_TOLD: &str = "not_told";

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
    pub(super) case: String,
    /// The event that opened it.
    pub(super) event: EventId,
    /// When it began.
    pub(super) opened: Timestamp,
    /// What was told.
    pub(super) climbed: Climbed,
}

impl Standing {
    pub(super) fn read(gathering: &Gathering) -> Option<Standing> {
        serde_json::from_value(gathering.state.clone()).ok()
    }

    pub(super) fn put(&self, rule: &str, due: Option<Timestamp>, events: Vec<EventId>) -> GatherStep {
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

    pub(super) fn end(&self, rule: &str) -> GatherStep {
        GatherStep::End {
            rule: rule.to_owned(),
            key: key(&self.case),
        }
    }
}

/// What the store says of a rule's ladder before the rule is asked about an event of its case.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The ladder there is.
    pub(super) standing: Option<Standing>,
    /// The case was over already, and that was dispatched: the event is asked about again.
    pub(super) passed: bool,
    /// The rule told of this end before: the event is asked about again.
    pub(super) told: bool,
    /// The opening waits to be told, until about then.
    pub(super) waits: Option<Timestamp>,
}

impl Known {
    /// What ends the ladder, if there is one.
    pub(super) fn end(&self, rule: &str) -> Option<GatherStep> {
        self.standing.as_ref().map(|standing| standing.end(rule))
    }
}

/// Whether the answer to an event may depend on a ladder. Such events are dispatched one by one.
pub(super) fn concerns(plan: &Plan, event: &Event) -> bool {
    let may =
        event.happening.case.is_some() || matches!(event.happening.kind, Kind::JobFails | Kind::JobSucceeds);
    may && plan
        .find(event)
        .iter()
        .any(|found| found.rule.follows_cases() && case_key(event, &found.rule.name).is_some())
}

/// Whether an event opens a case.
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
            known.told = before.iter().flat_map(|detail| &detail.verdicts).any(|verdict| {
                verdict.rule == rule.name && !matches!(verdict.outcome.as_str(), NOT_TOLD | PAUSED)
            });
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
                    && !verdicts.any(|verdict| verdict.rule == rule && verdict.outcome == PAUSED)
            });
            Ok(asked)
        }
        None => Ok(false),
    }
}

/// Until when an event of a rule still waits to be told, with others or for a time of day.
pub(super) async fn waits(
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
        if let Some(due) = store
            .gathering(rule, &key)
            .await?
            .and_then(|gathering| gathering.due)
        {
            until = until.max(Some(due.max(now.saturating_add(AGAIN).unwrap_or(now))));
        }
    }
    Ok(until)
}
