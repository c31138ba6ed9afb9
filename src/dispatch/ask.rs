//! One rule asked about one event: its condition, then what it does and whom it tells.

use crate::dispatch::asked::{Asked, CONDITION_FALSE, FAILED, FIRED, Made, PAUSED, Said, Unready};
use crate::dispatch::desk::Desk;
use crate::entry::{Kind, Reason};
use crate::event::Event;
use crate::rule::demand::{Learned, Wish};
use crate::rule::facts::case::case_key;
use crate::rule::index::{Branch, Match, Why};
use crate::store::RuleVerdict;
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;

/// What one event leads to. Reads files it must attach; changes nothing.
///
/// With an error, what was written until then is given up.
pub(super) fn admission(event: &Event, desk: &mut Desk) -> Result<Made, Unready> {
    put(event, desk, |_| true)
}

/// The same for one rule alone, which was paused when it was asked first.
pub(super) fn again(event: &Event, rule: &str, desk: &mut Desk) -> Result<Made, Unready> {
    put(event, desk, |found| found.rule.name == rule)
}

fn put(event: &Event, desk: &mut Desk, asks: impl Fn(&Match) -> bool) -> Result<Made, Unready> {
    let plan = Arc::clone(&desk.plan);
    let store = desk.store.clone();
    let mut made = Made::default();
    made.main.event = Some(event.id);
    desk.begin();
    let learned = RefCell::<Learned>::default();
    for found in plan.find(event).into_iter().filter(asks) {
        let same = |verdict: &&RuleVerdict| verdict.rule == found.rule.name;
        let asked = Asked {
            event,
            learned: &learned,
            rule: &found.rule,
            plan: &plan,
            store: &store,
            now: desk.now,
            nth: made.main.verdicts.iter().filter(same).count(),
        };
        match asked.answer(found.why, desk, &mut made) {
            Ok((outcome, detail)) => {
                let verdict = RuleVerdict {
                    rule: found.rule.name.clone(),
                    outcome: outcome.to_owned(),
                    detail,
                };
                if !found.rule.telling.is_plain() {
                    desk.note(event, asked.nth, &verdict);
                }
                made.main.verdicts.push(verdict);
            }
            Err(error) => {
                made.discard(&store);
                desk.undo();
                return Err(error);
            }
        }
    }
    Ok(made)
}

impl Asked<'_> {
    /// Completes the facts with what the rule must know of the file. Where that cannot be, the rule's answer is an
    /// entry that is held with the reason, and asked again when somebody retries it.
    fn learn(&self, wish: &Wish, facts: &mut Value, made: &mut Made) -> Result<(), Said> {
        let told =
            self.learned
                .borrow_mut()
                .tell(&self.plan.settings.ground, &self.event.happening, wish, facts);
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
            made.main.entries.push(entry);
            (FAILED, text)
        })
    }

    fn answer(&self, why: Why, desk: &mut Desk, made: &mut Made) -> Result<Said, Unready> {
        let name = &self.rule.name;
        let case = case_key(self.event, name);
        if desk.board.is_paused(name) {
            return Ok(self.paused(why, case, desk, made));
        }
        match (why, case) {
            (Why::Trigger(_), _) => {
                let said = self.triggered(desk, made)?;
                if !matches!(said.0, CONDITION_FALSE | FAILED) {
                    self.follow(desk.known.get(name), &mut made.main.gathers);
                }
                Ok(said)
            }
            (Why::Outcome(Branch::Recovery), Some(_)) => self.over(desk, made),
            (Why::Outcome(branch), _) => self.ended(branch, desk, made),
        }
    }

    /// The rule is paused: what would follow is kept. Its condition is asked all the same, so that nothing waits
    /// which never leads to anything.
    fn paused(&self, why: Why, case: Option<String>, desk: &Desk, made: &mut Made) -> Said {
        let mut facts = self.facts();
        // What cannot be read is kept, and found out when the rule goes on.
        let wish = &self.rule.asks.condition;
        let learned = self.learned.borrow_mut().tell(
            &self.plan.settings.ground,
            &self.event.happening,
            wish,
            &mut facts,
        );
        if let (Why::Trigger(_), Some(condition), Ok(())) = (why, &self.rule.condition, learned)
            && let Ok(decision) = condition.check(&facts)
            && !decision.holds
        {
            return (CONDITION_FALSE, decision.why);
        }
        if let (Why::Outcome(Branch::Recovery), Some(case)) = (why, case) {
            // Reminders that wait are wrong from now on, whenever the rule goes on.
            made.main.over.push(case);
        }
        let kept = desk
            .board
            .keep(&self.rule.name, self.event.id, &mut made.main.gathers);
        (PAUSED, kept.unwrap_or_default())
    }

    /// A trigger of the rule met the event: condition, then work or mails.
    fn triggered(&self, desk: &mut Desk, made: &mut Made) -> Result<Said, Unready> {
        let mut facts = self.facts();
        if let Err(failed) = self.learn(&self.rule.asks.condition, &mut facts, made) {
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
            Some(Ok(decision)) => return Ok((CONDITION_FALSE, decision.why)),
            Some(Err(error)) => {
                let text = format!("the condition of rule `{}` failed: {error}", self.rule.name);
                let unmade = self.unmade(Kind::Mail, "if", Reason::new(text.clone()));
                made.main.entries.push(unmade);
                return Ok((FAILED, text));
            }
        };
        if let Err(failed) = self.learn(&self.rule.asks.texts, &mut facts, made) {
            return Ok(failed);
        }
        if self.rule.work.is_empty() {
            self.emit(&self.rule.emits, "emit", &facts, &mut made.main);
            let said = self.tell("mail", &self.rule.mails, facts, desk, made)?;
            return Ok(said.unwrap_or((FIRED, why)));
        }
        self.work(&self.rule.work, "work", true, &facts, &mut made.main.entries);
        Ok((FIRED, why))
    }

    /// The rule's own work ended.
    fn ended(&self, branch: Branch, desk: &mut Desk, made: &mut Made) -> Result<Said, Unready> {
        let (outcome, name) = (branch.of(self.rule), branch.as_str());
        let mut facts = self.facts();
        if let Err(failed) = self.learn(&self.rule.asks.texts, &mut facts, made) {
            return Ok(failed);
        }
        self.emit(&outcome.emits, name, &facts, &mut made.main);
        // Mails first: they freeze what they attach before a move is even admitted.
        let said = self.tell(name, &outcome.mails, facts.clone(), desk, made)?;
        if !outcome.work.is_empty() {
            self.work(&outcome.work, name, false, &facts, &mut made.main.entries);
        }
        Ok(said.unwrap_or_else(|| (FIRED, name.to_owned())))
    }
}
