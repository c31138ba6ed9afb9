//! What a rule emits because of an event: recorded in the transaction that marks the event as
//! dispatched, under a key that the same happening always gets.

use crate::dispatch::asked::Asked;
use crate::entry::{Kind, Reason};
use crate::event::{NewEvent, Origin};
use crate::rule::emit::{DEEPEST, EmitSpec};
use crate::store::Admission;
use serde_json::Value;

impl Asked<'_> {
    /// Adds the events that the rule has for others, at once, whatever is gathered of its mails. One that
    /// cannot be made is held as an entry with its reason, like a mail, and `outbox retry` dispatches its
    /// cause again.
    pub(super) fn emit(&self, specs: &[EmitSpec], part: &str, facts: &Value, made: &mut Admission) {
        for (number, spec) in specs.iter().enumerate() {
            match self.emitted(spec, part, number, facts) {
                Ok(event) => made.events.push(event),
                Err(text) => {
                    let part = format!("{part}-emit-{number}");
                    made.entries
                        .push(self.unmade(Kind::Mail, &part, Reason::new(text)));
                }
            }
        }
    }

    fn emitted(&self, spec: &EmitSpec, part: &str, number: usize, facts: &Value) -> Result<NewEvent, String> {
        let rule = &self.rule.name;
        let before = self.event.happening.facts.get("cloudevent");
        let depth = before
            .and_then(|before| before.get("depth")?.as_u64())
            .unwrap_or(0)
            + 1;
        if depth > DEEPEST {
            return Err(format!(
                "rule `{rule}` would emit the event `{}` as the {depth}th in a row that led to one another: \
                 rules go round in a circle",
                spec.kind
            ));
        }
        let id = blake3::hash(self.key(part, &format!("emit-{number}")).as_bytes());
        let id = id.to_hex().as_str()[..32].to_owned();
        // Not the key that an event from outside with this source and id would have: nobody takes it first.
        let key = format!("emit:{id}");
        let event = spec.make(rule, id, facts, self.now).map_err(|error| {
            format!(
                "the event `{}` of rule `{rule}` cannot be made: {error}",
                spec.kind
            )
        })?;
        let mut happening = event.happening_as(key, depth, self.now);
        happening.origin = Some(Origin {
            rule: rule.clone(),
            event: self.event.id,
        });
        Ok(happening)
    }
}
