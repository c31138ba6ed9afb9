//! Paused rules: they are asked, and keep what they would have done until a person lets them go on.
//!
//! Any process may pause and resume: it writes marks, and the dispatcher, which reads them before each batch of
//! events, does what they say. Only the dispatcher touches what is kept: a gathering of the rule under [`KEY`],
//! with the events that would have led to something, and when that which the rule gathers otherwise was due.
//!
//! ```text
//!   mark pause:RULE   since, until, reason, by  -->  events join the gathering `paused`, verdict `paused`
//!   mark resume:N     rule, send or drop, by    -->  each event is asked about again, or dropped
//!   the time of `until` has passed              -->  the same as resume with send
//! ```

use crate::event::EventId;
use crate::store::{GatherStep, Gathering, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Under which key a paused rule keeps its events.
pub const KEY: &str = "paused";

const PAUSE: &str = "pause:";
const RESUME: &str = "resume:";

/// A rule that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Which rule.
    pub rule: String,
    /// Since when.
    pub since: Timestamp,
    /// When it goes on by itself.
    pub until: Option<Timestamp>,
    /// Why, in the person's words.
    pub reason: Option<String>,
    /// Who paused it.
    pub by: String,
    /// It is over: the rule was resumed.
    #[serde(default)]
    over: bool,
}

impl Pause {
    /// One that begins now.
    pub fn new(
        rule: &str,
        since: Timestamp,
        until: Option<Timestamp>,
        reason: Option<String>,
        by: &str,
    ) -> Pause {
        Pause {
            rule: rule.to_owned(),
            since,
            until,
            reason,
            by: by.to_owned(),
            over: false,
        }
    }

    /// Whether it holds at `now`.
    fn holds(&self, now: Timestamp) -> bool {
        !self.over && self.until.is_none_or(|until| now < until)
    }
}

/// What becomes of that which happened while a rule was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Each goes its way, as its rule says.
    Send,
    /// It is not told, and its verdict says so.
    Drop,
}

/// A person's word that a rule goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resume {
    /// Which rule.
    pub rule: String,
    /// What becomes of that which waits.
    pub how: How,
    /// Who said so.
    pub by: String,
}

/// The rules that are paused at `now`, by name.
pub async fn paused(store: &Store, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    Ok(marks(store)
        .await?
        .into_iter()
        .filter(|pause| pause.holds(now))
        .collect())
}

async fn marks(store: &Store) -> Result<Vec<Pause>, StoreError> {
    let marks = store.marks(PAUSE).await?;
    // One that a newer version wrote in another way is left to it.
    Ok(marks
        .into_iter()
        .filter_map(|(_, mark)| serde_json::from_value(mark).ok())
        .collect())
}

/// Pauses rules; one that is paused already is from now on as this says.
pub async fn pause(store: &Store, pauses: Vec<Pause>) -> Result<(), StoreError> {
    let marks = pauses
        .into_iter()
        .map(|pause| (format!("{PAUSE}{}", pause.rule), json!(pause)));
    store.set_marks(marks.collect()).await
}

/// Lets rules go on. What waits is dealt with by the dispatcher, within a second or when it next runs.
pub async fn resume(store: &Store, pauses: Vec<Pause>, how: How, by: &str) -> Result<(), StoreError> {
    let mut written = Vec::new();
    for (number, pause) in pauses.into_iter().enumerate() {
        let resume = Resume {
            rule: pause.rule.clone(),
            how,
            by: by.to_owned(),
        };
        // In the order in which they were said; the process tells two of them apart.
        let time = Timestamp::now().as_microsecond();
        let key = format!("{RESUME}{time:020}-{}-{number:06}.", std::process::id());
        written.push((key, json!(resume)));
        written.push((
            format!("{PAUSE}{}", pause.rule),
            json!(Pause { over: true, ..pause }),
        ));
    }
    store.set_marks(written).await
}

/// How many events wait because a rule is paused.
pub async fn waiting(store: &Store, rule: &str) -> Result<u64, StoreError> {
    store.count_gathered(rule, KEY).await
}

/// What the dispatcher keeps of a rule that is paused, beside its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What else the rule gathers and would have been due: by key, and when.
    pub stopped: BTreeMap<String, Timestamp>,
    /// Events up to this one are let go already.
    pub done: Option<EventId>,
}

impl Kept {
    pub(super) fn of(gathering: Option<&Gathering>) -> Kept {
        gathering
            .and_then(|gathering| serde_json::from_value(gathering.state.clone()).ok())
            .unwrap_or_default()
    }

    pub(super) fn put(&self, rule: &str, events: Vec<EventId>) -> GatherStep {
        GatherStep::Put(
            Gathering {
                rule: rule.to_owned(),
                key: KEY.to_owned(),
                state: json!(self),
                due: None,
            },
            events,
        )
    }
}

/// What is to be done about paused rules before a batch of events.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The rules that are paused, and what is kept of them.
    held: BTreeMap<String, (Pause, Kept)>,
    /// The rules that go on, in order; with the key of the mark that said so.
    pub going_on: Vec<(Option<String>, Resume)>,
}

impl Board {
    /// Reads it. Must be read after the events it is asked about, so that what was recorded after a rule was
    /// paused finds it paused.
    pub(super) async fn read(store: &Store, now: Timestamp) -> Result<Board, StoreError> {
        let mut board = Board::default();
        for (key, mark) in store.marks(RESUME).await? {
            match serde_json::from_value(mark) {
                Ok(resume) => board.going_on.push((Some(key), resume)),
                Err(error) => tracing::warn!(key, %error, "what resumes a rule cannot be read"),
            }
        }
        for pause in marks(store).await? {
            let kept = store.gathering(&pause.rule, KEY).await?;
            if pause.holds(now) {
                let kept = Kept::of(kept.as_ref());
                board.held.insert(pause.rule.clone(), (pause, kept));
            } else if kept.is_some() && board.going_on.iter().all(|(_, resume)| resume.rule != pause.rule) {
                board.going_on.push((
                    None,
                    Resume {
                        rule: pause.rule,
                        how: How::Send,
                        by: pause.by,
                    },
                ));
            }
        }
        Ok(board)
    }

    /// Whether a rule is paused.
    pub(super) fn is_paused(&self, rule: &str) -> bool {
        self.held.contains_key(rule)
    }

    /// Keeps an event of a paused rule; what its verdict says.
    pub(super) fn keep(&self, rule: &str, event: EventId, gathers: &mut Vec<GatherStep>) -> Option<String> {
        let (pause, kept) = self.held.get(rule)?;
        let mut kept = kept.clone();
        if kept.done >= Some(event) {
            // It comes again; what was let go comes again with it, and its mails have their keys.
            kept.done = None;
        }
        gathers.push(kept.put(rule, vec![event]));
        let mut text = format!("paused by {}", pause.by);
        if let Some(reason) = &pause.reason {
            text = format!("{text}: {reason}");
        }
        Some(text)
    }

    /// Stops what fell due of a paused rule until the rule goes on; `None` if the rule is not paused.
    pub(super) fn stop(&mut self, gathering: &Gathering) -> Option<Vec<GatherStep>> {
        let (_, kept) = self.held.get_mut(&gathering.rule)?;
        let due = gathering.due?;
        kept.stopped.insert(gathering.key.clone(), due);
        let still = Gathering {
            due: None,
            ..gathering.clone()
        };
        Some(vec![
            kept.put(&gathering.rule, Vec::new()),
            GatherStep::Put(still, Vec::new()),
        ])
    }
}

/// Forgets a person's word, after it was followed.
pub(super) async fn followed(store: &Store, key: &str) -> Result<(), StoreError> {
    store.delete_marks(key).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_holds_until_its_time_or_until_somebody_ends_it() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (nine, ten) = (at("2026-03-02T09:00:00Z"), at("2026-03-02T10:00:00Z"));
        let open = Pause::new("a", nine, None, None, "ops");
        assert!(open.holds(ten));
        let timed = Pause {
            until: Some(ten),
            ..open.clone()
        };
        assert!(timed.holds(nine) && !timed.holds(ten));
        assert!(!Pause { over: true, ..open }.holds(nine));
    }
}
