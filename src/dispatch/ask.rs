//! One rule asked about one event: its condition, then what it does and whom it tells.

use crate::dispatch::Plan;
use crate::dispatch::ladder::Known;
use crate::dispatch::pause::Board;
use crate::entry::{Kind, NewEntry, Reason};
use crate::event::Event;
use crate::rule::facts::{self, Surroundings, case_key};
use crate::rule::index::{Branch, Match, Why};
use crate::rule::{Outcome, Rule};
use crate::store::{Admission, RuleVerdict, Store};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// What rules are asked with.
#[derive(Debug)]
pub(super) struct Round {
    /// The rules, and what they need.
    pub plan: Arc<Plan>,
    /// Where large mails are spooled.
    pub store: Store,
    /// The time.
    pub now: jiff::Timestamp,
    /// Which rules are paused.
    pub board: Board,
    /// What is known of the ladders of rules, where the one event at hand is about a case.
    pub known: HashMap<String, Known>,
}

/// What one event leads to. Reads files it must attach; changes nothing.
///
/// The error is our own disk's; what was written until then is given up.
pub(super) fn admission(event: &Event, round: &Round) -> io::Result<Admission> {
    put(event, round, |_| true)
}

/// The same for one rule alone, which was paused when it was asked first.
pub(super) fn again(event: &Event, rule: &str, round: &Round) -> io::Result<Admission> {
    put(event, round, |found| found.rule.name == rule)
}

fn put(event: &Event, round: &Round, asks: impl Fn(&Match) -> bool) -> io::Result<Admission> {
    let mut made = Admission {
        event: Some(event.id),
        ..Admission::default()
    };
    for found in round.plan.find(event).iter().filter(|found| asks(found)) {
        let asked = Asked {
            event,
            rule: &found.rule,
            plan: &round.plan,
            store: &round.store,
            now: round.now,
        };
        let (outcome, detail) = match asked.answer(found.why, round, &mut made) {
            Ok(answer) => answer,
            Err(error) => {
                for entry in &made.entries {
                    round.store.spool().discard(&entry.body);
                }
                return Err(error);
            }
        };
        made.verdicts.push(RuleVerdict {
            rule: found.rule.name.clone(),
            outcome: outcome.to_owned(),
            detail,
        });
    }
    Ok(made)
}

/// One rule asked about one event.
pub(super) struct Asked<'a> {
    pub(super) event: &'a Event,
    pub(super) rule: &'a Rule,
    pub(super) plan: &'a Plan,
    pub(super) store: &'a Store,
    pub(super) now: jiff::Timestamp,
}

impl Asked<'_> {
    pub(super) fn facts(&self) -> Value {
        let zone = self.plan.settings.defaults.timezone.clone();
        let surroundings = Surroundings {
            host: self.plan.host.clone(),
            now: self.now.to_zoned(zone),
        };
        facts::facts(self.event, self.rule, &surroundings)
    }

    fn answer(&self, why: Why, round: &Round, made: &mut Admission) -> io::Result<(&'static str, String)> {
        let name = &self.rule.name;
        let known = round.known.get(name);
        let case = case_key(self.event, name);
        if round.board.is_paused(name) {
            return Ok(self.paused(why, case, &round.board, made));
        }
        match (why, case) {
            (Why::Trigger(_), _) => {
                let answer = self.triggered(&mut made.entries)?;
                if answer.0 == "fired" {
                    self.follow(known, &mut made.gathers);
                }
                Ok(answer)
            }
            (Why::Outcome(Branch::Recovery), Some(_)) => self.over(known, made),
            (Why::Outcome(branch), _) => self.ended(branch, &mut made.entries),
        }
    }

    /// The rule is paused: what would follow is kept. Its condition is asked all the same, so that nothing waits
    /// which never leads to anything.
    fn paused(
        &self,
        why: Why,
        case: Option<String>,
        board: &Board,
        made: &mut Admission,
    ) -> (&'static str, String) {
        if let (Why::Trigger(_), Some(condition)) = (why, &self.rule.condition)
            && let Ok(decision) = condition.check(&self.facts())
            && !decision.holds
        {
            return ("condition_false", decision.why);
        }
        if let (Why::Outcome(Branch::Recovery), Some(case)) = (why, case) {
            // Reminders that wait are wrong from now on, whenever the rule goes on.
            made.over.push(case);
        }
        let text = board.keep(&self.rule.name, self.event.id, &mut made.gathers);
        ("paused", text.unwrap_or_default())
    }

    /// A trigger of the rule met the event: condition, then work or mails.
    fn triggered(&self, entries: &mut Vec<NewEntry>) -> io::Result<(&'static str, String)> {
        let facts = self.facts();
        let why = match self
            .rule
            .condition
            .as_ref()
            .map(|condition| condition.check(&facts))
        {
            None => String::new(),
            Some(Ok(decision)) if decision.holds => decision.why,
            Some(Ok(decision)) => return Ok(("condition_false", decision.why)),
            Some(Err(error)) => {
                let text = format!("the condition of rule `{}` failed: {error}", self.rule.name);
                entries.push(self.unmade(Kind::Mail, "if", Reason::new(text.clone())));
                return Ok(("failed", text));
            }
        };
        if self.rule.work.is_empty() {
            self.mails(&self.rule.mails, "mail", &facts, entries)?;
        } else {
            self.work(&self.rule.work, "work", true, &facts, entries);
        }
        Ok(("fired", why))
    }

    /// The rule's own work ended.
    fn ended(&self, branch: Branch, entries: &mut Vec<NewEntry>) -> io::Result<(&'static str, String)> {
        let (outcome, name): (&Outcome, _) = match branch {
            Branch::Success => (&self.rule.on_success, "on_success"),
            Branch::Failure => (&self.rule.on_failure, "on_failure"),
            Branch::Recovery => (&self.rule.on_recovery, "on_recovery"),
        };
        let facts = self.facts();
        // Mails first: they freeze what they attach before a move is even admitted.
        self.mails(&outcome.mails, name, &facts, entries)?;
        if !outcome.work.is_empty() {
            self.work(&outcome.work, name, false, &facts, entries);
        }
        Ok(("fired", name.to_owned()))
    }
}
