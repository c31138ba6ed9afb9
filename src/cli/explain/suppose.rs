//! What a rule would make of something that has not happened. Sends nothing, changes nothing.

use super::story::Lines;
use crate::action::StepSpec;
use crate::action::email::{self, Composing, MailSpec};
use crate::action::run::shown_command;
use crate::event::{Event, EventId, NewEvent};
use crate::rule::demand::Learned;
use crate::rule::facts::{self, Surroundings};
use crate::rule::index::Branch;
use crate::rule::load::Setup;
use crate::rule::{Outcome, Rule};
use crate::store::Store;
use serde_json::{Value, json};

/// What one rule would make of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub rule: String,
    /// Where it stands.
    pub place: String,
    /// Whether it would do something.
    pub fires: bool,
    /// Why it fires or not; may be empty where it fires without a condition.
    pub why: String,
    /// What it would do, a line each.
    pub then: Vec<String>,
}

impl Answer {
    /// An answer.
    pub fn of(rule: &Rule, fires: bool, why: String) -> Answer {
        Answer {
            rule: rule.name.clone(),
            place: rule.place.clone(),
            fires,
            why,
            then: Vec::new(),
        }
    }

    /// A no.
    pub fn no(rule: &Rule, why: String) -> Answer {
        Answer::of(rule, false, why)
    }

    /// As lines of a story.
    pub fn tell(&self, lines: &mut Lines) {
        let word = if self.fires { "yes" } else { "no" };
        let why = match (self.fires, self.why.is_empty()) {
            (_, true) => String::new(),
            (true, false) => format!(" ({})", self.why),
            (false, false) => format!(", {}", self.why),
        };
        lines.say(0, format!("rule {}: {word}{why} [{}]", self.rule, self.place));
        for line in &self.then {
            lines.say(1, line.clone());
        }
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({ "rule": self.rule, "place": self.place, "fires": self.fires, "why": self.why, "then": self.then })
    }
}

/// An event that might happen.
pub fn supposed(happening: NewEvent, recovers: bool) -> Event {
    Event {
        id: EventId(0),
        recorded: happening.time,
        happening,
        recovers,
    }
}

/// What a rule makes of an event that might happen.
pub fn decide(setup: &Setup, store: &Store, rule: &Rule, event: &Event, branch: Option<Branch>) -> Answer {
    let now = event.recorded;
    let zone = setup.settings.defaults.timezone.clone();
    let surroundings = Surroundings {
        host: crate::app::host(),
        now: now.to_zoned(zone),
    };
    let mut facts = facts::facts(event, rule, &surroundings);
    let mut learned = Learned::default();
    for wish in [&rule.asks.condition, &rule.asks.texts] {
        // Of a file that is not there everything else is told all the same.
        if let Err(why) = learned.tell(&setup.settings.ground, &event.happening, wish, &mut facts)
            && event
                .happening
                .file
                .as_ref()
                .is_some_and(|file| file.path().exists())
        {
            return Answer::no(rule, format!("it asks what stands in the file: {why}"));
        }
    }
    let with = Composing {
        settings: &setup.settings,
        templates: &setup.templates,
        spool: store.spool(),
        rule: &rule.name,
        event: None,
        facts: &facts,
        file: event.happening.file.as_ref(),
        job_log: None,
        now,
        host: &surroundings.host,
    };
    let (outcome, why): (Option<&Outcome>, String) = match branch {
        Some(Branch::Success) => (Some(&rule.on_success), "on_success".to_owned()),
        Some(Branch::Failure) => (Some(&rule.on_failure), "on_failure".to_owned()),
        Some(Branch::Recovery) => (Some(&rule.on_recovery), "on_recovery".to_owned()),
        None => match rule.condition.as_ref().map(|condition| condition.check(&facts)) {
            None => (None, String::new()),
            Some(Ok(decision)) if decision.holds => (None, decision.why),
            Some(Ok(decision)) => {
                return Answer::no(rule, format!("its condition says no ({})", decision.why));
            }
            Some(Err(error)) => {
                return Answer::no(rule, format!("its condition fails: {error}"));
            }
        },
    };
    let mut answer = Answer::of(rule, true, why);
    let (steps, mails): (&[StepSpec], &[MailSpec]) = match outcome {
        Some(outcome) => (&outcome.work, &outcome.mails),
        None => (&rule.work, &rule.mails),
    };
    for step in steps {
        answer.then.push(format!("then {}", step_line(step, &facts)));
    }
    for mail in mails {
        answer.then.push(format!("mail {}", mail_line(mail, &with)));
    }
    if outcome.is_none() && !rule.work.is_empty() {
        for (name, branch) in [
            ("succeeds", &rule.on_success),
            ("fails", &rule.on_failure),
            ("recovers", &rule.on_recovery),
        ] {
            for mail in &branch.mails {
                let to = match recipients(mail, &with) {
                    Ok(to) => format!("mail to {to}"),
                    Err(why) => format!("a mail that would be held: {why}"),
                };
                answer.then.push(format!("if it {name}: {to}"));
            }
        }
    }
    answer
}

fn step_line(step: &StepSpec, facts: &Value) -> String {
    let text = |text: &crate::template::Text| text.render(facts).unwrap_or_else(|error| format!("({error})"));
    match step {
        StepSpec::Run(run) => format!(
            "run {}",
            shown_command(&run.command.iter().map(text).collect::<Vec<_>>())
        ),
        StepSpec::Move(to) => format!("move it to {}", text(to)),
        StepSpec::Copy(to) => format!("copy it to {}", text(to)),
        StepSpec::Delete => "delete it".to_owned(),
    }
}

/// Who would get a mail, or why it would be held.
fn recipients(mail: &MailSpec, with: &Composing<'_>) -> Result<String, String> {
    match email::addressed(mail, with) {
        Ok(all) => Ok(all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Err(reason) => Err(reason.text),
    }
}

fn mail_line(mail: &MailSpec, with: &Composing<'_>) -> String {
    let facts = with.facts;
    let to = match recipients(mail, with) {
        Ok(to) => to,
        Err(why) => return format!("that would be held: {why}"),
    };
    let attached: Vec<_> = mail
        .attach
        .iter()
        .map(|text| text.render(facts).unwrap_or_else(|error| format!("({error})")))
        .collect();
    let attached = if attached.is_empty() {
        String::new()
    } else {
        format!(", with {}", attached.join(", "))
    };
    format!(
        "to {to} from {} by account {}, template {}{attached}",
        mail.from, mail.account, mail.template
    )
}
