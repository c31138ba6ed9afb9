//! One rule asked about one event: its condition, then what it does and whom it tells.

use crate::dispatch::Plan;
use crate::entry::{Kind, NewEntry, Reason};
use crate::event::Event;
use crate::rule::demand::{Learned, Wish};
use crate::rule::facts::{self, Surroundings};
use crate::rule::index::{Branch, Why};
use crate::rule::{Outcome, Rule};
use crate::store::{Admission, RuleVerdict, Store};
use serde_json::Value;
use std::cell::RefCell;
use std::io;

/// What one event leads to. Reads files it must attach; changes nothing.
///
/// The error is our own disk's; what was written until then is given up.
pub(super) fn admission(
    event: &Event,
    plan: &Plan,
    store: &Store,
    now: jiff::Timestamp,
) -> io::Result<Admission> {
    let mut made = Admission {
        event: Some(event.id),
        entries: Vec::new(),
        verdicts: Vec::new(),
        ..Admission::default()
    };
    let learned = RefCell::default();
    for found in plan.find(event) {
        let asked = Asked {
            event,
            learned: &learned,
            rule: &found.rule,
            plan,
            store,
            now,
        };
        let answer = match found.why {
            Why::Trigger(_) => asked.triggered(&mut made.entries),
            Why::Outcome(branch) => asked.ended(branch, &mut made.entries),
        };
        let (outcome, detail) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                for entry in &made.entries {
                    store.spool().discard(&entry.body);
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
    /// What was read of the event's file, for all rules.
    pub(super) learned: &'a RefCell<Learned>,
    pub(super) rule: &'a Rule,
    pub(super) plan: &'a Plan,
    pub(super) store: &'a Store,
    pub(super) now: jiff::Timestamp,
}

impl Asked<'_> {
    fn facts(&self) -> Value {
        let zone = self.plan.settings.defaults.timezone.clone();
        let surroundings = Surroundings {
            host: self.plan.host.clone(),
            now: self.now.to_zoned(zone),
        };
        facts::facts(self.event, self.rule, &surroundings)
    }

    /// Completes the facts with what the rule must know of the file. Where that cannot be, the rule's answer is an
    /// entry that is held with the reason, and asked again when somebody retries it.
    fn learn(
        &self,
        wish: &Wish,
        facts: &mut Value,
        entries: &mut Vec<NewEntry>,
    ) -> Result<(), (&'static str, String)> {
        let told = self.learned.borrow_mut().tell(&self.event.happening, wish, facts);
        told.map_err(|why| {
            let text = format!("rule `{}` asks what stands in the file: {why}", self.rule.name);
            let mut entry = self.unmade(Kind::Mail, "facts", Reason::new(text.clone()));
            if let Some(held) = &mut entry.held {
                held.steps = vec![
                    "If a newer version of the file arrived, cancel this entry: that one is told by itself.".to_owned(),
                    "Else put the file back as it was, then say `tidings outbox retry` with this entry's number."
                        .to_owned(),
                ];
            }
            entries.push(entry);
            ("failed", text)
        })
    }

    /// A trigger of the rule met the event: condition, then work or mails.
    fn triggered(&self, entries: &mut Vec<NewEntry>) -> io::Result<(&'static str, String)> {
        let mut facts = self.facts();
        if let Err(failed) = self.learn(&self.rule.asks.condition, &mut facts, entries) {
            return Ok(failed);
        }
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
        if let Err(failed) = self.learn(&self.rule.asks.texts, &mut facts, entries) {
            return Ok(failed);
        }
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
        let mut facts = self.facts();
        if let Err(failed) = self.learn(&self.rule.asks.texts, &mut facts, entries) {
            return Ok(failed);
        }
        // Mails first: they freeze what they attach before a move is even admitted.
        self.mails(&outcome.mails, name, &facts, entries)?;
        if !outcome.work.is_empty() {
            self.work(&outcome.work, name, false, &facts, entries);
        }
        Ok(("fired", name.to_owned()))
    }
}
