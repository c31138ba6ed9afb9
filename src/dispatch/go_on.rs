//! Rules that go on after a pause: what they kept is asked about again, or dropped.

use crate::dispatch::ask;
use crate::dispatch::asked::{Made, Unready};
use crate::dispatch::known::{self, Known};
use crate::dispatch::pause::{Board, How, KEY, Kept, Resume, followed};
use crate::dispatch::{Dispatcher, Memory, Plan};
use crate::event::{Event, EventId};
use crate::rule::index::{Branch, Why};
use crate::store::{Admission, GatherStep, Gathering, RuleVerdict, StoreError};
use std::sync::Arc;

/// Events let go in one go.
const PAGE: usize = 64;

impl Dispatcher {
    /// Lets those rules go on that shall.
    pub(super) async fn go_on(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        board: &Board,
    ) -> Result<(), StoreError> {
        for (key, resume) in &board.going_on {
            if let Some(kept) = self.store.gathering(&resume.rule, KEY).await? {
                self.let_go(memory, plan, resume, Kept::of(Some(&kept))).await?;
            }
            if let Some(key) = key {
                followed(&self.store, key).await?;
            }
        }
        Ok(())
    }

    /// Each event in order, in a transaction of its own with how far this came: killed anywhere, it goes on there.
    async fn let_go(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        resume: &Resume,
        mut kept: Kept,
    ) -> Result<(), StoreError> {
        let rule = &resume.rule;
        tracing::info!(rule, by = resume.by, how = ?resume.how, "a paused rule goes on");
        let mut made = Admission::default();
        for (key, due) in std::mem::take(&mut kept.stopped) {
            // What has come to life by itself meanwhile, or is over, is left alone.
            if let Some(stopped) = self.store.gathering(rule, &key).await?
                && stopped.due.is_none()
            {
                let due = Some(due);
                made.gathers
                    .push(GatherStep::Put(Gathering { due, ..stopped }, Vec::new()));
            }
        }
        made.gathers.push(kept.put(rule, Vec::new()));
        self.store.admit(vec![made]).await?;
        loop {
            let after = kept.done.unwrap_or(EventId(0));
            let events = self.store.gathered_after(rule, KEY, after, PAGE).await?;
            if events.is_empty() {
                break;
            }
            for event in events {
                kept.done = Some(event.id);
                self.one(memory, plan, resume, &event, &kept).await?;
            }
        }
        let mut made = Admission::default();
        made.gathers.push(GatherStep::End {
            rule: rule.clone(),
            key: KEY.to_owned(),
        });
        self.store.admit(vec![made]).await?;
        memory.asked = None;
        Ok(())
    }

    /// One event is let go.
    async fn one(
        &self,
        memory: &mut Memory,
        plan: &Arc<Plan>,
        resume: &Resume,
        event: &Event,
        kept: &Kept,
    ) -> Result<(), StoreError> {
        let rule = &resume.rule;
        let mut desk = self.desk(memory, plan).await?;
        if let Some(loaded) = plan.rules.get(rule)
            && let Some(known) = Known::read(&self.store, loaded, event, desk.now).await?
        {
            desk.known.insert(rule.clone(), known);
        }
        let mut made = match resume.how {
            How::Drop => {
                let why = format!("it came while the rule was paused; {} dropped it", resume.by);
                let mut made = settled(event, rule, "dropped", why);
                // That the case is over is not told, but it is over.
                let ends = plan
                    .find(event)
                    .iter()
                    .any(|found| found.rule.name == *rule && found.why == Why::Outcome(Branch::Recovery));
                let ladder = desk.known.get(rule).filter(|_| ends);
                made.main
                    .gathers
                    .extend(ladder.and_then(|ladder| ladder.end(rule)));
                made
            }
            How::Send if known::is_over(&self.store, event).await? => {
                let why = "it was over before the rule went on after its pause";
                settled(event, rule, "over", why.to_owned())
            }
            How::Send => {
                let (of, name) = (event.clone(), rule.clone());
                let asked = tokio::task::spawn_blocking(move || {
                    let made = ask::again(&of, &name, &mut desk);
                    (made, desk)
                });
                match asked.await {
                    Ok((made, back)) => {
                        desk = back;
                        match made {
                            Ok(made) => made,
                            Err(error) => {
                                memory.fuses = Some(desk.fuses);
                                return Err(self.unready(error));
                            }
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, event = %event.id, rule, "preparing effects failed");
                        return Err(self.unready(Unready::Disk(std::io::Error::other(error))));
                    }
                }
            }
        };
        let before = self.store.verdicts(event.id).await?;
        made.main.verdicts = with_others(before, rule, std::mem::take(&mut made.main.verdicts));
        made.main.gathers.push(kept.put(rule, Vec::new()));
        let admissions = made.into_admissions().collect();
        self.admit(memory, &mut desk, admissions).await?;
        memory.fuses = Some(desk.fuses);
        Ok(())
    }
}

/// What the other rules said stands; what the rule said now comes where it stood before.
fn with_others(before: Vec<RuleVerdict>, rule: &str, now: Vec<RuleVerdict>) -> Vec<RuleVerdict> {
    if now.is_empty() {
        // The rule is gone, or the event concerns it no longer.
        return before;
    }
    let at = before
        .iter()
        .position(|verdict| verdict.rule == rule)
        .unwrap_or(before.len());
    let mut all: Vec<RuleVerdict> = before
        .into_iter()
        .filter(|verdict| verdict.rule != rule)
        .collect();
    let at = at.min(all.len());
    all.splice(at..at, now);
    all
}

fn settled(event: &Event, rule: &str, outcome: &str, detail: String) -> Made {
    let mut made = Made::default();
    made.main.event = Some(event.id);
    made.main.verdicts.push(RuleVerdict {
        rule: rule.to_owned(),
        outcome: outcome.to_owned(),
        detail,
    });
    made
}
