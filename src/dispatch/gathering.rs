//! Telling: what stands between an event and its mails. Throttle, group, quiet hours and fuse, in this order;
//! what they decide is in `rule::gather` and `rule::fuse`, here it is written down.
//!
//! | gathering's key | holds | due |
//! |---|---|---|
//! | `throttle:PART:KEY` | when mails went, what was folded since | when it says nothing any more |
//! | `group:PART:KEY` | a digest in the making | when it is told |
//! | `quiet:PART` | what is held for the quiet hours | at their end |
//! | `fuse:PART` | what the fuse sums up | an hour after it began |
//! | `fuse` | nothing: the case `fuse:RULE` is open | an hour after the last mail that was held |
//! | the key of an entry | the events of a digest that could not be composed | when a person says retry |
//!
//! An event that is dispatched again, because another entry of it was retried, is told by what was decided the
//! first time: it must not be in two digests, and a mail that went has its key in the outbox.

use crate::action::email::{self, MailSpec};
use crate::action::recipients::RecipientSpec;
use crate::config::settings::Then;
use crate::dispatch::asked::{Asked, FAILED, FIRED, Made, Said, Unready};
use crate::dispatch::desk::Desk;
use crate::entry::{Kind, NewEntry, Reason};
use crate::event;
use crate::rule::Rule;
use crate::rule::facts::gathered;
use crate::rule::gather::{self, Addressed, Arriving, Batch, Decision, Folded, Standing, Window};
use crate::rule::index::Branch;
use crate::store::{Admission, NewCase};
use crate::template::Text;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Counted, and told with the next one.
const THROTTLED: &str = "throttled";
/// In a group.
const GROUPED: &str = "grouped";
/// Held for the quiet hours.
const QUIET: &str = "quiet";
/// Held by the fuse.
const FUSE: &str = "fuse";
/// Summed up by the fuse.
const SUMMED: &str = "summary";

/// How long the fuse looks back, and how long it sums up.
pub(super) const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Whether news of this part of a rule is throttled and grouped. That something is over is not.
pub(super) fn gathers(part: &str) -> bool {
    part == "mail" || part == Branch::Success.as_str() || part == Branch::Failure.as_str()
}

/// The mails of a part of a rule.
pub(super) fn mails_of<'a>(rule: &'a Rule, part: &str) -> &'a [MailSpec] {
    let branches = [Branch::Success, Branch::Failure, Branch::Recovery];
    match branches.into_iter().find(|branch| branch.as_str() == part) {
        Some(branch) => &branch.of(rule).mails,
        None if part == "mail" => &rule.mails,
        None => &[],
    }
}

impl Asked<'_> {
    /// Tells an event by these mails: now, or when the rule wants it told. `None`: now.
    pub(super) fn tell(
        &self,
        part: &str,
        specs: &[MailSpec],
        mut facts: Value,
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<Option<Said>, Unready> {
        let telling = &self.rule.telling;
        if specs.is_empty() {
            return Ok(None);
        }
        if telling.is_plain() {
            return self.through_fuse(part, specs, &facts, desk, made);
        }
        if let Some(said) = self.said_before(part, specs, &facts, desk, made)? {
            return Ok(Some(said));
        }
        let gathers = gathers(part);
        let by = |text: Option<&Text>, what: &str| self.key_of(text.filter(|_| gathers), what, &facts);
        let keys = by(
            telling.throttle.as_ref().and_then(|one| one.by.as_ref()),
            "throttle",
        )
        .and_then(|a| {
            let b = by(telling.group.as_ref().and_then(|one| one.by.as_ref()), "group")?;
            Ok((a, b))
        });
        let (throttle_key, group_key) = match keys {
            Ok(keys) => keys,
            Err(reason) => {
                let text = reason.text.clone();
                made.main.entries.push(self.unmade(Kind::Mail, part, reason));
                return Ok(Some((FAILED, text)));
            }
        };
        let rule = self.rule.name.as_str();
        let window_place = format!("throttle:{part}:{throttle_key}");
        let group_place = format!("group:{part}:{group_key}");
        let quiet_place = format!("quiet:{part}");
        let mut standing = Standing::default();
        if gathers && telling.throttle.is_some() {
            standing.window = desk
                .standing::<Window>(rule, &window_place)?
                .map(|(state, _)| state);
        }
        if gathers && telling.group.is_some() {
            let found = desk.standing::<Batch>(rule, &group_place)?;
            standing.group = found.map(|(batch, due)| (batch, due.unwrap_or(self.now)));
        }
        if telling
            .quiet
            .as_ref()
            .is_some_and(|quiet| quiet.until(self.now).is_some())
        {
            standing.quiet = desk
                .standing::<Batch>(rule, &quiet_place)?
                .map(|(state, _)| state);
        }
        let arriving = Arriving {
            id: self.event.id,
            time: self.event.happening.time,
            throttle_key: &throttle_key,
            group_key: &group_key,
        };
        let arrival = gather::arrive(telling, gathers, standing, &arriving, self.now);
        if let (Some(window), Some(throttle)) = (&arrival.window, &telling.throttle) {
            let due = window.due(throttle);
            desk.put(
                (rule, &window_place),
                window,
                due,
                Vec::new(),
                &mut made.main.gathers,
            );
        }
        let (word, place, batch, due) = match arrival.decision {
            Decision::Throttled => return Ok(Some((THROTTLED, arrival.reason))),
            Decision::Tell(folded) => {
                self.say_throttled(part, &mut facts, folded.as_ref());
                return self.through_fuse(part, specs, &facts, desk, made);
            }
            Decision::Grouped(batch, due) => (GROUPED, group_place, batch, due),
            Decision::Quiet(batch, due) => (QUIET, quiet_place, batch, due),
        };
        let batch = self.addressed(batch, specs, &facts);
        desk.put(
            (rule, &place),
            &batch,
            Some(due),
            vec![self.event.id],
            &mut made.main.gathers,
        );
        Ok(Some((word, arrival.reason)))
    }

    /// Where the event was dispatched before: what was said then stands. `None`: it was not.
    fn said_before(
        &self,
        part: &str,
        specs: &[MailSpec],
        facts: &Value,
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<Option<Said>, Unready> {
        let Some(before) = desk.earlier(self.event, &self.rule.name, self.nth)? else {
            return Ok(None);
        };
        // Gathered then: it is in what is gathered, or in a digest that has gone or is held.
        let gathered = [THROTTLED, GROUPED, QUIET, SUMMED];
        if let Some(word) = gathered.into_iter().find(|word| *word == before.outcome) {
            return Ok(Some((word, before.detail)));
        }
        let Some(word) = [FIRED, FUSE].into_iter().find(|word| *word == before.outcome) else {
            return Ok(None);
        };
        // Told at once then, without what holds up others: what went has its key, what could not be composed
        // is composed now.
        let mut facts = facts.clone();
        self.say_throttled(part, &mut facts, None);
        self.mails(specs, part, &facts, &mut made.main.entries)?;
        Ok(Some((word, before.detail)))
    }

    /// Past the fuse, or not.
    fn through_fuse(
        &self,
        part: &str,
        specs: &[MailSpec],
        facts: &Value,
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<Option<Said>, Unready> {
        let rule = self.rule.name.as_str();
        if desk.pass(rule, specs.len()) {
            self.mails(specs, part, facts, &mut made.main.entries)?;
            return Ok(None);
        }
        if self.rule.telling.is_plain()
            && let Some(said) = self.said_before(part, specs, facts, desk, made)?
        {
            return Ok(Some(said));
        }
        let zone = &self.plan.settings.defaults.timezone;
        let most = most(desk);
        if sums_up(desk) {
            let place = format!("fuse:{part}");
            let standing = desk.standing::<Batch>(rule, &place)?;
            let arriving = Arriving {
                id: self.event.id,
                time: self.event.happening.time,
                throttle_key: "",
                group_key: "",
            };
            let one = Batch::of(&arriving, "", None);
            let (batch, due) = match standing {
                Some((batch, due)) => (batch.and(one), due.unwrap_or(self.now)),
                None => (one, self.now.saturating_add(HOUR).unwrap_or(Timestamp::MAX)),
            };
            let batch = self.addressed(batch, specs, facts);
            desk.put(
                (rule, &place),
                &batch,
                Some(due),
                vec![self.event.id],
                &mut made.main.gathers,
            );
            desk.fuses
                .entry(rule.to_owned())
                .or_default()
                .sum_until(Some(due));
            let text = format!(
                "past the fuse ({most} mails in an hour): joined the summary, due {}",
                gather::clock(due, self.now, zone)
            );
            return Ok(Some((SUMMED, text)));
        }
        let mut entries = Vec::new();
        let composed = self.mails(specs, part, facts, &mut entries);
        hold(entries, rule, self.event.happening.kind, desk, made);
        composed?;
        Ok(Some((
            FUSE,
            format!("held by the fuse: {most} mails in an hour were sent already"),
        )))
    }

    /// `throttle` among the facts, where the rule has it.
    fn say_throttled(&self, part: &str, facts: &mut Value, folded: Option<&Folded>) {
        if gathers(part) && self.rule.telling.throttle.is_some() {
            facts["throttle"] = gathered::throttle(folded, &self.plan.settings.defaults.timezone);
        }
    }

    /// What `by` gives; what it gives empty, or not at all, holds the mail.
    fn key_of(&self, by: Option<&Text>, what: &str, facts: &Value) -> Result<String, Reason> {
        let Some(text) = by else {
            return Ok(String::new());
        };
        let source = text.source();
        match text.render(facts) {
            Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            Ok(_) => Err(Reason::new(format!(
                "`{what}: {{ by: {source} }}` of rule `{}` gave nothing, so nobody knows what this belongs to",
                self.rule.name
            ))),
            Err(error) => Err(Reason::new(format!(
                "`{what}: {{ by: {source} }}` of rule `{}`: {error}",
                self.rule.name
            ))),
        }
    }

    /// Notes whom the rule would tell, should it be gone when this is due.
    fn addressed(&self, mut batch: Batch, specs: &[MailSpec], facts: &Value) -> Batch {
        let known = !batch.told.is_empty();
        for (number, spec) in specs.iter().enumerate() {
            let lists = [&spec.to, &spec.cc, &spec.bcc];
            let fixed = lists
                .iter()
                .all(|list| list.iter().all(|one| matches!(one, RecipientSpec::Fixed(_))));
            if known && fixed {
                continue;
            }
            // What cannot be said now is said when the mail is composed.
            let list = |spec: &MailSpec| -> Vec<String> {
                let all = self.composing(facts, |with| email::addressed(spec, with));
                all.unwrap_or_default().iter().map(ToString::to_string).collect()
            };
            let more = Addressed {
                account: spec.account.clone(),
                from: spec.from.to_string(),
                to: list(&MailSpec {
                    bcc: Vec::new(),
                    ..spec.clone()
                }),
                bcc: list(&MailSpec {
                    to: Vec::new(),
                    cc: Vec::new(),
                    ..spec.clone()
                }),
            };
            match batch.told.get_mut(number) {
                Some(told) => told.and(more),
                None => batch.told.push(more),
            }
        }
        batch
    }
}

/// How many mails of a rule may go in an hour.
pub(super) fn most(desk: &Desk) -> u32 {
    desk.plan
        .settings
        .limits
        .map_or(0, |limits| limits.mails_per_rule_per_hour)
}

/// Whether what is past the fuse is summed up.
pub(super) fn sums_up(desk: &Desk) -> bool {
    desk.plan
        .settings
        .limits
        .is_some_and(|limits| limits.then == Then::Summary)
}

/// Entries past the fuse wait for a person, and one case stands for all of them. The news of a trouble opens
/// none.
pub(super) fn hold(entries: Vec<NewEntry>, rule: &str, about: event::Kind, desk: &mut Desk, made: &mut Made) {
    let reason = Reason {
        text: format!(
            "rule `{rule}` has sent {} mails within an hour, and `limits` of tidings.yaml allow no more; what comes \
             on top is held, nothing is lost",
            most(desk)
        ),
        steps: vec![
            "See what makes so many: tidings outbox list --state held".to_owned(),
            "Send what is right with `tidings outbox retry`, and drop the rest with `tidings outbox cancel`."
                .to_owned(),
            "If so many are usual, raise `mails_per_rule_per_hour`, or let the rule `group` them.".to_owned(),
        ],
        ..Reason::default()
    };
    let mut apart = Admission::default();
    for mut entry in entries {
        if entry.held.is_some() {
            made.main.entries.push(entry);
            continue;
        }
        entry.held = Some(reason.clone());
        entry.summary["held_by"] = "fuse".into();
        apart.entries.push(entry);
    }
    if about != event::Kind::Trouble {
        let until = desk.now.saturating_add(HOUR).unwrap_or(Timestamp::MAX);
        desk.put(
            (rule, "fuse"),
            &Value::Null,
            Some(until),
            Vec::new(),
            &mut apart.gathers,
        );
        apart.case = Some(NewCase {
            key: format!("fuse:{rule}"),
            kind: "rule".to_owned(),
            subject: rule.to_owned(),
            reason,
        });
    }
    made.apart.push(apart);
}
