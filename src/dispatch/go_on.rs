//! Rules that go on after a pause: what they kept is asked about again, or dropped.

use crate::dispatch::ask::{self, Round};
use crate::dispatch::ladder::{self, Known};
use crate::dispatch::pause::{Board, How, KEY, Kept, Resume, followed};
use crate::dispatch::{Dispatcher, Plan};
use crate::event::{Event, EventId};
use crate::rule::index::{Branch, Why};
use crate::store::{Admission, GatherStep, Gathering, RuleVerdict, StoreError};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Events let go in one go.
const PAGE: usize = 64;

impl Dispatcher {
    /// Lets those rules go on that shall.
    pub(super) async fn go_on(
        &self,
        plan: &Arc<Plan>,
        board: &Board,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for (key, resume) in &board.going_on {
            if let Some(kept) = self.store.gathering(&resume.rule, KEY).await? {
                self.let_go(plan, resume, Kept::of(Some(&kept)), now).await?;
            }
            if let Some(key) = key {
                followed(&self.store, key).await?;
            }
        }
        Ok(())
    }

    /// Sets the ladders after a start or a reload.
    pub(super) async fn retime(
        &self,
        plan: &Arc<Plan>,
        board: &Board,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = {
            let timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
            timed.upgrade().is_some_and(|timed| Arc::ptr_eq(&timed, plan))
        };
        if !known {
            ladder::retime(&self.store, plan, |rule| board.is_paused(rule), now).await?;
            *self.timed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(plan);
        }
        Ok(())
    }

    /// Each event in order, in a transaction of its own with how far this came: killed anywhere, it goes on there.
    async fn let_go(
        &self,
        plan: &Arc<Plan>,
        resume: &Resume,
        mut kept: Kept,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let rule = &resume.rule;
        tracing::info!(rule, by = resume.by, how = ?resume.how, "a paused rule goes on");
        loop {
            let after = kept.done.unwrap_or(EventId(0));
            let events = self.store.gathered_after(rule, KEY, after, PAGE).await?;
            if events.is_empty() {
                break;
            }
            for event in events {
                kept.done = Some(event.id);
                let mut made = self.one(plan, resume, &event, now).await?;
                made.gathers.push(kept.put(rule, Vec::new()));
                self.admit(vec![made]).await?;
            }
        }
        let mut made = Admission::default();
        made.gathers.push(GatherStep::End {
            rule: rule.clone(),
            key: KEY.to_owned(),
        });
        for (key, due) in kept.stopped {
            // What has come to life by itself meanwhile, or is over, is left alone.
            if let Some(stopped) = self.store.gathering(rule, &key).await?
                && stopped.due.is_none()
            {
                let due = Some(due);
                made.gathers
                    .push(GatherStep::Put(Gathering { due, ..stopped }, Vec::new()));
            }
        }
        self.admit(vec![made]).await
    }

    /// What becomes of one event.
    async fn one(
        &self,
        plan: &Arc<Plan>,
        resume: &Resume,
        event: &Event,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let rule = &resume.rule;
        let mut known = HashMap::new();
        if let Some(loaded) = plan.rules.get(rule)
            && let Some(ladder) = Known::read(&self.store, loaded, event, now).await?
        {
            known.insert(rule.clone(), ladder);
        }
        let mut made = match resume.how {
            How::Drop => {
                let mut made = settled(event, rule, "dropped", format!("it came while the rule was paused; {} dropped it", resume.by));
                // That the case is over is not told, but it is over.
                let ends = plan
                    .find(event)
                    .iter()
                    .any(|found| found.rule.name == *rule && found.why == Why::Outcome(Branch::Recovery));
                let ladder = known.get(rule).filter(|_| ends);
                made.gathers.extend(ladder.and_then(|ladder| ladder.end(rule)));
                made
            }
            How::Send if ladder::is_over(&self.store, event).await? => settled(
                event,
                rule,
                "over",
                "it was over before the rule went on after its pause".to_owned(),
            ),
            How::Send => {
                let round = Round {
                    plan: Arc::clone(plan),
                    store: self.store.clone(),
                    now,
                    board: Board::default(),
                    known,
                };
                let (event, rule) = (event.clone(), rule.clone());
                match self.prepared(move || ask::again(&event, &rule, &round)).await {
                    Some(Ok(made)) => made,
                    Some(Err(source)) => return Err(self.no_space(source)),
                    // Told already; it is tried again.
                    None => return Err(self.no_space(std::io::Error::other("a mail could not be prepared"))),
                }
            }
        };
        // What the other rules said stands.
        let before = self.store.verdicts(event.id).await?;
        let ours = std::mem::take(&mut made.verdicts);
        let mut ours = if ours.is_empty() {
            before.iter().filter(|verdict| verdict.rule == *rule).cloned().collect()
        } else {
            ours
        };
        for verdict in before {
            if verdict.rule != *rule {
                made.verdicts.push(verdict);
            } else {
                made.verdicts.append(&mut ours);
            }
        }
        made.verdicts.append(&mut ours);
        Ok(made)
    }
}

fn settled(event: &Event, rule: &str, outcome: &str, detail: String) -> Admission {
    Admission {
        event: Some(event.id),
        verdicts: vec![RuleVerdict {
            rule: rule.to_owned(),
            outcome: outcome.to_owned(),
            detail,
        }],
        ..Admission::default()
    }
}
