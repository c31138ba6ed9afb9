//! `tidings explain job`: what would follow if a job ended so.

use super::story::{Lines, Story};
use super::suppose::{Answer, decide, supposed};
use crate::event::{EventId, Origin};
use crate::rule::index::{Rules, Why};
use crate::rule::load::Setup;
use crate::source::job::{self, JobReport};
use crate::store::Store;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What each rule would make of a job's end.
pub fn story(setup: &Setup, store: &Store, name: &str, exit: i32, after_failure: bool) -> Story {
    let now = Timestamp::now().to_string();
    let report = JobReport {
        name: name.to_owned(),
        ok: exit == 0,
        exit_code: Some(exit),
        attempt: 1,
        duration: 1.0,
        summary: format!("ended with exit code {exit}"),
        started: now.clone(),
        ended: now,
        ..JobReport::default()
    };
    let own = setup
        .rules
        .iter()
        .find(|rule| rule.name == name && !rule.work.is_empty());
    let origin = own.map(|rule| Origin {
        rule: rule.name.clone(),
        event: EventId(0),
    });
    let happening = job::outcome(&report, origin, &Map::new(), None, "explain".to_owned());
    let event = supposed(happening, exit == 0 && after_failure);
    let rules = Rules::new(setup.rules.clone());
    let answers: Vec<Answer> = rules
        .find(&event)
        .into_iter()
        .map(|found| {
            let branch = match found.why {
                Why::Outcome(branch) => Some(branch),
                Why::Trigger(_) => None,
            };
            decide(setup, store, &found.rule, &event, branch)
        })
        .collect();
    let mut lines = Lines::default();
    for answer in &answers {
        answer.tell(&mut lines);
    }
    if answers.is_empty() {
        lines.say(
            0,
            match own {
                Some(rule) => format!(
                    "Rule {} runs it [{}] and says nothing of such an end; no other rule is about it.",
                    rule.name, rule.place
                ),
                None => "No rule is about it.".to_owned(),
            },
        );
    }
    let mut story = Story::new(format!("If the job {name} ended with exit code {exit} now:"));
    story.part("What each rule would make of it", lines);
    story.with("job", json!(name));
    story.with("exit_code", json!(exit));
    let rules: Vec<Value> = answers.iter().map(Answer::to_json).collect();
    story.with("rules", Value::Array(rules));
    story
}
