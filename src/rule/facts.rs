//! Facts: what a rule's condition and texts may say, and their values for one event. Pure.
//!
//! | always | brought by |
//! |---|---|
//! | `event` `rule` `host` `now` `data` | every event |
//! | `file` | `file_arrives` `file_changes` `file_removed`; the first of a set |
//! | `files` `set` | `file_arrives` with `together` |
//! | `schedule` | `schedule` |
//! | `job` | `job_succeeds` `job_fails` `job_finishes` `job_recovers`, and every outcome of work |
//! | `expected` | `file_missing`, which brings `file` when it is over, and `job_missing`, with `job` |
//! | `folder` | `folder_backlog` |
//! | `job` | `job_runs_long`, too |
//! | `cloudevent`, and what `data` holds besides | `event` |
//! | `trouble` | `trouble` |
//! | `case` | every trigger that opens a case, and the job triggers |
//! | `group` | every mail of a rule with `group`: see [`gathered`] |
//! | `throttle` | every mail of a rule with `throttle` |
//!
//! [`facts`] makes the values, [`Vocabulary`] says beforehand what there will be. Both come from the
//! same places (`FileRef::facts`, `JobReport`), so a fact that can be named is a fact that comes.
//! A rule with several triggers may name what any of them brings; where the event at hand brings
//! less, a template asks `{{#if file}}` and a condition `has(file.name)`.

pub mod case;
pub mod gathered;
mod sample;
pub mod word;

use crate::event::{Event, Kind};
use crate::rule::Rule;
use crate::rule::facts::case::{CaseFacts, case_key};
use crate::rule::facts::word::TriggerWord;
use crate::rule::index::Branch;
use crate::suggest;
use jiff::{Timestamp, Zoned};
use serde_json::{Map, Value, json};

/// What may be said in a rule's condition and texts.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    triggers: Vec<TriggerWord>,
    branch: Option<Branch>,
    /// `None`: not given, and then anything below `data` passes.
    data: Option<Value>,
    /// Whether the rule groups, and whether it throttles.
    telling: (bool, bool),
    samples: Vec<Sample>,
}

/// One whole set of facts an event could bring, and how it would come about.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When these would be the facts, to follow "when": `a file arrives`.
    pub when: &'static str,
    /// The facts.
    pub facts: Value,
}

/// What `rule` may say; in an outcome `branch` also what became of its work.
pub fn vocabulary(rule: &Rule, branch: Option<Branch>) -> Vocabulary {
    let triggers: Vec<TriggerWord> = rule.triggers.iter().map(TriggerWord::from).collect();
    Vocabulary::of(&triggers, branch).with_data(rule.data.clone())
}

/// A fact that is not in the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unknown {
    /// One sentence.
    pub message: String,
    /// What was perhaps meant.
    pub hint: Option<String>,
}

impl Vocabulary {
    /// What a rule with these triggers may say; in an outcome `branch` also what became of its work.
    pub fn of(triggers: &[TriggerWord], branch: Option<Branch>) -> Vocabulary {
        let mut triggers = triggers.to_vec();
        triggers.sort();
        triggers.dedup();
        let mut vocabulary = Vocabulary {
            triggers,
            branch,
            data: None,
            telling: (false, false),
            samples: Vec::new(),
        };
        vocabulary.samples = vocabulary.make_samples();
        vocabulary
    }

    /// With the rule's own `data`, which is checked by its real keys from then on.
    pub fn with_data(mut self, data: Value) -> Vocabulary {
        self.data = Some(data);
        self.samples = self.make_samples();
        self
    }

    /// With what a rule that groups, or that throttles, may say in its mails besides.
    pub fn with_telling(mut self, group: bool, throttle: bool) -> Vocabulary {
        if self.telling == (group, throttle) {
            return self;
        }
        self.telling = (group, throttle);
        self.samples = self.make_samples();
        self
    }

    /// Whether at least one trigger brings the fact at `path` (`["file", "name"]`).
    ///
    /// Numbers step into lists. The error names what was perhaps meant, or the trigger that would
    /// bring the fact.
    pub fn knows(&self, path: &[String]) -> Result<(), Unknown> {
        let Some(root) = path.first() else {
            return Ok(());
        };
        if root == "data" && self.data.is_none() || self.is_open(path) {
            return Ok(());
        }
        let roots: Vec<&Value> = self
            .samples
            .iter()
            .filter_map(|sample| sample.facts.get(root))
            .collect();
        if roots.is_empty() {
            return Err(self.unknown_root(root));
        }
        // A null of one sample says nothing; some other may know more.
        let mut worst = None;
        for value in roots {
            match follow(value, path) {
                Ok(()) => return Ok(()),
                Err(unknown) => worst = worst.or(Some(unknown)),
            }
        }
        worst.map_or(Ok(()), Err)
    }

    /// Whether that is for somebody else to say: what an emitted event holds.
    fn is_open(&self, path: &[String]) -> bool {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        self.triggers.contains(&TriggerWord::Event)
            && matches!(
                words.as_slice(),
                ["data", ..] | ["cloudevent", "data" | "extensions", ..]
            )
    }

    /// Whether every event of the rule brings the fact of that name (`file`).
    pub fn always(&self, root: &str) -> bool {
        self.samples.iter().all(|sample| sample.facts.get(root).is_some())
    }

    /// One whole set of facts a trigger, with realistic values: the most telling one of each trigger
    /// comes first.
    pub fn samples(&self) -> Vec<Value> {
        self.samples.iter().map(|sample| sample.facts.clone()).collect()
    }

    /// The same, with how each comes about. Jobs come three times: failed, succeeded, and ended by a
    /// signal, for then there is no exit code.
    pub fn cases(&self) -> &[Sample] {
        &self.samples
    }

    fn unknown_root(&self, root: &str) -> Unknown {
        if root == "case" {
            return Unknown {
                message: "no trigger of this rule opens a case".to_owned(),
                hint: Some("absences and troubles do, and a job that fails".to_owned()),
            };
        }
        if let Some(word) = TriggerWord::ALL.into_iter().find(|word| word.brings() == root) {
            let has: Vec<&str> = self.triggers.iter().map(|word| word.brings()).collect();
            let message = if has.is_empty() {
                format!("no trigger of this rule brings `{root}`")
            } else {
                format!(
                    "no trigger of this rule brings `{root}`, only `{}`",
                    has.join("`, `")
                )
            };
            let mut hint = format!("{} would bring `{root}`", word.written());
            if word == TriggerWord::Job && self.branch.is_none() {
                hint.push_str("; so would `on_success` and `on_failure` of a rule with `run:`");
            }
            return Unknown {
                message,
                hint: Some(hint),
            };
        }
        if ["group", "throttle"].contains(&root) {
            return Unknown {
                message: format!("only the mails of a rule with `{root}:` bring `{root}`"),
                hint: Some(format!("add `{root}:` to the rule")),
            };
        }
        let mut known: Vec<&str> = vec!["event", "rule", "host", "now", "data"];
        known.extend(self.samples.iter().flat_map(|sample| {
            let keys = sample.facts.as_object().into_iter().flatten();
            keys.map(|(key, _)| key.as_str())
        }));
        // `size` alone: some fact may have a part of that name.
        let part = self.samples.iter().find_map(|sample| {
            let facts = sample.facts.as_object()?;
            facts
                .iter()
                .find(|(_, value)| value.get(root).is_some())
                .map(|(key, _)| format!("{key}.{root}"))
        });
        known.sort_unstable();
        known.dedup();
        let hint = match (part, suggest::nearest(root, known.iter().copied())) {
            (Some(part), _) => format!("did you mean `{part}`?"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("there are `{}`", known.join("`, `")),
        };
        Unknown {
            message: format!("unknown fact `{root}`"),
            hint: Some(hint),
        }
    }

    fn make_samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let jobs = || -> Vec<(&'static str, Value)> {
            match self.branch {
                Some(Branch::Success) => vec![("the work ended well", sample::ended_well(false))],
                Some(Branch::Recovery) => vec![("the work ended well again", sample::ended_well(true))],
                Some(Branch::Failure) => vec![
                    ("the work failed", sample::failed()),
                    ("a signal ended the work", sample::killed()),
                ],
                None => vec![
                    ("a job failed", sample::failed()),
                    ("a job ended well", sample::ended_well(false)),
                    ("a signal ended a job", sample::killed()),
                ],
            }
        };
        for &trigger in &self.triggers {
            let (when, mut facts) = match trigger {
                TriggerWord::FileArrives => ("a file arrives", json!({ "file": sample::file(false) })),
                TriggerWord::FileChanges => ("a file changes", json!({ "file": sample::file(true) })),
                TriggerWord::FileRemoved => {
                    ("a file is removed", json!({ "file": sample::file_ref().facts() }))
                }
                TriggerWord::FilesTogether => ("a set of files is complete", sample::set()),
                TriggerWord::Schedule => (
                    "the schedule is due",
                    json!({ "schedule": {
                        "due": "2026-03-02T02:00:00+01:00", "late": 0, "missed": false,
                    }}),
                ),
                TriggerWord::Event => (
                    "an event is emitted",
                    json!({ "cloudevent": {
                        "id": "A234-1234-1234",
                        "source": "//host/backup",
                        "type": "com.example.backup.finished",
                        "subject": "db1",
                        "time": "2026-03-02T08:30:00+01:00",
                        "dataschema": "",
                        "extensions": {},
                        "data": {},
                        "depth": 0,
                    }}),
                ),
                TriggerWord::Trouble => (
                    "there is trouble",
                    json!({ "trouble": {
                        "kind": "account",
                        "key": "account:office",
                        "subject": "office",
                        "text": "the sign-in was refused: AADSTS50173, the grant was revoked",
                        "steps": ["Run `tidings auth login office`."],
                        "since": "2026-03-02T08:20:00+01:00",
                        "ended": null,
                        "lasted": null,
                    }}),
                ),
                TriggerWord::Job => ("", json!({})),
                TriggerWord::FileMissing
                | TriggerWord::FolderBacklog
                | TriggerWord::JobMissing
                | TriggerWord::JobRunsLong => sample::absent(trigger, self.branch == Some(Branch::Recovery)),
            };
            if let Some(facts) = facts.as_object_mut() {
                facts.extend(self.always_there(trigger));
                if trigger.opens_case() {
                    facts.insert("case".to_owned(), sample::case());
                }
            }
            let ends = trigger.is_absence() && self.branch == Some(Branch::Recovery);
            let over = (trigger == TriggerWord::Trouble).then(|| Sample {
                when: "the trouble is over",
                facts: sample::over(&facts),
            });
            if ends || trigger != TriggerWord::Job && self.branch.is_none() {
                samples.push(Sample { when, facts });
                samples.extend(over);
                continue;
            }
            for (when, job) in jobs() {
                let mut facts = facts.clone();
                facts["job"] = job;
                samples.push(Sample { when, facts });
            }
        }
        for sample in &mut samples {
            gathered::add_samples(&mut sample.facts, self.telling.0, self.telling.1);
        }
        samples
    }

    fn always_there(&self, trigger: TriggerWord) -> Map<String, Value> {
        let kind = match (trigger, self.branch) {
            (TriggerWord::FileMissing, None | Some(Branch::Recovery)) => Kind::FileMissing,
            (TriggerWord::FolderBacklog, None | Some(Branch::Recovery)) => Kind::FolderBacklog,
            (TriggerWord::JobMissing, None | Some(Branch::Recovery)) => Kind::JobMissing,
            (TriggerWord::JobRunsLong, None | Some(Branch::Recovery)) => Kind::JobRunsLong,
            (_, Some(Branch::Failure)) | (TriggerWord::Job, None) => Kind::JobFails,
            (_, Some(_)) => Kind::JobSucceeds,
            (TriggerWord::FileRemoved, None) => Kind::FileRemoved,
            (TriggerWord::FileArrives | TriggerWord::FileChanges | TriggerWord::FilesTogether, None) => {
                Kind::FileArrives
            }
            (TriggerWord::Schedule, None) => Kind::Schedule,
            (TriggerWord::Event, None) => Kind::Event,
            (TriggerWord::Trouble, None) => Kind::Trouble,
        };
        let mut facts = Map::new();
        facts.insert(
            "event".to_owned(),
            json!({
                "id": 4711, "type": kind.as_str(), "key": "sample:4711", "time": "2026-03-02T08:30:00+01:00",
            }),
        );
        facts.insert(
            "rule".to_owned(),
            json!({ "name": "sample-rule", "description": "What the rule is for" }),
        );
        facts.insert("host".to_owned(), json!("mail-host"));
        facts.insert("now".to_owned(), json!("2026-03-02T08:30:05+01:00"));
        facts.insert(
            "data".to_owned(),
            match &self.data {
                Some(Value::Null) | None => json!({}),
                Some(data) => data.clone(),
            },
        );
        facts
    }
}

/// What facts say beside the event: where and when they are told.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// This machine's name.
    pub host: String,
    /// The time, in the default time zone.
    pub now: Zoned,
}

/// The facts of `event` for `rule`.
///
/// Times are RFC 3339 with the offset of `surroundings.now`'s zone. What is always there wins over
/// an event's fact of the same name, so that no reporter can speak as `rule` or `event`.
pub fn facts(event: &Event, rule: &Rule, surroundings: &Surroundings) -> Value {
    let happening = &event.happening;
    let mut facts = happening.facts.clone();
    // A step that moved the file left the facts of its old place.
    if let Some(file) = &happening.file {
        file.refresh(&mut facts);
    }
    if happening.kind != Kind::FileArrives && happening.origin.is_none() {
        // Only a source of ours tells which files belong together: they may be attached.
        facts.remove("files");
        facts.remove("set");
    }
    if let Some(Value::Object(job)) = facts.get_mut("job") {
        job.insert("recovered".to_owned(), Value::Bool(event.recovers));
    }
    let zone = surroundings.now.time_zone();
    let stamp = |time: Timestamp| time.display_with_offset(zone.to_offset(time)).to_string();
    facts.insert(
        "event".to_owned(),
        json!({
            "id": event.id.0,
            "type": happening.kind.as_str(),
            "key": happening.key,
            "time": stamp(happening.time),
        }),
    );
    facts.insert(
        "rule".to_owned(),
        json!({ "name": rule.name, "description": rule.description.as_deref().unwrap_or_default() }),
    );
    facts.insert("host".to_owned(), json!(surroundings.host));
    facts.insert("now".to_owned(), json!(stamp(surroundings.now.timestamp())));
    if let Some(key) = case_key(event, &rule.name) {
        let case = CaseFacts {
            key,
            opened: stamp(happening.time),
            open_for: 0,
            reminder: 0,
            escalation: 0,
        };
        facts.insert("case".to_owned(), json!(case));
    }
    let data = data(facts.get("cloudevent"), &rule.data);
    facts.insert("data".to_owned(), data);
    Value::Object(facts)
}

/// The rule's own `data`, and below it what an emitted event says, if that is a group of facts.
fn data(emitted: Option<&Value>, own: &Value) -> Value {
    let mut data = match emitted.and_then(|emitted| emitted.get("data")) {
        Some(Value::Object(said)) => said.clone(),
        _ => Map::new(),
    };
    match own {
        Value::Null => {}
        Value::Object(own) => data.extend(own.clone()),
        other => return other.clone(),
    }
    Value::Object(data)
}

/// Steps from `value`, which is `path[0]`, down the rest of `path`.
fn follow(mut value: &Value, path: &[String]) -> Result<(), Unknown> {
    for (depth, part) in path.iter().enumerate().skip(1) {
        let so_far = path[..depth].join(".");
        value = match value {
            Value::Object(map) => match map.get(part) {
                Some(value) => value,
                None => {
                    let known: Vec<&str> = map.keys().map(String::as_str).collect();
                    let hint = match suggest::nearest(part, known.iter().copied()) {
                        Some(near) => format!("did you mean `{so_far}.{near}`?"),
                        None if known.is_empty() => format!("`{so_far}` is empty"),
                        None => format!("`{so_far}` has `{}`", known.join("`, `")),
                    };
                    return Err(Unknown {
                        message: format!("unknown fact `{so_far}.{part}`"),
                        hint: Some(hint),
                    });
                }
            },
            Value::Array(list) => match (part.parse::<usize>(), list.first()) {
                (Ok(_), Some(first)) => first,
                (Ok(_), None) => return Ok(()),
                (Err(_), _) => {
                    return Err(Unknown {
                        message: format!("`{so_far}` is a list and has no part `{part}`"),
                        hint: None,
                    });
                }
            },
            scalar => {
                return Err(Unknown {
                    message: format!("`{so_far}` is {} and has no part `{part}`", kind_of(scalar)),
                    hint: None,
                });
            }
        };
    }
    Ok(())
}

/// What a value is, for people: `text`, `a number`.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a group of facts",
    }
}

#[cfg(test)]
mod tests;
